"""Answers as the Gemini API gives them: contents, embeddings and errors. The model and the method stand in the path."""

import re
from collections.abc import Iterator

import msgspec

from tests.upstream import answer, openai_dialect
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject, pieces
from tests.upstream.behaviour import Behaviour

SIGNATURE = "c2NyaXB0ZWQgdGhvdWdodHM="
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_PATH = re.compile(
    r"/models/([^/:]+):(generateContent|streamGenerateContent|batchEmbedContents|embedContent|countTokens)$"
)


def asked(path: str, question: Asked) -> Asked | None:
    """The same question as this API asks it; None where it is another's."""
    found = _PATH.search(path)
    if found is None:
        return None
    said = [_text(content) for content in question.fields.get("contents", []) if content.get("role") == "user"]
    return msgspec.structs.replace(
        question,
        model=found[1],
        stream=found[2] == "streamGenerateContent",
        echo=f"-|{said[-1] if said else ''}",
        prompt_tokens=sum(len(text.split()) for text in said),
    )


def error(behaviour: Behaviour) -> JsonObject:
    """`error_code` is the reason, which stands in the details."""
    details: list[JsonObject] = []
    if behaviour.error_code is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": behaviour.error_code})
    if behaviour.retry_delay is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": behaviour.retry_delay})
    status = behaviour.error_type or STATUSES.get(behaviour.status, "INTERNAL")
    code = behaviour.status if behaviour.status != 200 else 500
    return {"error": {"code": code, "message": behaviour.error_message, "status": status, "details": details}}


def respond(path: str, asked: Asked, behaviour: Behaviour) -> Answer:
    if path.endswith(":countTokens"):
        return answer.whole(200, {"totalTokens": asked.prompt_tokens})
    if path.endswith(":embedContent"):
        text = _text(asked.fields["content"])
        return answer.whole(
            200, {"embedding": {"values": openai_dialect.vector(text, 4)}}, prompt_tokens=len(text.split())
        )
    return _embeddings(asked, behaviour) if path.endswith(":batchEmbedContents") else _contents(asked, behaviour)


def _contents(asked: Asked, behaviour: Behaviour) -> Answer:
    texts = pieces(asked.echo if behaviour.text is None else behaviour.text, behaviour.chunks)
    usage = _usage(asked, behaviour, len(texts))
    prompt_tokens = usage["promptTokenCount"]
    if asked.stream:
        failure = answer.event(error(behaviour))
        events = _events(behaviour, texts, usage)
        return Answer(200, answer.EVENT_STREAM, events, prompt_tokens, failure, streams=True)
    said: list[JsonObject] = _thoughts(behaviour) + (
        _calls(behaviour) or [{"text": "".join(texts) + "x" * behaviour.pad_bytes}]
    )
    tokens = usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
    return answer.whole(200, _event(said, usage, _finish(behaviour)), prompt_tokens=prompt_tokens, tokens=tokens)


def _embeddings(asked: Asked, behaviour: Behaviour) -> Answer:
    """The vectors of `openai_dialect`, so that both say the same of one text."""
    requests = asked.fields.get("requests", [])
    texts = [_text(request["content"]) for request in requests]
    vectors = [
        openai_dialect.vector(text, request.get("outputDimensionality", openai_dialect.DIMENSIONS))
        for text, request in zip(texts, requests, strict=True)
    ]
    tokens = behaviour.prompt_tokens or sum(len(text.split()) for text in texts)
    value: JsonObject = {"embeddings": [{"values": vector} for vector in vectors]}
    if behaviour.usage == "always":
        value["usageMetadata"] = {"promptTokenCount": tokens}
    return answer.whole(200, value, prompt_tokens=tokens)


def _events(behaviour: Behaviour, texts: list[str], usage: JsonObject) -> Iterator[Piece]:
    """No event says that the stream is through: the last one has the reason."""
    begun = {"promptTokenCount": usage["promptTokenCount"], "totalTokenCount": usage["promptTokenCount"]}
    for thought in _thoughts(behaviour):
        yield Piece(answer.event(_event([thought], begun)), usage.get("thoughtsTokenCount", 0))
    for call in _calls(behaviour):
        yield Piece(answer.event(_event([call], begun)), 1)
    if not behaviour.tool_calls:
        padding = "x" * behaviour.chunk_bytes
        for text in texts:
            yield Piece(answer.event(_event([{"text": text + padding}], begun)), 1)
    if behaviour.done:
        yield Piece(answer.event(_event([{"text": ""}], usage, _finish(behaviour))), content=False)


def _event(said: list[JsonObject], usage: JsonObject, finish: str | None = None) -> JsonObject:
    candidate: JsonObject = {"content": {"parts": said, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted", "responseId": "rsp_scripted"}


def _thoughts(behaviour: Behaviour) -> list[JsonObject]:
    return [] if behaviour.thinking is None else [{"text": behaviour.thinking, "thought": True}]


def _calls(behaviour: Behaviour) -> list[JsonObject]:
    """Only the first of a turn is sealed."""
    calls: list[JsonObject] = []
    for number, call in enumerate(behaviour.tool_calls):
        function = {"id": f"fc_{number}", "name": call.name, "args": msgspec.json.decode(call.arguments)}
        calls.append({"functionCall": function} | ({"thoughtSignature": SIGNATURE} if number == 0 else {}))
    return calls


def _finish(behaviour: Behaviour) -> str:
    return behaviour.finish_reason or "STOP"


def _usage(asked: Asked, behaviour: Behaviour, delivered: int) -> JsonObject:
    prompt = asked.prompt_tokens if behaviour.prompt_tokens is None else behaviour.prompt_tokens
    said = delivered if behaviour.completion_tokens is None else behaviour.completion_tokens
    thoughts = behaviour.reasoning_tokens
    usage: JsonObject = {"promptTokenCount": prompt, "candidatesTokenCount": said}
    if thoughts is not None:
        usage["thoughtsTokenCount"] = thoughts
    if behaviour.cached_tokens is not None:
        usage["cachedContentTokenCount"] = behaviour.cached_tokens
    return {**usage, "totalTokenCount": prompt + said + (thoughts or 0)}


def _text(content: JsonObject) -> str:
    return "".join(str(part.get("text", "")) for part in content.get("parts", []))
