"""What follows native streams does not depend on how their bytes are cut."""

import base64
import json
from itertools import pairwise

import msgspec
import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.native.bedrock_stream import ConverseEvents, InvokeEvents
from gateway.native.bounds import bounded, fields_of, one_reading
from gateway.native.eventstream import Frames, frame
from gateway.native.gemini_stream import GeminiEvents
from gateway.prompt_bound import FILE_TOKENS, IMAGE_TOKENS
from tests.fixtures.server import Json
from tests.upstream import bedrock_dialect

HEADERS = st.dictionaries(st.text("abcdef:-", min_size=1, max_size=20), st.text(max_size=40), max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=4), st.lists(st.integers(0, 5000), max_size=8))
def test_frames_are_read_however_they_are_cut(events: list[tuple[dict[str, str], bytes]], places: list[int]) -> None:
    """As they were written, and as another reader reads them."""
    whole = b"".join(frame(headers, payload) for headers, payload in events)
    frames = Frames()
    read = [one for piece in cut(whole, places) for one in frames.feed(piece)]
    assert b"".join(raw for raw, _ in read) == whole
    assert [(dict(one.headers), one.payload) for _, one in read] == events
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    assert [(event.headers, event.payload) for event in buffer] == events


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_frame_is_seen(place: int, flip: int) -> None:
    whole = bytearray(frame({":event-type": "messageStop", ":message-type": "event"}, b'{"stopReason":"end_turn"}'))
    whole[place % len(whole)] ^= flip
    frames = Frames()
    try:
        read = frames.feed(bytes(whole))
    except UpstreamError:
        return
    assert (read, frames.torn) == ([], True)  # it waits for more, which never comes


def test_a_torn_stream_is_not_whole() -> None:
    events = ConverseEvents()
    events.feed(bedrock_dialect.frame("messageStop", b"{}"))
    assert events.whole
    events.feed(bedrock_dialect.frame("metadata", b"{}")[:9])
    events.close()
    assert not events.whole


def test_claude_s_cache_is_read_through_bedrock() -> None:
    """Its own report knows more than the numbers that Bedrock adds."""
    metrics = {"inputTokenCount": 5, "outputTokenCount": 9}
    told = [
        {
            "type": "message_start",
            "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 70, "output_tokens": 1}},
        },
        {"type": "content_block_delta", "delta": {"text": "x"}},
        {"type": "message_delta", "usage": {"output_tokens": 9}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics},
    ]
    events = InvokeEvents()
    for event in told:
        inner = base64.b64encode(json.dumps(event).encode()).decode()
        events.feed(bedrock_dialect.frame("chunk", msgspec.json.encode({"bytes": inner})))
    assert events.whole
    assert events.usage is not None
    assert (events.usage.input, events.usage.cached_read, events.usage.output) == (75, 70, 9)


@given(st.lists(st.integers(0, 900), max_size=6), st.booleans())
def test_a_gemini_stream_is_the_same_however_it_is_cut(places: list[int], as_array: bool) -> None:
    told: list[Json] = [{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in ("one", "two")]
    told.append(
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 8}}
    )
    whole = b"".join(b"data: %b\r\n\r\n" % msgspec.json.encode(event) for event in told)
    events = GeminiEvents(as_array=as_array)
    out = b"".join(events.feed(piece) for piece in cut(whole, places)) + events.close()
    read = json.loads(out) if as_array else [json.loads(line[6:]) for line in out.splitlines() if line]
    assert read == told
    assert events.whole
    assert events.usage is not None
    assert (events.usage.input, events.usage.output) == (3, 8)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"generationConfig": {"maxOutputTokens": 40, "candidateCount": 3}}, 120),
        ({"inferenceConfig": {"maxTokens": 7}}, 7),
        ({"max_tokens": 9, "messages": []}, 9),
        ({"textGenerationConfig": {"maxTokenCount": "11"}}, 11),
        ({"max_tokens": None}, 0),
    ],
)
def test_limits_are_found_under_every_name(body: dict[str, object], output: int) -> None:
    raw = json.dumps(body).encode()
    assert bounded("m", raw, fields_of(raw), stream=False).most.output == output


def test_pictures_and_files_are_more_than_their_bytes() -> None:
    def tokens(part: object) -> int:
        raw = json.dumps({"contents": [part]}).encode()
        return bounded("m", raw, fields_of(raw), stream=False).most.input - len(raw)

    plain = tokens({"text": "x"})
    data = "A" * 1000
    assert tokens({"inlineData": {"mimeType": "image/png", "data": data}}) == plain + IMAGE_TOKENS - 1000
    assert tokens({"inlineData": {"mimeType": "application/pdf", "data": data}}) == plain + FILE_TOKENS
    assert tokens({"inlineData": {"mimeType": "audio/wav", "data": data}}) == plain
    assert tokens({"fileData": {"fileUri": "gs://x"}}) == plain + FILE_TOKENS
    assert tokens({"image": {"format": "png", "source": {"bytes": data}}}) >= plain + IMAGE_TOKENS - 1000
    assert tokens({"type": "image", "source": {"media_type": "image/png", "data": data}}) == plain + IMAGE_TOKENS - 1000


def test_a_body_with_one_reading_keeps_its_bytes() -> None:
    plain = b'{ "max_tokens" : 7, "x": 1.50 }'
    assert one_reading(plain, fields_of(plain)) is plain
    for two in (b'{"max_tokens":7,"max_tokens":900}', b'{"max_tokens":7,"max\\u005ftokens":900}'):
        assert one_reading(two, fields_of(two)) == b'{"max_tokens":900}'


def test_a_deeply_nested_body_is_refused_or_read() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    bounded("m", deep, fields_of(deep), stream=False)
