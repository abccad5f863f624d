"""What the routes share on the wire: small JSON bodies that are read strictly, answers, lists by cursor, expiry of files."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from admin.rest.complaints import complaint
from gateway.errors import BadRequest, BodyTooLarge

MAX_BODY_BYTES = 1 << 20

Body = TypeVar("Body", bound=BaseModel)

Cursor = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class Strict(BaseModel):
    """What is not known is not accepted: a client that asks for something must not be told that it got it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpiresAfter(Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


async def read(request: Request, model: type[Body]) -> Body:
    """A JSON body of at most a megabyte. Raises BadRequest, BodyTooLarge."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body may have {MAX_BODY_BYTES:,} bytes")
        parts.append(part)
    try:
        value = msgspec.json.decode(b"".join(parts) or b"{}")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    return checked(model, value)


def checked(model: type[Body], value: object) -> Body:
    """Raises BadRequest whose `param` names the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise complaint([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None


def answered(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def listing(rows: Sequence[dict[str, object]], *, has_more: bool) -> Response:
    """A page, as OpenAI's SDKs walk through them: the last row's id is the next page's `after`."""
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {"first_id": None, "last_id": None}
    return answered({"object": "list", "data": rows, **ends, "has_more": has_more})


def seconds(unix: float | None) -> int | None:
    """As OpenAI tells times."""
    return None if unix is None else int(unix)
