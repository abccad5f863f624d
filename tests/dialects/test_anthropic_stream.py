"""Claude's streams as OpenAI's chunks, under any split of their bytes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.dialects.anthropic_stream import MessageStream
from gateway.dialects.anthropic_tools import ANSWER_TOOL
from tests.dialects.anthropic_payloads import (
    PING,
    REFUSAL,
    SEARCH,
    STOP,
    STREAMS,
    TEXT,
    THINKING,
    TOOLS,
    end,
    sse,
    start,
    text,
    thinking,
    tool,
)
from tests.dialects.chunks import Heard, chunks, hear


def follow(data: bytes, cuts: Sequence[int] = (), *, keep_usage: bool = True) -> tuple[MessageStream, bytes]:
    """The stream's end and all that it passed on, fed in pieces."""
    stream = MessageStream("chat", 1_760_000_000, keep_usage=keep_usage)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    out = b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges))
    return stream, out + stream.close()


def heard_of(data: bytes) -> Heard:
    stream, out = follow(data)
    assert stream.whole
    assert stream.done
    assert stream.error is None
    return hear(out)


def failed_with(data: bytes) -> tuple[errors.GatewayError, bytes]:
    stream, out = follow(data)
    assert not stream.whole
    assert stream.error is not None
    return stream.error, out


@pytest.mark.parametrize("name", STREAMS)
@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 4000), max_size=40), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_the_split_of_a_stream_changes_nothing(name: str, cuts: list[int], line_end: bytes) -> None:
    """Not the text, not the events' borders, not the count; for each of the line ends that the format allows."""
    expected, whole = follow(STREAMS[name])
    stream, out = follow(STREAMS[name].replace(b"\n", line_end), cuts)
    assert out == whole
    assert (stream.whole, stream.done, stream.events, stream.reported) == (
        True,
        True,
        expected.events,
        expected.reported,
    )


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_come_byte_by_byte(name: str) -> None:
    """The worst split of all."""
    data = STREAMS[name]
    assert follow(data, range(len(data)))[1] == follow(data)[1]


def test_text_comes_in_chunks_of_one_answer() -> None:
    """One id, the client's own name for the model, the role first, one finish, then the usage."""
    heard = heard_of(TEXT)
    assert heard.content == "Grüß Gott,\n\n🌍"
    assert (heard.ids, heard.models) == ({"msg_01XFDUDYJgAACzvnptvVoYEL"}, {"chat"})
    assert (heard.roles, heard.finish) == (["assistant"], ["stop"])
    assert heard.usage is not None
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens, heard.usage.total_tokens) == (25, 15, 40)
    every = chunks(follow(TEXT)[1])
    assert every[0].choices[0].delta.role == "assistant"
    assert (every[-1].choices, every[-2].choices[0].finish_reason) == ([], "stop")


def test_usage_is_for_those_who_asked() -> None:
    """Without the wish there is no word of it, and it is known all the same."""
    stream, out = follow(TEXT, keep_usage=False)
    assert b"usage" not in out
    assert stream.reported is not None
    assert stream.reported.output == 15


def test_parallel_tool_calls_have_their_own_places() -> None:
    """Ids and names at the start, arguments in parts; a call without any has an empty object."""
    heard = heard_of(TOOLS)
    assert heard.calls == {
        0: {"id": "toolu_01A", "name": "get_weather", "arguments": '{"location": "San Francisco, CA"}'},
        1: {"id": "toolu_01B", "name": "get_time", "arguments": "{}"},
    }
    assert (heard.content, heard.finish) == ("Okay, let's check.", ["tool_calls"])


def test_thinking_comes_with_what_makes_it_come_back() -> None:
    """Readable as it arrives, and whole with its signature at its end; usage has the cache in the prompt."""
    heard = heard_of(THINKING)
    assert heard.reasoning == "Let me solve this step by step"
    assert heard.thinking_blocks == [
        {"type": "thinking", "thinking": heard.reasoning, "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"},
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"},
    ]
    used = heard.usage
    assert used is not None
    assert used.prompt_tokens_details is not None
    assert used.completion_tokens_details is not None
    assert (used.prompt_tokens, used.prompt_tokens_details.cached_tokens) == (2125, 2000)
    assert (used.completion_tokens, used.completion_tokens_details.reasoning_tokens) == (120, 90)
    assert (used.model_extra or {})["cache_creation_input_tokens"] == 100


def test_a_hidden_thought_still_comes_back() -> None:
    """Newer models send the signature alone."""
    heard = heard_of(sse(start(), *thinking(0, "sig"), *text(1, "Yes."), end("end_turn"), STOP))
    assert heard.thinking_blocks == [{"type": "thinking", "thinking": "", "signature": "sig"}]
    assert (heard.reasoning, heard.content) == ("", "Yes.")


def test_blocks_and_events_that_are_not_known_are_skipped() -> None:
    """A search of the provider's own is not a call for the client; what it found is cited."""
    heard = heard_of(SEARCH)
    assert (heard.content, heard.calls) == ("It is sunny.", {})
    cited = {"url": "https://w.example/nyc", "title": "Weather", "start_index": 0, "end_index": 12}
    assert heard.annotations == [{"type": "url_citation", "url_citation": cited}]
    stream, _ = follow(SEARCH)
    assert stream.reported is not None
    assert stream.reported.search_units == 1


def test_a_refusal_is_a_filtered_answer() -> None:
    """With the provider's explanation where OpenAI puts one."""
    heard = heard_of(REFUSAL)
    assert (heard.finish, heard.refusal) == (["content_filter"], "It could do harm.")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("a_reason_of_tomorrow", "stop"),
    ],
)
def test_each_reason_to_stop_has_its_name(reason: str, finish: str) -> None:
    """An unknown one ended the answer in an orderly way."""
    assert heard_of(sse(start(), *text(0, "x"), end(reason), STOP)).finish == [finish]


def test_an_answer_in_a_schema_is_content_again() -> None:
    """The tool that stood for it is not seen."""
    heard = heard_of(sse(start(), *tool(0, "toolu_1", ANSWER_TOOL, '{"a"', ": 1}"), end("tool_use"), STOP))
    assert (heard.content, heard.calls, heard.finish) == ('{"a": 1}', {}, ["stop"])


ERRORS: list[tuple[str, type[errors.GatewayError], str | None]] = [
    ("overloaded_error", errors.Overloaded, "upstream_overloaded"),
    ("api_error", errors.UpstreamFailed, "upstream_error"),
    ("rate_limit_error", errors.UpstreamRefused, "rate_limit_exceeded"),
    ("timeout_error", errors.UpstreamTimeout, "upstream_timeout"),
    ("authentication_error", errors.UpstreamError, "upstream_credentials"),
    ("invalid_request_error", errors.UpstreamRefused, None),
    ("an_error_of_tomorrow", errors.UpstreamFailed, "upstream_error"),
]


@pytest.mark.parametrize(("kind", "wanted", "code"), ERRORS)
def test_an_error_event_ends_a_stream(kind: str, wanted: type[errors.GatewayError], code: str | None) -> None:
    """Nothing is passed on behind it, and the answer is not whole."""
    event: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": "Overloaded"}}
    error, out = failed_with(sse(start(), *text(0, "a"), event, *text(1, "b"), end("end_turn"), STOP))
    assert (type(error), error.code, error.message) == (wanted, code, "Overloaded")
    assert hear(out).content == "a"


def test_an_error_before_any_content_leaves_the_way_open() -> None:
    """Pings and the opening are no content, so another deployment may still be tried."""
    event: dict[str, Any] = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    stream, out = follow(sse(start(), PING, PING, event))
    assert not stream.content
    assert isinstance(stream.error, errors.Overloaded)
    assert hear(out).content == ""
    assert b"ping" not in out


@pytest.mark.parametrize(
    "data",
    [
        sse(start()) + b'data: {"type": "content_blo\n\n',
        sse(start()) + b"data: 5\n\n",
        sse(start()) + b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":5}}\n\n',
        sse(*text(0, "before the message")),
        sse(start()) + b"data: " + b"x" * (4 * 1024 * 1024 + 1),
    ],
)
def test_a_damaged_event_is_the_upstreams_error(data: bytes) -> None:
    """Cut-off JSON, another shape, the wrong order, no end."""
    error, _ = failed_with(data)
    assert isinstance(error, errors.UpstreamError)


def test_an_answer_is_whole_once_it_says_why_it_ended() -> None:
    """Without the last event it still is, without a reason never."""
    stream, out = follow(sse(start(), *text(0, "x"), end("end_turn")))
    assert (stream.whole, stream.done) == (True, True)
    assert hear(out).usage is not None
    for cut in (sse(start(), *text(0, "x")), sse(start(), *text(0, "x"), STOP), sse(start(), end(None), STOP)):
        assert not follow(cut)[0].whole


def test_a_broken_stream_reports_at_least_what_was_delivered() -> None:
    """The opening says one token: until the end is there, what came counts."""
    words = [f"word{number:04} " for number in range(200)]
    stream, _ = follow(sse(start(), *text(0, *words)))
    assert stream.reported is not None
    assert (stream.reported.input, stream.reported.output) == (25, stream.events)
    assert stream.events >= 400  # nine characters each
    assert follow(sse(start(), *text(0, *words), end("end_turn")))[0].reported.output == 15  # type: ignore[union-attr]  # there is one


def test_the_last_count_wins_and_keeps_what_it_leaves_out() -> None:
    """Counts are cumulative; a later report may repeat the input or not."""
    early = start(cache_read_input_tokens=7, cache_creation={"ephemeral_1h_input_tokens": 3})
    late = {"output_tokens": 40, "input_tokens": 30}
    stream, _ = follow(sse(early, *text(0, "x"), end("end_turn", late), STOP))
    used = stream.reported
    assert used is not None
    assert (used.input, used.output, used.cached_read, used.cache_write_1h) == (40, 40, 7, 3)


def test_a_ping_after_the_first_content_keeps_the_line_open() -> None:
    """As a comment, which clients skip."""
    _, out = follow(sse(start(), *text(0, "a"), PING, *text(1, "b"), end("end_turn"), STOP))
    assert b": ping\n\n" in out
    assert hear(out).content == "ab"
