"""`/v1/feedback`: what turned out to be true of a prediction, and how good an answer or a search was."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Request, Response

from admin.api.gate import key_of
from admin.api.wire import answered
from admin.feedback import Feedback
from gateway.errors import BadRequest, BodyTooLarge, GatewayError
from inference.feedback import reading
from inference.feedback.reading import Rows, Wrong
from inference.feedback.store import Kept
from inference.feedback.word import Word

MAX_BODY_BYTES: Final = 1 << 20
MAX_BULK_BYTES: Final = 32 << 20
EVENT: Final = "application/cloudevents+json"
EVENTS: Final = "application/cloudevents-batch+json"


class UnsupportedMedia(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


def router(feedback: Feedback) -> APIRouter:
    routes = APIRouter(prefix="/v1/feedback", include_in_schema=False)

    @routes.post("", summary="Say what was true, or how good it was")
    async def say(request: Request) -> Response:
        if _media(request) == EVENTS:  # a batch is many, wherever it is sent
            return await say_all(request)
        body = await _body(request, MAX_BODY_BYTES)
        said = await feedback.say(key_of(request.scope), _word(request, body))
        return answered(view(said.kept) | {"id": said.id})

    @routes.post("/bulk", summary="Say it of many, as JSON, JSON lines, CSV, Parquet or CloudEvents")
    async def say_all(request: Request) -> Response:
        rows = _rows(_media(request), await _body(request, MAX_BULK_BYTES))
        return answered(await feedback.say_all(key_of(request.scope), rows))

    return routes


def view(kept: Kept) -> dict[str, Any]:
    word = kept.word
    return {
        "object": "feedback",
        "id": word.id,
        "kind": kept.owner.kind,
        "source": word.source,
        "label": word.label,
        "score": word.score,
        "comment": word.comment,
        "created_at": datetime.fromtimestamp(kept.created_at, UTC),
        "updated_at": datetime.fromtimestamp(kept.updated_at, UTC),
    }


def _word(request: Request, body: bytes) -> Word:
    """Raises BadRequest."""
    try:
        value = _json(body)
        if "ce-specversion" in request.headers:  # binary mode: the body is the data
            names = ("specversion", "id", "source", "type")
            told = {name: request.headers.get(f"ce-{name}") for name in names}
            attributes = {
                name: None if one is None else unquote(one) for name, one in told.items()
            }  # HTTP binding 3.1.3.2
            return reading.event({**attributes, "data": value})
        if _media(request) == EVENT:
            return reading.event(value if isinstance(value, Mapping) else {})
        return reading.word(value)
    except Wrong as wrong:
        raise BadRequest(wrong.message, param=wrong.param) from None


def _rows(media: str, body: bytes) -> Rows:
    """Raises BadRequest, UnsupportedMedia."""
    match media:
        case "text/csv" | "application/csv":
            return reading.comma_separated(body)
        case "application/jsonl" | "application/x-ndjson" | "application/jsonlines" | "application/x-jsonlines":
            return reading.json_lines(body)
        case "application/vnd.apache.parquet" | "application/x-parquet" | "application/parquet":
            return _parquet(body)
        case "application/json" | "":
            return reading.json_rows(_json(body))
        case media if media == EVENTS:
            return reading.events(_json(body))
        case _:
            raise UnsupportedMedia(
                f"'{media}' is not read here: application/json, application/jsonl, text/csv, "
                f"application/vnd.apache.parquet or {EVENTS}",
                param="content-type",
            )


def _parquet(body: bytes) -> Rows:
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 — it is an extra
    except ImportError:
        raise UnsupportedMedia(
            "Parquet needs pyarrow, which is not installed here: the extra `parquet`", param="content-type"
        ) from None
    return reading.parquet(body)


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None


def _media(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise BodyTooLarge(f"The body may have {most:,} bytes")
        parts.append(part)
    return b"".join(parts)
