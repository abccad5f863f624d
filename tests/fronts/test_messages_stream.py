"""A chat's stream as the Messages API's events, put together by Anthropic's own SDK, under any split of the bytes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.dialects.anthropic_stream import MessageStream
from tests.dialects.anthropic_payloads import STREAMS, sse
from tests.fronts.messages import FRONT, call, chunks, follow, hear, translated

USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}}
TEXT = chunks({"role": "assistant", "content": ""}, {"content": "Grüß"}, {"content": " 🌍"}, usage=USAGE)
CALLS = chunks(
    {"content": "Let's see."},
    call(0, "", "call_a", "weather"),
    call(0, '{"city":'),
    call(0, '"Oslo"}'),
    call(1, '{"city":"Rome"}', "call_b", "weather"),
    finish="tool_calls",
    usage=USAGE,
)
THOUGHTS = chunks({"reasoning_content": "hm "}, {"reasoning_content": "hm"}, {"content": "12"}, usage=USAGE)
EVERY = {"text": TEXT, "calls": CALLS, "thoughts": THOUGHTS}


def blocks(data: bytes) -> list[Any]:
    stream, out = translated(data)
    assert stream.whole
    return [block.to_dict() for block in hear(out).content]


@pytest.mark.parametrize("name", EVERY)
@given(cuts=st.lists(st.integers(0, 2000), max_size=30), line_end=st.sampled_from([b"\n", b"\r\n"]))
@settings(deadline=None)
def test_the_split_of_a_stream_changes_nothing(name: str, cuts: list[int], line_end: bytes) -> None:
    """Down to the events; pieces that arrive together may be told together."""
    data = EVERY[name].replace(b"\n", line_end)
    stream, out = translated(data, cuts)
    assert stream.whole
    assert stream.done
    assert hear(out) == hear(translated(EVERY[name])[1])


def test_text_and_usage_are_told() -> None:
    """What was read from the cache is no part of the input here; the model goes by the client's name."""
    message = hear(translated(TEXT)[1])
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Grüß 🌍"}]
    assert (message.id, message.model, message.stop_reason) == ("msg_chatcmpl-1", "m", "end_turn")
    used = message.usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.output_tokens) == (40, 60, 7)


def test_calls_are_blocks_of_their_own() -> None:
    """Behind what was said."""
    assert blocks(CALLS) == [
        {"type": "text", "text": "Let's see."},
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "call_b", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert hear(translated(CALLS)[1]).stop_reason == "tool_use"


@pytest.mark.parametrize(
    "pieces",
    [
        [call(0, '{"a":', "x", "f"), call(1, '{"b":', "y", "g"), call(0, "1}"), call(1, "2}")],  # by turns
        [call(None, '{"a":1}', "x", "f"), call(None, '{"b":2}', "y", "g")],  # not counted
        [call(0, '{"a":1}', "x", "f"), call(0, '{"b":2}', "y", "g")],  # all of them the first
    ],
)
def test_calls_come_one_after_another_however_they_were_sent(pieces: list[Any]) -> None:
    """Clients of Claude's know no other order."""
    assert [(block["id"], block["input"]) for block in blocks(chunks(*pieces, finish="tool_calls"))] == [
        ("x", {"a": 1}),
        ("y", {"b": 2}),
    ]


def test_white_space_behind_a_call_is_none_of_its_own() -> None:
    """Some servers end one so when the next has begun."""
    pieces = [call(0, "{}", "x", "f"), call(1, "{}", "y", "g"), call(0, "\n")]
    assert [block["id"] for block in blocks(chunks(*pieces))] == ["x", "y"]


def test_the_first_call_is_told_as_it_comes() -> None:
    """And the next one as soon as it is over."""
    followed = translated(b"")[0]
    first = followed.feed(chunks(call(0, '{"a":', "x", "f"), finish=None, done=False))
    assert b'"partial_json":"{\\"a\\":"' in first
    second = followed.feed(chunks(call(1, '{"b":', "y", "g"), finish=None, done=False))
    assert second == b""
    third = followed.feed(chunks(call(0, "1}"), finish=None, done=False))
    assert b"content_block_stop" in third
    assert b'"partial_json":"{\\"b\\":"' in third


def test_thoughts_without_a_signature_are_marked() -> None:
    """So that they do not go to Anthropic as if it had signed them."""
    assert blocks(THOUGHTS) == [
        {"type": "thinking", "thinking": "hm hm", "signature": UNSIGNED},
        {"type": "text", "text": "12"},
    ]


def test_signed_thoughts_keep_their_signature() -> None:
    """As LiteLLM sends them: text and block side by side, the signature at the end; and where the blocks come alone."""
    beside = [
        {"reasoning_content": part, "thinking_blocks": [{"type": "thinking", "thinking": part, "signature": sign}]}
        for part, sign in (("a", ""), ("b", ""), ("", "sig"))
    ]
    alone = [{"thinking_blocks": [{"type": "thinking", "thinking": "ab", "signature": "sig"}]}]
    for deltas in (beside, alone):
        said = blocks(chunks(*deltas, {"content": "x"}))
        assert said[0] == {"type": "thinking", "thinking": "ab", "signature": "sig"}


@pytest.mark.parametrize(
    ("delta", "thought", "text"),
    [
        ({"reasoning": "hm"}, "hm", None),
        ({"content": [{"type": "text", "text": "x"}]}, None, "x"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, "hm", None),
    ],
)
def test_other_servers_words_for_thoughts_and_text(delta: Any, thought: str | None, text: str | None) -> None:
    """OpenRouter's and vLLM's, and Mistral's parts."""
    said = blocks(chunks(delta))[0]
    assert (said.get("thinking"), said.get("text")) == (thought, text)


@pytest.mark.parametrize(
    ("finish", "told", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("content_filter", None, ("refusal", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("stop", 128009, ("end_turn", None)),
    ],
)
def test_why_an_answer_ended(finish: str, told: object, expected: tuple[str, str | None]) -> None:
    """vLLM says which sequence it was, others do not."""
    message = hear(translated(chunks({"content": "x"}, finish=finish, stop_reason=told))[1])
    assert (message.stop_reason, message.stop_sequence) == expected


def test_a_call_that_ends_with_stop_is_a_call_all_the_same() -> None:
    """Some servers say so."""
    assert hear(translated(chunks(call(0, "", "x", "f")))[1]).stop_reason == "tool_use"


def test_a_refusal_is_text_with_its_reason() -> None:
    """OpenAI ends it with `stop`."""
    message = hear(translated(chunks({"refusal": "No."}))[1])
    assert (message.stop_reason, [block.to_dict() for block in message.content]) == (
        "refusal",
        [{"type": "text", "text": "No."}],
    )


def test_a_stream_without_usage_says_what_came() -> None:
    """An estimate of what was said; nothing is known of the input."""
    assert hear(translated(chunks({"content": "x"}, {"content": "y"}))[1]).usage.output_tokens == 3


@pytest.mark.parametrize(
    "data",
    [
        chunks({"content": "x"}, finish=None, done=False),
        chunks({"content": "x"}, finish=None, done=False) + b'data: {"choices": [{"delta": 7}]}\n\n',
        chunks({"content": "x"}, finish=None, done=False) + b'data: {"error": {"message": "no"}}\n\n',
        chunks({"content": "x"}, {"images": [{"image_url": {"url": "data:"}}]}),
        chunks(call(0, "{}", "a", "f"), call(1, "{}", "b", "f"), call(0, "more")),
        chunks(call(0, "{", "a", "f"), *[{"content": "x" * 1_000_000}] * 5),
    ],
)
def test_a_broken_stream_has_no_end(data: bytes) -> None:
    """Neither a reason nor `message_stop`: it cannot be taken for an answer."""
    stream, out = translated(data)
    assert not stream.whole
    assert b"message_stop" not in out
    assert b"message_delta" not in out


def test_a_comment_is_a_ping() -> None:
    """Once there is something to wait for."""
    stream = translated(b"")[0]
    assert stream.feed(b": wait\n\n") == b""
    stream.feed(chunks({"content": "x"}, finish=None, done=False))
    assert stream.feed(b": wait\n\n") == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "refusal"])
def test_claudes_own_stream_survives_the_way_through_chat(name: str) -> None:
    """What Claude said comes out as it went in: text, calls, signed and sealed thoughts, usage with its cache."""
    stream = FRONT.stream(MessageStream("m", 1, keep_usage=True), "m", b"")
    out = hear(follow(stream, STREAMS[name]))
    said = hear(sse(*[json.loads(line[6:]) for line in STREAMS[name].split(b"\n") if line.startswith(b"data: ")]))
    assert stream.whole
    texts = "".join(block.text for block in out.content if block.type == "text")
    assert texts.startswith("".join(block.text for block in said.content if block.type == "text"))
    for kind in ("tool_use", "thinking", "redacted_thinking"):
        assert [b.to_dict() for b in out.content if b.type == kind] == [
            b.to_dict() for b in said.content if b.type == kind
        ]
    assert out.stop_reason == said.stop_reason
    assert (out.usage.input_tokens, out.usage.output_tokens) == (said.usage.input_tokens, said.usage.output_tokens)
    assert (out.usage.cache_read_input_tokens or 0) == (said.usage.cache_read_input_tokens or 0)


@settings(deadline=None)
@given(
    noise=st.binary(max_size=60), at=st.integers(0, 900), name=st.sampled_from(sorted(EVERY)), cut=st.integers(0, 900)
)
def test_no_bytes_break_the_follower(noise: bytes, at: int, name: str, cut: int) -> None:
    """Damage is an error of the upstream's or none at all; a stream with an error is never whole."""
    data = EVERY[name][:at] + noise + EVERY[name][at:]
    stream, _ = translated(data, (cut,))
    assert stream.error is None or not stream.whole
    assert stream.error is None or isinstance(stream.error, errors.UpstreamError)
