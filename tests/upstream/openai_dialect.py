"""Answers as the OpenAI API gives them: chat, completions, embeddings, models and errors."""

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from tests.upstream import answer
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject, pieces
from tests.upstream.behaviour import Behaviour, ToolCall

CREATED = 1_700_000_000
DIMENSIONS = 8
CHAT_KIND = {"id": "chatcmpl-scripted", "object": "chat.completion"}
COMPLETION_KIND = {"id": "cmpl-scripted", "object": "text_completion"}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def error(behaviour: Behaviour) -> JsonObject:
    kind = behaviour.error_type or ERROR_TYPES.get(behaviour.status, "server_error")
    return {
        "error": {
            "message": behaviour.error_message,
            "type": kind,
            "param": behaviour.error_param,
            "code": behaviour.error_code,
        }
    }


def chat(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/chat/completions`."""
    texts = _texts(asked, behaviour)
    usage = _usage(asked, behaviour, len(texts))
    if asked.stream:
        return _stream(_chat_events(asked, behaviour, texts, usage), behaviour, usage["prompt_tokens"])
    message: JsonObject = {"role": "assistant", "content": "".join(texts) + "x" * behaviour.pad_bytes, "refusal": None}
    if behaviour.tool_calls:
        message["content"] = None
        message["tool_calls"] = [_tool_call(call, number) for number, call in enumerate(behaviour.tool_calls)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(behaviour)}
    return _plain(asked, behaviour, CHAT_KIND, choice, usage)


def completion(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/completions`."""
    texts = _texts(asked, behaviour)
    usage = _usage(asked, behaviour, len(texts))
    if asked.stream:
        return _stream(_completion_events(asked, behaviour, texts, usage), behaviour, usage["prompt_tokens"])
    text = "".join(texts) + "x" * behaviour.pad_bytes
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": _finish(behaviour)}
    return _plain(asked, behaviour, COMPLETION_KIND, choice, usage)


def embeddings(asked: Asked, behaviour: Behaviour) -> Answer:
    """`/embeddings`: a vector that depends on the text alone."""
    given = asked.fields.get("input", "")
    texts = given if isinstance(given, list) else [given]
    size = min(asked.fields.get("dimensions") or DIMENSIONS, 4096)
    as_text = asked.fields.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        values = vector(str(text), size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if as_text else values})
    tokens = behaviour.prompt_tokens or sum(len(str(text).split()) for text in texts)
    value: JsonObject = {"object": "list", "data": data, "model": asked.model}
    if behaviour.usage != "absent":
        value["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer.whole(200, value, prompt_tokens=tokens)


def models() -> Answer:
    entries = [{"id": "scripted", "object": "model", "created": CREATED, "owned_by": "tests"}]
    return answer.whole(200, {"object": "list", "data": entries})


def vector(text: str, size: int) -> list[float]:
    """Numbers that a 32-bit float holds exactly, so that both encodings give the same."""
    digest = hashlib.sha256(text.encode()).digest()
    return [(digest[index % 32] - 128) / 256 for index in range(size)]


def _texts(asked: Asked, behaviour: Behaviour) -> list[str]:
    return pieces(asked.echo if behaviour.text is None else behaviour.text, behaviour.chunks)


def _finish(behaviour: Behaviour) -> str:
    return behaviour.finish_reason or ("tool_calls" if behaviour.tool_calls else "stop")


def _tool_call(call: ToolCall, number: int) -> JsonObject:
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _usage(asked: Asked, behaviour: Behaviour, delivered: int) -> JsonObject:
    prompt = asked.prompt_tokens if behaviour.prompt_tokens is None else behaviour.prompt_tokens
    completed = delivered if behaviour.completion_tokens is None else behaviour.completion_tokens
    usage: JsonObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completed,
        "total_tokens": prompt + completed,
    }
    if behaviour.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": behaviour.cached_tokens, "audio_tokens": 0}
    if behaviour.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": behaviour.reasoning_tokens}
    return usage


def _plain(asked: Asked, behaviour: Behaviour, kind: JsonObject, choice: JsonObject, usage: JsonObject) -> Answer:
    value = {**kind, "created": CREATED, "model": asked.model, "choices": [choice]}
    if behaviour.usage != "absent":
        value["usage"] = usage
    return answer.whole(200, value, prompt_tokens=usage["prompt_tokens"], tokens=usage["completion_tokens"])


def _stream(events: Iterator[Piece], behaviour: Behaviour, prompt_tokens: int) -> Answer:
    failure = answer.event(error(behaviour))
    return Answer(200, answer.EVENT_STREAM, _framed(events, behaviour), prompt_tokens, failure, streams=True)


def _framed(events: Iterator[Piece], behaviour: Behaviour) -> Iterator[Piece]:
    for _ in range(behaviour.heartbeats):
        yield Piece(b": keep-alive\n\n")
    yield from events
    if behaviour.done:
        yield Piece(b"data: [DONE]\n\n", content=False)


def _chat_events(asked: Asked, behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    padding = "x" * behaviour.chunk_bytes
    base = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": CREATED, "model": asked.model}

    def chunk(delta: JsonObject, finish: str | None, number: int) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return answer.event({**base, "choices": [choice], **_running(asked, behaviour, usage, finish, number)})

    yield Piece(chunk({"role": "assistant", "content": ""}, None, 0), content=False)
    for number, call in enumerate(behaviour.tool_calls):
        opening = {**_tool_call(ToolCall(call.name, ""), number), "index": number}
        yield Piece(chunk({"tool_calls": [opening]}, None, number + 1), 1)
        for part in (call.arguments[:5], call.arguments[5:]):
            fragment = {"index": number, "function": {"arguments": part}}
            yield Piece(chunk({"tool_calls": [fragment]}, None, number + 1), 1)
    if not behaviour.tool_calls:
        for number, text in enumerate(texts):
            yield Piece(chunk({"content": text + padding}, None, number + 1), 1)
    yield Piece(chunk({}, _finish(behaviour), len(texts)), content=False)
    if _closing_usage(asked, behaviour):
        yield Piece(answer.event({**base, "choices": [], "usage": usage}), content=False)


def _completion_events(asked: Asked, behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    base = {"id": "cmpl-scripted", "object": "text_completion", "created": CREATED, "model": asked.model}
    for number, text in enumerate(texts, 1):
        finish = _finish(behaviour) if number == len(texts) else None
        choice = {"index": 0, "text": text + "x" * behaviour.chunk_bytes, "logprobs": None, "finish_reason": finish}
        fields = {**base, "choices": [choice], **_running(asked, behaviour, usage, finish, number)}
        yield Piece(answer.event(fields), 1)
    if _closing_usage(asked, behaviour):
        yield Piece(answer.event({**base, "choices": [], "usage": usage}), content=False)


def _running(asked: Asked, behaviour: Behaviour, usage: JsonObject, finish: str | None, number: int) -> dict[str, Any]:
    """The usage that a chunk with choices carries: of the last one, of every one so far, or null where it comes at the end."""
    match behaviour.usage:
        case "with_choices":
            return {"usage": usage} if finish else {}
        case "cumulative":
            so_far = {**usage, "completion_tokens": number, "total_tokens": usage["prompt_tokens"] + number}
            return {"usage": usage if finish else so_far}
        case _:
            return {"usage": None} if _closing_usage(asked, behaviour) else {}


def _closing_usage(asked: Asked, behaviour: Behaviour) -> bool:
    return behaviour.usage == "always" or (behaviour.usage == "asked" and asked.include_usage)
