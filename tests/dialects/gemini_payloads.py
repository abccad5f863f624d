"""Streams and answers in the formats that Google publishes (ai.google.dev: generateContent, thinking, thought signatures, errors)."""

import itertools
import json
from collections.abc import Mapping, Sequence

from gateway.dialects.gemini import Gemini

JsonObject = Mapping[str, object]

_numbers = itertools.count(1)
DIALECT = Gemini(lambda: 1_760_000_000.25, lambda: f"made{next(_numbers)}")

SIGNATURE = "CpcHAdHtim9+q4rstcbvQC0ic4x1/vqQlCJWgE+UZ6dTLYGHMMBkF/AxqL9UmP6SY46uYC8t4BTFiXG5zkw6EMJ5fIYc"
USAGE: JsonObject = {
    "promptTokenCount": 12,
    "candidatesTokenCount": 7,
    "totalTokenCount": 19,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
}


def sse(*events: JsonObject) -> bytes:
    """Events as the API writes them: no names, CRLF."""
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(event, ensure_ascii=False).encode() for event in events)


def event(
    *parts: JsonObject, reason: str | None = None, usage: JsonObject | None = None, index: int = 0, **more: object
) -> JsonObject:
    """One event about one answer."""
    candidate: dict[str, object] = {"content": {"parts": list(parts), "role": "model"}, "index": index, **more}
    if reason is not None:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12} if usage is None else usage,
        "modelVersion": "gemini-3-flash-preview",
        "responseId": "n1RFaaz0DaGvnsEPqPCq2Qo",
    }


def said(text: str, **more: object) -> JsonObject:
    return {"text": text, **more}


def thought(text: str) -> JsonObject:
    return {"text": text, "thought": True}


def call(name: str, args: JsonObject, call_id: str | None = None, **more: object) -> JsonObject:
    function: dict[str, object] = {"name": name, "args": args}
    if call_id is not None:
        function["id"] = call_id
    return {"functionCall": function, **more}


PNG: JsonObject = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}

TEXT = sse(event(said("Grüß")), event(said(" Gott,\n\n")), event(said("🌍"), reason="STOP", usage=USAGE))

TOOLS = sse(
    event(said("Let me look. ")),
    event(
        call("get_weather", {"location": "San Francisco, CA"}, "fc1", thoughtSignature=SIGNATURE),
        call("get_time", {}, "fc2"),
    ),
    event(said(""), reason="STOP", usage=USAGE),
)

THINKING = sse(
    event(thought("**Let me solve**"), usage={"promptTokenCount": 12, "thoughtsTokenCount": 20, "totalTokenCount": 32}),
    event(thought(" this step by step")),
    event(said("27 * 453 = ")),
    event(said("12,231")),
    event(
        said("", thoughtSignature=SIGNATURE),
        reason="STOP",
        usage={
            "promptTokenCount": 2012,
            "candidatesTokenCount": 9,
            "thoughtsTokenCount": 88,
            "cachedContentTokenCount": 2000,
            "totalTokenCount": 2109,
        },
    ),
)

PICTURE = sse(
    event(said("Here it is:")),
    event(PNG),
    event(
        reason="STOP",
        usage={**USAGE, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}]},
    ),
)

FILTERED = sse(event(said("How")), {"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": USAGE})

STREAMS = {"text": TEXT, "tools": TOOLS, "thinking": THINKING, "picture": PICTURE, "filtered": FILTERED}


def answer(*parts: JsonObject, reason: str = "STOP", usage: JsonObject = USAGE, **more: object) -> bytes:
    """A whole answer."""
    return json.dumps(event(*parts, reason=reason, usage=usage, index=0, **more), ensure_ascii=False).encode()


def blocked(reason: str = "PROHIBITED_CONTENT") -> JsonObject:
    return {"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}}


def failure(code: int, status: str, message: str, details: Sequence[JsonObject] = ()) -> bytes:
    """An error answer."""
    error: dict[str, object] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return json.dumps({"error": error}, indent=2).encode()
