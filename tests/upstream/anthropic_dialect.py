"""Answers as the Anthropic API gives them: messages, token counts and errors; requests that it would refuse are refused."""

from collections.abc import Iterator
from itertools import pairwise

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
FIELDS = frozenset(
    {
        "cache_control", "max_tokens", "messages", "metadata", "model", "output_config", "service_tier", "stop_sequences", "stream",
        "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"


def error(behaviour: Behaviour) -> JsonObject:
    kind = behaviour.error_type or ERROR_TYPES.get(behaviour.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": behaviour.error_message}}


def messages(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/v1/messages`."""
    wrong = _wrong(asked.fields)
    if wrong is not None:
        refused = msgspec.structs.replace(behaviour, status=400, error_type=None, error_message=wrong)
        return answer.whole(400, error(refused))
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
    if behaviour.thinking is not None:
        content = [{"type": "thinking", "thinking": behaviour.thinking, "signature": SIGNATURE}, *content]
    value = {**_message(asked, usage), "content": content, "stop_reason": _stop(behaviour), "stop_sequence": None}
    return answer.whole(200, value, prompt_tokens=usage["input_tokens"], tokens=usage["output_tokens"])


def count_tokens(asked: Asked) -> Answer:
    return answer.whole(200, {"input_tokens": asked.prompt_tokens})


def _wrong(fields: JsonObject) -> str | None:
    """What the API would say to a request that is not well-formed."""
    unknown = sorted(fields.keys() - FIELDS)
    if unknown:
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(fields.get("max_tokens"), int):
        return "max_tokens: Field required"
    roles = [turn.get("role") for turn in fields.get("messages") or []]
    if not roles or roles[0] != "user" or set(roles) - {"user", "assistant"}:
        return 'messages: first message must use the "user" role'
    if any(before == after for before, after in pairwise(roles)):
        return 'messages: roles must alternate between "user" and "assistant", but found multiple in a row'
    temperature = fields.get("temperature", 1)
    return None if 0 <= temperature <= 1 else "temperature: range: -1..1"


def _message(asked: Asked, usage: JsonObject) -> JsonObject:
    return {"id": "msg_scripted", "type": "message", "role": "assistant", "model": asked.model, "usage": usage}


def _stop(behaviour: Behaviour) -> str:
    return behaviour.finish_reason or ("tool_use" if behaviour.tool_calls else "end_turn")


def _usage(asked: Asked, behaviour: Behaviour, delivered: int) -> JsonObject:
    usage: JsonObject = {
        "input_tokens": asked.prompt_tokens if behaviour.prompt_tokens is None else behaviour.prompt_tokens,
        "output_tokens": delivered if behaviour.completion_tokens is None else behaviour.completion_tokens,
    }
    if behaviour.cached_tokens is not None or behaviour.cache_write_tokens is not None:
        usage["cache_read_input_tokens"] = behaviour.cached_tokens or 0
        usage["cache_creation_input_tokens"] = behaviour.cache_write_tokens or 0
    if behaviour.reasoning_tokens is not None:
        usage["output_tokens_details"] = {"thinking_tokens": behaviour.reasoning_tokens}
    return usage


def _events(asked: Asked, behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    opening = {**_message(asked, {**usage, "output_tokens": 1}), "content": [], "stop_reason": None}
    yield Piece(_named({"type": "message_start", "message": opening}), content=False)
    for _ in range(behaviour.heartbeats):
        yield Piece(_named({"type": "ping"}))
    first = 0
    if behaviour.thinking is not None:
        first = 1
        yield from _thoughts(behaviour.thinking)
    for index, call in enumerate(behaviour.tool_calls, first):
        block = {"type": "tool_use", "id": f"toolu_{index - first}", "name": call.name, "input": {}}
        yield Piece(_named({"type": "content_block_start", "index": index, "content_block": block}), 1)
        for part in (call.arguments[:5], call.arguments[5:]):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield Piece(_named({"type": "content_block_delta", "index": index, "delta": delta}), 1)
        yield Piece(_named({"type": "content_block_stop", "index": index}), content=False)
    if not behaviour.tool_calls:
        block = {"type": "text", "text": ""}
        yield Piece(_named({"type": "content_block_start", "index": first, "content_block": block}), content=False)
        padding = "x" * behaviour.chunk_bytes
        for text in texts:
            delta = {"type": "text_delta", "text": text + padding}
            yield Piece(_named({"type": "content_block_delta", "index": first, "delta": delta}), 1)
        yield Piece(_named({"type": "content_block_stop", "index": first}), content=False)
    end = {"stop_reason": _stop(behaviour), "stop_sequence": None}
    made = {name: count for name, count in usage.items() if name.startswith("output_")}
    yield Piece(_named({"type": "message_delta", "delta": end, "usage": made}))
    if behaviour.done:
        yield Piece(_named({"type": "message_stop"}), content=False)


def _thoughts(text: str) -> Iterator[Piece]:
    block = {"type": "thinking", "thinking": "", "signature": ""}
    yield Piece(_named({"type": "content_block_start", "index": 0, "content_block": block}), content=False)
    deltas = [
        *({"type": "thinking_delta", "thinking": piece} for piece in pieces(text, None)),
        {"type": "signature_delta", "signature": SIGNATURE},
    ]
    for delta in deltas:
        yield Piece(_named({"type": "content_block_delta", "index": 0, "delta": delta}), 1)
    yield Piece(_named({"type": "content_block_stop", "index": 0}), content=False)


def _named(value: JsonObject) -> bytes:
    return answer.event(value, value["type"])
