"""Answers told in the other form: nothing is added and nothing lost, in the words of each API."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache import words
from gateway.cache.chat_words import gathered
from gateway.cache.controls import Controls, controls
from gateway.cache.events import payloads
from gateway.usage import of_tokens

encode, decode = msgspec.json.encode, msgspec.json.decode
texts = st.text(max_size=30)
calls = st.lists(st.tuples(texts.filter(bool), st.dictionaries(texts, st.integers(), max_size=2)), max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, calls), min_size=1, max_size=3), texts)
def test_a_chat_is_the_same_after_it_was_told_as_a_stream(choices: list[Any], thought: str) -> None:
    """With every choice, call, thought and log probability."""
    answer = {"id": "c", "created": 1, "model": "m", "object": "chat.completion", "choices": []}
    for index, (text, given_calls) in enumerate(choices):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "reasoning_content": thought}
        if given_calls:
            message["tool_calls"] = [
                {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": encode(args).decode()}}
                for n, (name, args) in enumerate(given_calls)
            ]
        finish = "tool_calls" if given_calls else "stop"
        logprobs = {"content": [{"token": "a", "logprob": -0.1}], "refusal": None}
        answer["choices"].append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})  # type: ignore[attr-defined]
    answer["usage"] = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    kept = words.kept("chat", encode(answer), None, stream=False)
    assert kept is not None
    stream = words.as_stream("chat", kept.content, keep_usage=True)
    again = words.kept("chat", stream, None, stream=True)
    assert again is not None
    assert decode(words.as_whole("chat", again.content, again.report)) == answer


def test_deltas_are_put_together_as_openais_sdk_does_it() -> None:
    """Arguments piece by piece, several calls and choices mixed, a name that some servers repeat."""

    def chunk(delta: Any, index: int = 0, finish: str | None = None) -> Any:
        return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"name": "f", "arguments": '{"x":'}}
    other = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    made = gathered(
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "one"}, 1),
            chunk({"tool_calls": [call]}),
            chunk({"tool_calls": [more]}),
            chunk({"tool_calls": [other]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
            chunk({"content": " two"}, 1, "stop"),
            chunk({}, 0, "tool_calls"),
        ],
        "chat",
    )
    first, second = made["choices"]
    assert [one["function"] for one in first["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"x":1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert second["message"]["content"] == "one two"


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "one", "citations": [{"type": "char_location", "cited_text": "o"}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, 2]}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 1},
}


def test_a_message_is_the_same_after_it_was_told_as_a_stream() -> None:
    """Thoughts with their signatures, citations, calls and usage."""
    kept = words.kept("messages", encode(MESSAGE), None, stream=False)
    assert kept is not None
    again = words.kept("messages", words.as_stream("message", kept.content, keep_usage=False), None, stream=True)
    assert again is not None
    assert decode(words.as_whole("message", again.content, b"")) == MESSAGE


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "m_1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "one", "annotations": []}]},
        {"id": "fc_1", "type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"},
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
}  # fmt: skip


def test_a_response_is_the_same_after_it_was_told_as_a_stream() -> None:
    """In events that are numbered, and that the text stands in as a delta."""
    kept = words.kept("responses", encode(RESPONSE), None, stream=False)
    assert kept is not None
    stream = words.as_stream("response", kept.content, keep_usage=True)
    events = [decode(one) for one in payloads(stream)]
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    assert [one["delta"] for one in events if one["type"] == "response.output_text.delta"] == ["one"]
    again = words.kept("responses", stream, None, stream=True)
    assert again is not None
    assert decode(words.as_whole("response", again.content, b"")) == RESPONSE


CUT_OFF = {"function": {"name": "f", "arguments": "{"}}


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        ("chat", {"choices": []}),
        ("chat", {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}),
        ("chat", {"choices": [{"message": {"content": "a"}, "finish_reason": None}]}),
        ("chat", {"choices": [{"message": {"tool_calls": [CUT_OFF]}, "finish_reason": "tool_calls"}]}),
        ("chat", ["no", "object"]),
        ("completions", {"choices": [{"text": "a", "finish_reason": "length"}]}),
        ("messages", {**MESSAGE, "stop_reason": "max_tokens"}),
        ("messages", {**MESSAGE, "stop_reason": "pause_turn"}),
        ("messages", {**MESSAGE, "content": []}),
        ("responses", {**RESPONSE, "status": "incomplete"}),
    ],
)  # fmt: skip
def test_what_is_not_complete_is_not_kept(endpoint: str, answer: Any) -> None:
    """Whoever asked gets it; nobody else does."""
    assert words.kept(endpoint, encode(answer), of_tokens(1, 1), stream=False) is None


@pytest.mark.parametrize("damage", [b"", b"data: {", b"data: 1\n\n", b'data: {"choices":1}\n\n', b"\xff\n\n"])
def test_a_stream_that_makes_no_sense_is_not_kept(damage: bytes) -> None:
    """Nor does it break anything."""
    for endpoint in ("chat", "completions", "messages", "responses"):
        assert words.kept(endpoint, damage, None, stream=True) is None or not damage


def test_the_headers_of_a_request_say_what_it_wants() -> None:
    """In any order and case, with what nobody knows left aside."""
    assert controls({}) == Controls()
    assert controls({b"cache-control": b"No-Cache, foo=bar, max-age=60"}) == Controls(no_cache=True, max_age_s=60)
    assert controls({b"cache-control": b"max-age=x"}).max_age_s == 0
    assert controls({b"cache-control": b"no-store"}).no_store
