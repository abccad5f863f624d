"""Answers as the Anthropic API gives them: messages, token counts and errors."""

from collections.abc import Iterator

import msgspec

from tests.upstream import answer
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject, pieces
from tests.upstream.behaviour import Behaviour

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(behaviour: Behaviour) -> JsonObject:
    kind = behaviour.error_type or ERROR_TYPES.get(behaviour.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": behaviour.error_message}}


def messages(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/v1/messages`."""
    texts = pieces(asked.echo if behaviour.text is None else behaviour.text, behaviour.chunks)
    usage = _usage(asked, behaviour, len(texts))
    if asked.stream:
        failure = answer.event(error(behaviour), "error")
        events = _events(asked, behaviour, texts, usage)
        return Answer(200, answer.EVENT_STREAM, events, usage["input_tokens"], failure, streams=True)
    blocks: list[JsonObject] = [
        {"type": "tool_use", "id": f"toolu_{number}", "name": call.name, "input": msgspec.json.decode(call.arguments)}
        for number, call in enumerate(behaviour.tool_calls)
    ]
    content = blocks or [{"type": "text", "text": "".join(texts) + "x" * behaviour.pad_bytes}]
    value = {**_message(asked, usage), "content": content, "stop_reason": _stop(behaviour), "stop_sequence": None}
    return answer.whole(200, value, prompt_tokens=usage["input_tokens"], tokens=usage["output_tokens"])


def count_tokens(asked: Asked) -> Answer:
    return answer.whole(200, {"input_tokens": asked.prompt_tokens})


def _message(asked: Asked, usage: JsonObject) -> JsonObject:
    return {"id": "msg_scripted", "type": "message", "role": "assistant", "model": asked.model, "usage": usage}


def _stop(behaviour: Behaviour) -> str:
    return behaviour.finish_reason or ("tool_use" if behaviour.tool_calls else "end_turn")


def _usage(asked: Asked, behaviour: Behaviour, delivered: int) -> JsonObject:
    usage = {
        "input_tokens": asked.prompt_tokens if behaviour.prompt_tokens is None else behaviour.prompt_tokens,
        "output_tokens": delivered if behaviour.completion_tokens is None else behaviour.completion_tokens,
    }
    if behaviour.cached_tokens is not None:
        usage["cache_read_input_tokens"] = behaviour.cached_tokens
        usage["cache_creation_input_tokens"] = 0
    return usage


def _events(asked: Asked, behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    def named(value: JsonObject) -> bytes:
        return answer.event(value, value["type"])

    opening = {**_message(asked, {**usage, "output_tokens": 1}), "content": [], "stop_reason": None}
    yield Piece(named({"type": "message_start", "message": opening}), content=False)
    for _ in range(behaviour.heartbeats):
        yield Piece(named({"type": "ping"}))
    for index, call in enumerate(behaviour.tool_calls):
        block = {"type": "tool_use", "id": f"toolu_{index}", "name": call.name, "input": {}}
        yield Piece(named({"type": "content_block_start", "index": index, "content_block": block}), 1)
        for part in (call.arguments[:5], call.arguments[5:]):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield Piece(named({"type": "content_block_delta", "index": index, "delta": delta}), 1)
        yield Piece(named({"type": "content_block_stop", "index": index}), content=False)
    if not behaviour.tool_calls:
        block = {"type": "text", "text": ""}
        yield Piece(named({"type": "content_block_start", "index": 0, "content_block": block}), content=False)
        padding = "x" * behaviour.chunk_bytes
        for text in texts:
            delta = {"type": "text_delta", "text": text + padding}
            yield Piece(named({"type": "content_block_delta", "index": 0, "delta": delta}), 1)
        yield Piece(named({"type": "content_block_stop", "index": 0}), content=False)
    end = {"stop_reason": _stop(behaviour), "stop_sequence": None}
    yield Piece(named({"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}}))
    if behaviour.done:
        yield Piece(named({"type": "message_stop"}), content=False)
