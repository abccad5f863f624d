"""Events go on as they came, whole, whatever the split; what matters in them is remembered."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.units.events import Events
from gateway.units.speech import Speech

DELTA = b'event: speech.audio.delta\ndata: {"type":"speech.audio.delta","audio":"AAAA"}\n\n'
DONE = b'data: {"type":"speech.audio.done","usage":{"input_tokens":3,"output_tokens":9}}\n\n'
ERROR = b'data: {"error":{"message":"out of voice"}}\n\n'


def events() -> Events:
    return Events(Speech().event_usage)


def fed(stream: Events, data: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges) if start < end)
    return out + stream.close()


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_any_split_gives_the_same_bytes(cuts: list[int], end: bytes) -> None:
    data = (b": hello\n\n" + DELTA * 3 + DONE).replace(b"\n", end)
    stream = events()
    assert fed(stream, data, cuts) == data
    assert (stream.content, stream.whole, stream.error) == (True, True, None)
    assert stream.usage is not None
    assert (stream.usage.input, stream.usage.audio_output) == (3, 9)


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_nothing_goes_on_after_an_error(cuts: list[int]) -> None:
    """The error itself is told in our own words."""
    stream = events()
    assert fed(stream, DELTA + ERROR + DELTA, cuts) == DELTA
    assert stream.error is not None
    assert "out of voice" in stream.error.message
    assert not stream.whole


@pytest.mark.parametrize("bad", [b"data: {\n\n", b'data: {"usage":{"input_tokens":"x"}}\n\n', b"data: []\n\n"])
def test_a_damaged_event_ends_it(bad: bytes) -> None:
    stream = events()
    assert stream.feed(DELTA + bad) == DELTA
    assert stream.error is not None


def test_an_end_without_its_empty_line_counts() -> None:
    stream = events()
    assert fed(stream, DELTA + DONE.rstrip(), []).rstrip() == (DELTA + DONE).rstrip()
    assert stream.whole


def test_a_transcript_in_the_shape_of_a_chat_ends_as_a_chat_does() -> None:
    """As vLLM streams it."""
    stream = events()
    fed(stream, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', [])
    assert not stream.whole
    fed(stream, b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', [])
    assert stream.whole
