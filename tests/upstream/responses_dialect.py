"""Answers as the Responses API gives them, for deployments that speak it themselves."""

from collections.abc import Iterator

from tests.upstream import answer
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject, pieces
from tests.upstream.behaviour import Behaviour

CREATED = 1_700_000_000
SEALED = "sealed-by-the-upstream"


def responses(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/responses`."""
    texts = pieces(
        f"{asked.fields.get('user') or '-'}|{_last(asked)}" if behaviour.text is None else behaviour.text,
        behaviour.chunks,
    )
    prompt = 7 if behaviour.prompt_tokens is None else behaviour.prompt_tokens
    output = len(texts) if behaviour.completion_tokens is None else behaviour.completion_tokens
    shape = _shape(asked, prompt, output)
    items = _items(behaviour, "".join(texts))
    if not asked.stream:
        return answer.whole(200, {**shape, "output": items}, prompt_tokens=prompt, tokens=output)
    failure = answer.event(
        {"type": "error", "code": behaviour.error_code, "message": behaviour.error_message, "param": None}, "error"
    )
    events = _events(shape, items, texts)
    return Answer(200, answer.EVENT_STREAM, events, prompt, failure, streams=True)


def _last(asked: Asked) -> str:
    """What the last message says."""
    given = asked.fields.get("input", [])
    messages = [item for item in given if isinstance(item, dict) and item.get("role") == "user"]
    if not messages:
        return ""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


def _shape(asked: Asked, prompt: int, output: int) -> JsonObject:
    return {
        "id": "resp_of_the_upstream",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "store": asked.fields.get("store", True),
        "previous_response_id": None,
        "metadata": {},
        "tool_choice": "auto",
        "tools": asked.fields.get("tools", []),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": prompt + output,
        },
    }


def _items(behaviour: Behaviour, text: str) -> list[JsonObject]:
    items: list[JsonObject] = []
    if behaviour.thinking is not None:
        summary = [{"type": "summary_text", "text": behaviour.thinking}]
        items.append({"id": "rs_up", "type": "reasoning", "summary": summary, "encrypted_content": SEALED})
    for number, call in enumerate(behaviour.tool_calls):
        named = {"call_id": f"call_up_{number}", "name": call.name, "arguments": call.arguments}
        items.append({"id": f"fc_up_{number}", "type": "function_call", "status": "completed", **named})
    if behaviour.tool_calls and not text:
        return items
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    items.append({"id": "msg_up", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    return items


def _events(shape: JsonObject, items: list[JsonObject], texts: list[str]) -> Iterator[Piece]:
    number = 0

    def told(kind: str, **fields: object) -> bytes:
        nonlocal number
        number += 1
        return answer.event({"type": kind, "sequence_number": number - 1, **fields}, kind)

    running = {**shape, "status": "in_progress", "usage": None}
    yield Piece(told("response.created", response=running), content=False)
    yield Piece(told("response.in_progress", response=running), content=False)
    for index, item in enumerate(items):
        yield Piece(told("response.output_item.added", output_index=index, item=item), content=False)
        if item["type"] == "message":
            for text in texts:
                at = {"item_id": item["id"], "output_index": index, "content_index": 0, "logprobs": []}
                yield Piece(told("response.output_text.delta", delta=text, **at), 1)
        if item["type"] == "function_call":
            at = {"item_id": item["id"], "output_index": index}
            yield Piece(told("response.function_call_arguments.delta", delta=item["arguments"], **at), 1)
            yield Piece(told("response.function_call_arguments.done", arguments=item["arguments"], **at), content=False)
        yield Piece(told("response.output_item.done", output_index=index, item=item), content=False)
    yield Piece(told("response.completed", response={**shape, "output": items}), content=False)
