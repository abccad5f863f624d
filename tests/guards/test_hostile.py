"""Streams that are made to get something past a guard, on the real process: secrets cut at every place, in every text of every dialect."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.fixtures.deployments import said
from tests.guards.conftest import Guarded
from tests.guards.test_property import spoken
from tests.upstream.behaviour import Behaviour

KEY = "sk-" + "ant-api03-AbCdEf0123456789AbCdEf0123"
MARK = "[ANTHROPIC_KEY]"
Json = dict[str, Any]


def sse(events: Sequence[Json], *, named: bool = False, ascii_: bool = True) -> str:
    lines = [f"event: {event['type']}\n" if named else "" for event in events]
    return "".join(
        f"{line}data: {json.dumps(event, ensure_ascii=ascii_)}\n\n" for line, event in zip(lines, events, strict=True)
    )


def chat(parts: Sequence[str]) -> str:
    """Two choices: content, reasoning, a refusal and the arguments of two calls at the same time, piece by piece."""

    def chunk(index: int, delta: Json, reason: str | None = None) -> Json:
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    def call(index: int, part: str) -> Json:
        return {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    events = []
    for number, part in enumerate(parts):
        functions = [{"index": n, "id": f"call{n}", "function": {"name": "f", "arguments": ""}} for n in (0, 1)]
        opening: Json = {"tool_calls": functions}
        if not number:
            events.append(chunk(1, opening))
        for index in (0, 1):
            events += [chunk(index, {"content": part}), chunk(index, {"reasoning_content": part})]
            events += [chunk(index, {"refusal": part}), chunk(index, {"reasoning": part})]
        events += [chunk(1, call(0, part)), chunk(1, call(1, part)), chunk(0, {"function_call": {"arguments": part}})]
    events += [chunk(0, {}, "stop"), chunk(1, {}, "tool_calls")]
    return sse(events) + "data: [DONE]\n\n"


def messages(parts: Sequence[str]) -> str:
    """Anthropic's: a text, a thought and the input of a tool, whose pieces come in turn."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    blocks: list[Json] = [
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ]
    kinds = (("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json"))
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    events: list[Json] = [{"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None}}]
    events += [{"type": "content_block_start", "index": n, "content_block": block} for n, block in enumerate(blocks)]
    for part in parts:
        for index, (kind, name) in enumerate(kinds):
            events.append({"type": "content_block_delta", "index": index, "delta": {"type": kind, name: part}})
    events += [{"type": "content_block_stop", "index": n} for n in range(3)]
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}})
    return sse([*events, {"type": "message_stop"}], named=True)


def responses(parts: Sequence[str]) -> str:
    """OpenAI's: what was said in pieces is said whole three times more, in the events that end it."""
    whole, numbers = "".join(parts), iter(range(10_000))
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "status": "completed"}
    content = {"type": "output_text", "text": whole, "annotations": []}
    items: list[Json] = [
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [content]},
        call | {"arguments": json.dumps({"to": whole})},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": whole}]},
    ]
    begun = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": []}
    usage = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}
    events: list[Json] = [{"type": "response.created", "response": begun}]
    empty = [
        items[0] | {"content": [], "status": "in_progress"},
        call | {"arguments": "", "status": "in_progress"},
        items[2] | {"summary": []},
    ]
    events += [{"type": "response.output_item.added", "output_index": n, "item": item} for n, item in enumerate(empty)]
    at = ({"item_id": "msg_1", "content_index": 0}, {"item_id": "fc_1"}, {"item_id": "rs_1", "summary_index": 0})
    names = ("output_text", "function_call_arguments", "reasoning_summary_text")
    said_ = [parts, ['{"to": "', *parts, '"}'], parts]
    for step in range(len(parts) + 2):
        for n, name in enumerate(names):
            if step < len(said_[n]):
                events.append({"type": f"response.{name}.delta", "output_index": n, "delta": said_[n][step], **at[n]})
    for n, (name, field) in enumerate(zip(names, ("text", "arguments", "text"), strict=True)):
        events.append({"type": f"response.{name}.done", "output_index": n, field: "".join(said_[n]), **at[n]})
        events.append({"type": "response.output_item.done", "output_index": n, "item": items[n]})
    ended = begun | {"status": "completed", "output": items, "usage": usage}
    events.append({"type": "response.completed", "response": ended})
    return sse([{**event, "sequence_number": next(numbers)} for event in events], named=True)


DIALECTS: Json = {
    "/v1/chat/completions": (chat, {}, {"n": 2, "messages": [{"role": "user", "content": "hi"}]}, 11),
    "/v1/messages": (
        messages,
        {"provider": "anthropic"},
        {"max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]},
        3,
    ),
    "/v1/responses": (responses, {"responses": True}, {"input": "hi"}, 3),
}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("stage", ["stream", "after"])
def test_a_secret_cut_anywhere_leaves_no_text_of_an_answer(guarded: Guarded, path: str, stage: str) -> None:
    """In two at each of its places, and character by character; the same in all texts of the answer at the same time."""
    made: Callable[[Sequence[str]], str]
    made, deployment, fields, texts = DIALECTS[path]
    step = 1 if stage == "stream" else 6
    cuts = [[f"it is {KEY[:at]}", f"{KEY[at:]} you see"] for at in range(1, len(KEY), step)] + [list(f"x {KEY} y")]
    route = guarded.model(
        *(Behaviour(body=made(parts)) for parts in cuts),
        guards=[guarded.guard("secrets", stage=stage, action="redact")],
        deployment=deployment,
    )
    for parts in cuts:
        answer = guarded.server.post(path, {"model": route.name, "stream": True, **fields})
        assert answer.status_code == 200, answer.text
        assert KEY not in answer.text
        heard = spoken(answer.content)
        assert KEY not in heard, parts
        assert "AbCdEf0123456789" not in heard, parts
        assert heard.count(MARK) >= texts, (parts, heard)


@pytest.mark.parametrize("ascii_", [True, False], ids=["escaped", "utf8"])
@pytest.mark.parametrize("cut", ["events", "bytes"])
def test_words_of_other_scripts_are_found_in_pieces(guarded: Guarded, cut: str, ascii_: bool) -> None:
    """Cut between the letters, or within the bytes of one; escaped or not."""
    text = "это пароль 漢字の秘密😀 конец"
    parts = list(text) if cut == "events" else [text]
    chunks = [
        {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}],
        }
        for part in parts
    ]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"  # type: ignore[index]
    body = sse(chunks, ascii_=ascii_) + "data: [DONE]\n\n"
    behaviour = Behaviour(body=body, segment_bytes=0 if cut == "events" else 1)
    words = guarded.guard("patterns", words=["пароль", "秘密"], stage="stream", action="redact")
    answer = guarded.routes.ask(guarded.model(behaviour, guards=[words]), stream=True)
    assert answer.status_code == 200, answer.text
    assert said(answer) == "это [WORD] 漢字の[WORD]😀 конец"


@pytest.mark.parametrize("stage", ["stream", "after"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_was_kept_before_there_was_a_guard_is_read(guarded: Guarded, stage: str, stream: bool) -> None:
    """A hit is an answer like any other: what is kept is what the model said, and every hit goes through the guards of its call."""
    name = guarded.guard("secrets", stage=stage, action="redact")
    route = guarded.model(Behaviour(text=f"take {KEY} now"), guards=[name], cache={"exact": {"ttl_s": 600}})
    answers = [guarded.routes.ask(route, text="the same", stream=stream) for _ in range(2)]
    assert [answer.headers["x-penstock-cache"] for answer in answers] == ["miss", "hit"]
    assert route.asked == [1]
    for answer in answers:
        assert KEY not in answer.text
        assert said(answer) == f"take {MARK} now"


def test_every_choice_of_a_whole_answer_is_read(guarded: Guarded) -> None:
    """With what the model thought, and the arguments of its calls."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"key": KEY})}}
    message = {"role": "assistant", "content": f"a {KEY}", "reasoning_content": f"b {KEY}", "tool_calls": [call]}
    choices = [{"index": n, "message": message, "finish_reason": "stop"} for n in range(3)]
    body = json.dumps({"id": "x", "object": "chat.completion", "choices": choices})
    route = guarded.model(
        Behaviour(body=body), guards=[guarded.guard("secrets", stage="stream", action="redact")], deployment={}
    )
    answer = guarded.routes.ask(route, n=3)
    assert answer.status_code == 200, answer.text
    assert KEY not in answer.text
    assert answer.text.count(MARK) == 9
    arguments = answer.json()["choices"][2]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"key": MARK}
