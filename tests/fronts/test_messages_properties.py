"""There and back: whatever goes from the Messages API to chat says the same when Claude's dialect takes it back, and so do the answers."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.anthropic_payloads import DIALECT
from tests.fronts.messages import BEDROCK, FRONT, asked

WORDS = st.sampled_from(["a", "Grüße 🌍", 'quotes " and \\ and \n', "ends in white space \n x", "{}"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=5,
)
INPUTS = st.dictionaries(WORDS, VALUES, max_size=3)
TEXTS = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
PICTURES = st.sampled_from(
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "cG5n"}},
        {"type": "image", "source": {"type": "url", "url": "https://x.example/y.png"}},
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "cGRm"},
        },
    ]
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("fgh"), "input_schema": st.just({"type": "object", "properties": {"a": {}}})},
        optional={"description": WORDS},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: str(tool["name"]),
)
CHOICES = st.sampled_from(
    [{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "any", "disable_parallel_tool_use": True}]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Any]:
    """Turns that alternate: a question, then any number of calls with their results, then perhaps something else."""
    turns: list[Any] = [{"role": "user", "content": draw(st.lists(st.one_of(TEXTS, PICTURES), min_size=1, max_size=3))}]
    number = 0
    for _ in range(draw(st.integers(0, 3))):
        said = draw(st.lists(TEXTS, max_size=1))
        inputs = draw(st.lists(INPUTS, min_size=0 if said else 1, max_size=2))
        calls = [
            {"type": "tool_use", "id": f"toolu_{number + at}", "name": "f", "input": given}
            for at, given in enumerate(inputs)
        ]
        number += len(calls)
        turns.append({"role": "assistant", "content": [*said, *calls]})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": draw(st.lists(TEXTS, min_size=1, max_size=1))}
            for call in calls
        ]
        turns.append(
            {"role": "user", "content": [*results, *draw(st.lists(TEXTS, min_size=0 if results else 1, max_size=1))]}
        )
    return turns


@settings(deadline=None)
@given(turns=conversations(), tools=st.one_of(st.none(), TOOLS), choice=CHOICES, schema=st.booleans())
def test_a_request_says_the_same_when_it_comes_back(turns: list[Any], tools: Any, choice: Any, schema: bool) -> None:
    """Texts, pictures, documents, calls with their inputs, results, tools, and the schema of the answer."""
    fields: dict[str, Any] = {"tools": tools, "tool_choice": choice} if tools else {}
    wanted = {
        "type": "json_schema",
        "schema": {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
    }
    if schema:
        fields["output_config"] = {"format": wanted}
    chat = FRONT.chat(asked(turns, system="s", stop_sequences=["END"], **fields), BEDROCK)
    back = json.loads(DIALECT.request("chat", chat, "claude-sonnet-4-5").body)
    assert [_plain(turn) for turn in back["messages"]] == [_plain(turn) for turn in turns]
    assert back["system"] == [{"type": "text", "text": "s"}]
    assert (back["max_tokens"], back["stop_sequences"]) == (9, ["END"])
    if tools:
        assert back["tools"] == [
            {"name": t["name"], "input_schema": t["input_schema"]} | {k: t[k] for k in ("description",) if k in t}
            for t in tools
        ]
        assert back.get("tool_choice", {"type": "auto"}) == choice
    if schema:
        assert back["output_config"]["format"] == wanted


def _plain(turn: Any) -> tuple[str, list[Any]]:
    """A turn with its neighbouring texts as one: where one ends is not chat's to keep."""
    made: list[Any] = []
    for block in turn["content"]:
        kept = block | ({"content": _plain({"role": "", "content": block["content"]})[1]} if "content" in block else {})
        if made and kept["type"] == made[-1]["type"] == "text":
            made[-1] = {"type": "text", "text": f"{made[-1]['text']}\n\n{kept['text']}"}
        else:
            made.append(kept)
    return turn["role"], made


CALLS = st.lists(
    st.builds(
        lambda name, given: {"type": "function", "function": {"name": name, "arguments": json.dumps(given)}},
        st.sampled_from("fgh"),
        INPUTS,
    ),
    max_size=3,
)


@settings(deadline=None)
@given(
    text=st.one_of(st.none(), WORDS),
    calls=CALLS,
    finish=st.sampled_from(["stop", "length", "content_filter"]),
    counts=st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9)),
)
def test_an_answer_says_the_same_when_it_comes_back(
    text: str | None, calls: list[Any], finish: str, counts: tuple[int, ...]
) -> None:
    """As a chat's completion, by way of a message: text, calls, reason and every count that has a price."""
    calls = [{**call, "id": f"call_{index}"} for index, call in enumerate(calls)]
    plain, read, written, said, thought = counts
    usage = {
        "prompt_tokens": plain + read + written,
        "completion_tokens": said + thought,
        "prompt_tokens_details": {"cached_tokens": read, "cache_creation_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    reason = "tool_calls" if calls and finish == "stop" else finish
    message = {"role": "assistant", "content": text, "tool_calls": calls or None}
    chat = {"id": "msg_1", "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}
    made = FRONT.answer(json.dumps(chat).encode(), "m", b"")
    raw, used = DIALECT.answer("chat", made, "m")
    back = json.loads(raw)
    choice = back["choices"][0]
    assert (choice["message"]["content"] or None, choice["finish_reason"]) == (text, reason)
    told = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"].get("tool_calls", [])
    ]
    assert told == [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
    assert used is not None
    assert (used.input, used.cached_read, used.cache_write) == (plain + read + written, read, written)
    assert (used.output, used.reasoning) == (said + thought, thought)
