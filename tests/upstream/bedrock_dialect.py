"""Answers as Bedrock's runtime gives them: Converse and `invoke` with Claude's bodies, whole and as frames."""

import base64
import re
import struct
from collections.abc import Iterator
from urllib.parse import unquote
from zlib import crc32

import msgspec

from tests.upstream import answer, anthropic_dialect
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject, pieces
from tests.upstream.behaviour import Behaviour

FRAMES = "application/vnd.amazon.eventstream"
_PATH = re.compile(r"/model/([^/]+)/(converse|converse-stream|invoke|invoke-with-response-stream|count-tokens)$")
_INNER = re.compile(rb"data: (.*)\n\n")


def asked(path: str, question: Asked) -> Asked | None:
    """The same question as this API asks it; None where it is another's."""
    found = _PATH.search(path)
    if found is None:
        return None
    said = [_text(turn) for turn in question.fields.get("messages", []) if turn.get("role") == "user"]
    return msgspec.structs.replace(
        question,
        model=unquote(found[1]),
        stream=found[2].endswith("stream"),
        echo=f"-|{said[-1] if said else ''}",
        prompt_tokens=sum(len(text.split()) for text in said),
    )


def error(behaviour: Behaviour) -> JsonObject:
    return {"message": behaviour.error_message}


def respond(path: str, asked: Asked, behaviour: Behaviour) -> Answer:
    if path.endswith("/count-tokens"):
        return answer.whole(200, {"inputTokens": asked.prompt_tokens})
    if "/converse" in path:
        return _converse(asked, behaviour)
    return _invoke(asked, behaviour)


def frame(kind: str, payload: bytes, message_type: str = "event") -> bytes:
    """One frame of `application/vnd.amazon.eventstream`."""
    headers = b""
    names = {":message-type": message_type, ":content-type": "application/json"}
    names[":event-type" if message_type == "event" else ":exception-type"] = kind
    for name, value in names.items():
        headers += struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    made = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return made + struct.pack("!I", crc32(made))


def _converse(asked: Asked, behaviour: Behaviour) -> Answer:
    texts = pieces(asked.echo if behaviour.text is None else behaviour.text, behaviour.chunks)
    usage = _usage(asked, behaviour, len(texts))
    if asked.stream:
        failure = frame("throttlingException", msgspec.json.encode(error(behaviour)), "exception")
        return Answer(200, FRAMES, _events(behaviour, texts, usage), usage["inputTokens"], failure, streams=True)
    value = {
        "output": {"message": {"role": "assistant", "content": [{"text": "".join(texts)}]}},
        "stopReason": "end_turn",
        "usage": usage,
        "metrics": {"latencyMs": 1},
    }
    return answer.whole(200, value, prompt_tokens=usage["inputTokens"], tokens=usage["outputTokens"])


def _events(behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    yield _event("messageStart", {"role": "assistant"})
    for text in texts:
        padded = text + "x" * behaviour.chunk_bytes
        yield _event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": padded}}, 1)
    yield _event("contentBlockStop", {"contentBlockIndex": 0})
    if behaviour.done:
        yield _event("messageStop", {"stopReason": "end_turn"})
        yield _event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})


def _event(kind: str, value: JsonObject, tokens: int = 0) -> Piece:
    return Piece(frame(kind, msgspec.json.encode(value)), tokens)


def _usage(asked: Asked, behaviour: Behaviour, delivered: int) -> JsonObject:
    read, written = behaviour.cached_tokens or 0, behaviour.cache_write_tokens or 0
    prompt = asked.prompt_tokens if behaviour.prompt_tokens is None else behaviour.prompt_tokens
    said = delivered if behaviour.completion_tokens is None else behaviour.completion_tokens
    usage: JsonObject = {"inputTokens": prompt, "outputTokens": said, "totalTokens": prompt + said + read + written}
    if read or written:
        usage |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": written}
    return usage


def _invoke(asked: Asked, behaviour: Behaviour) -> Answer:
    """Claude's own body, less the model and the stream, which stand in the path."""
    fields = {name: value for name, value in asked.fields.items() if name != "anthropic_version"}
    question = msgspec.structs.replace(asked, fields=fields)
    made = anthropic_dialect.messages(question, behaviour)
    if not asked.stream:
        return made
    failure = frame("throttlingException", msgspec.json.encode(error(behaviour)), "exception")
    return made._replace(content_type=FRAMES, pieces=_chunks(made.pieces), error_event=failure)


def _chunks(events: Iterator[Piece]) -> Iterator[Piece]:
    for piece in events:
        for inner in _INNER.findall(piece.data):
            chunk = msgspec.json.encode({"bytes": base64.b64encode(inner).decode()})
            yield piece._replace(data=frame("chunk", chunk))


def _text(turn: JsonObject) -> str:
    content = turn.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [] if isinstance(part, dict))
