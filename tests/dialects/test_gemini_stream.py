"""Gemini's streams as OpenAI's chunks, under any split of their bytes."""

from collections.abc import Sequence
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.dialects.gemini_stream import MAX_EVENT_BYTES, ContentStream
from tests.dialects.chunks import Heard, chunks, hear
from tests.dialects.gemini_payloads import (
    FILTERED,
    PICTURE,
    PNG,
    SIGNATURE,
    STREAMS,
    TEXT,
    THINKING,
    TOOLS,
    USAGE,
    blocked,
    call,
    event,
    failure,
    said,
    sse,
    thought,
)


def follow(data: bytes, cuts: Sequence[int] = (), *, keep_usage: bool = True) -> tuple[ContentStream, bytes]:
    """The stream's end and all that it passed on, fed in pieces."""
    numbers = count(1)
    stream = ContentStream("chat", 1_760_000_000, lambda: f"made{next(numbers)}", keep_usage=keep_usage)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    out = b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges))
    return stream, out + stream.close()


def heard_of(data: bytes) -> Heard:
    stream, out = follow(data)
    assert (stream.whole, stream.done, stream.error) == (True, True, None)
    return hear(out)


def failed_with(data: bytes) -> tuple[errors.GatewayError, bytes]:
    stream, out = follow(data)
    assert not stream.whole
    assert stream.error is not None
    return stream.error, out


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=st.lists(st.integers(0, 4000), max_size=40), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_the_split_of_a_stream_changes_nothing(name: str, cuts: list[int], line_end: bytes) -> None:
    """Not the text, not the events' borders, not the count; for each of the line ends that the format allows."""
    expected, whole = follow(STREAMS[name])
    stream, out = follow(STREAMS[name].replace(b"\r\n", line_end), cuts)
    assert out == whole
    assert (stream.whole, stream.events, stream.reported) == (True, expected.events, expected.reported)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_come_byte_by_byte(name: str) -> None:
    """The worst split of all."""
    data = STREAMS[name]
    assert follow(data, range(len(data)))[1] == follow(data)[1]


def test_text_comes_in_chunks_of_one_answer() -> None:
    """One id, the client's own name for the model, the role first, one finish, then the usage."""
    heard = heard_of(TEXT)
    assert heard.content == "Grüß Gott,\n\n🌍"
    assert (heard.ids, heard.models) == ({"n1RFaaz0DaGvnsEPqPCq2Qo"}, {"chat"})
    assert (heard.roles, heard.finish) == (["assistant"], ["stop"])
    assert heard.usage is not None
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens, heard.usage.total_tokens) == (12, 7, 19)
    every = chunks(follow(TEXT)[1])
    assert every[0].choices[0].delta.role == "assistant"
    assert (every[-1].choices, every[-2].choices[0].finish_reason) == ([], "stop")


def test_usage_is_for_those_who_asked() -> None:
    """Without the wish there is no word of it, and it is known all the same."""
    stream, out = follow(TEXT, keep_usage=False)
    assert b"usage" not in out
    assert stream.reported is not None
    assert stream.reported.output == 7


def test_a_call_comes_whole_with_the_thoughts_behind_it() -> None:
    """Each has a place of its own; a call without arguments has an empty object."""
    heard = heard_of(TOOLS)
    assert heard.calls == {
        0: {"id": "fc1", "name": "get_weather", "arguments": '{"location": "San Francisco, CA"}'},
        1: {"id": "fc2", "name": "get_time", "arguments": "{}"},
    }
    assert (heard.content, heard.finish) == ("Let me look. ", ["tool_calls"])
    calls = [
        one for chunk in chunks(follow(TOOLS)[1]) for choice in chunk.choices for one in choice.delta.tool_calls or []
    ]
    assert [(one.model_extra or {}).get("extra_content") for one in calls] == [
        {"google": {"thought_signature": SIGNATURE}},
        None,
    ]


def test_a_call_without_an_id_gets_one() -> None:
    """Two calls of one function cannot be told apart otherwise."""
    heard = heard_of(sse(event(call("f", {"a": 1}), call("f", {"a": 2}), reason="STOP")))
    assert [one["id"] for one in heard.calls.values()] == ["call_made1", "call_made2"]


def test_thoughts_stand_beside_the_content() -> None:
    """They are billed as output; what seals them comes with the message, and the cache is part of the prompt."""
    heard = heard_of(THINKING)
    assert (heard.reasoning, heard.content) == ("**Let me solve** this step by step", "27 * 453 = 12,231")
    used = heard.usage
    assert used is not None
    assert used.prompt_tokens_details is not None
    assert used.completion_tokens_details is not None
    assert (used.prompt_tokens, used.prompt_tokens_details.cached_tokens) == (2012, 2000)
    assert (used.completion_tokens, used.completion_tokens_details.reasoning_tokens) == (97, 88)
    extras = [choice.delta.model_extra or {} for chunk in chunks(follow(THINKING)[1]) for choice in chunk.choices]
    signed = [extra["extra_content"] for extra in extras if "extra_content" in extra]
    assert signed == [{"google": {"thought_signature": SIGNATURE}}]


def test_a_picture_is_a_data_uri() -> None:
    """Where OpenRouter puts one; its tokens have a price of their own."""
    extras = [choice.delta.model_extra or {} for chunk in chunks(follow(PICTURE)[1]) for choice in chunk.choices]
    (images,) = [extra["images"] for extra in extras if "images" in extra]
    url = "data:image/png;base64,iVBORw0KGgo="
    assert images == [{"type": "image_url", "index": 0, "image_url": {"url": url}}]
    stream, _ = follow(PICTURE)
    assert stream.reported is not None
    assert stream.reported.image_output == 5


def test_several_answers_come_side_by_side() -> None:
    """Each has its role and its finish; the stream is whole once all of them are."""
    data = sse(event(said("a"), index=0), event(said("b"), index=1), event(said("c"), reason="STOP", index=1))
    assert not follow(data)[0].whole
    stream, out = follow(data + sse(event(said("d"), reason="MAX_TOKENS", index=0)))
    assert stream.whole
    texts = {0: "", 1: ""}
    ends: dict[int, str] = {}
    for chunk in chunks(out):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert (texts, ends) == ({0: "ad", 1: "bc"}, {0: "length", 1: "stop"})


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
    ],
)
def test_each_reason_to_stop_has_its_name(reason: str, finish: str) -> None:
    """Also where the answer was cut off."""
    assert heard_of(sse(event(said("x"), reason=reason))).finish == [finish]


def test_an_answer_that_is_filtered_is_whole() -> None:
    """Its last event has no content at all."""
    heard = heard_of(FILTERED)
    assert (heard.content, heard.finish) == ("How", ["content_filter"])


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "A_REASON_OF_TOMORROW"])
def test_an_answer_that_was_given_up_is_no_answer(reason: str) -> None:
    """Nobody may take it for a whole one; what it took is billed."""
    data = sse(event(said("I")), event(reason=reason, finishMessage="Malformed function call: f(", usage=USAGE))
    error, out = failed_with(data)
    assert type(error) is errors.UpstreamError
    assert (reason in error.message, "f(" in error.message) == (True, True)
    heard = hear(out)
    assert (heard.content, heard.finish) == ("I", [])
    stream, _ = follow(data)
    assert stream.reported is not None
    assert stream.reported.output == 7


def test_a_blocked_prompt_is_the_clients_error() -> None:
    """Before any content, so that another model may still be asked."""
    stream, out = follow(sse(blocked()))
    assert (stream.content, out) == (False, b"")
    assert isinstance(stream.error, errors.UpstreamRefused)
    assert (stream.error.status, stream.error.code) == (400, "content_policy_violation")


ERRORS: list[tuple[int, str, type[errors.GatewayError], str | None]] = [
    (503, "UNAVAILABLE", errors.Overloaded, "upstream_overloaded"),
    (500, "INTERNAL", errors.UpstreamFailed, "upstream_error"),
    (429, "RESOURCE_EXHAUSTED", errors.UpstreamRefused, "rate_limit_exceeded"),
    (504, "DEADLINE_EXCEEDED", errors.UpstreamTimeout, "upstream_timeout"),
    (403, "PERMISSION_DENIED", errors.UpstreamError, "upstream_credentials"),
    (400, "INVALID_ARGUMENT", errors.UpstreamRefused, None),
]


@pytest.mark.parametrize(("number", "status", "wanted", "code"), ERRORS)
def test_an_error_event_ends_a_stream(
    number: int, status: str, wanted: type[errors.GatewayError], code: str | None
) -> None:
    """Nothing is passed on behind it, and the answer is not whole."""
    wrong = b"data: " + failure(number, status, "It broke").replace(b"\n", b"") + b"\r\n\r\n"
    error, out = failed_with(sse(event(said("a"))) + wrong + sse(event(said("b"), reason="STOP")))
    assert (type(error), error.code, error.message) == (wanted, code, "It broke")
    assert hear(out).content == "a"


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"candidates": [\n\n',
        b"data: 5\n\n",
        b'data: {"candidates": [{"content": {"parts": [{"text": 5}]}}]}\n\n',
        b"data: " + b"x" * (MAX_EVENT_BYTES + 1),
    ],
)
def test_a_damaged_event_is_the_upstreams_error(data: bytes) -> None:
    """Cut-off JSON, another shape, no end."""
    error, _ = failed_with(sse(event(said("x"))) + data)
    assert isinstance(error, errors.UpstreamError)


def test_an_answer_is_whole_once_it_says_why_it_ended() -> None:
    """There is no other mark for the end."""
    for cut in (b"", sse(event(said("x"))), sse(event(thought("x"))), sse({"usageMetadata": USAGE})):
        stream, _ = follow(cut)
        assert (stream.whole, stream.done) == (False, False)


def test_parts_that_are_not_known_are_skipped() -> None:
    """Code that the provider ran itself is not a call for the client."""
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    heard = heard_of(sse(event(code, said("1")), event({"a_part_of_tomorrow": {}}, reason="STOP")))
    assert (heard.content, heard.calls) == ("1", {})


def test_a_large_picture_fits_in_an_event() -> None:
    """Pictures come whole, in base64."""
    data = {"inlineData": {"mimeType": "image/png", "data": "A" * (6 * 1024 * 1024)}}
    stream, out = follow(sse(event(data, reason="STOP")), range(65_536, 6 * 1024 * 1024, 65_536))
    assert stream.whole
    assert len(out) > 6 * 1024 * 1024
    assert b'"images"' in follow(sse(event(PNG, reason="STOP")))[1]


def test_a_broken_stream_reports_at_least_what_was_delivered() -> None:
    """Some events do not count the answer: until the end is there, what came counts."""
    words = [event(said(f"word{number:04} ")) for number in range(200)]
    stream, _ = follow(sse(*words))
    assert stream.reported is not None
    assert (stream.reported.input, stream.reported.output) == (12, stream.events)
    assert stream.events >= 400  # nine characters each
    ended, _ = follow(sse(*words, event(reason="STOP", usage=USAGE)))
    assert ended.reported is not None
    assert ended.reported.output == 7
