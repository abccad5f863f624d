"""What the routes share on the wire: bodies read strictly, identifiers, times and pages."""

import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

import msgspec
from fastapi import Depends, Path, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from admin.rest.control import permitted
from admin.rest.gate import PREFIX

T = TypeVar("T")

TEXT = r"^[^\x00-\x1f\x7f]+$"

Identifier = Annotated[str, Path(min_length=1, max_length=200, pattern=TEXT)]
Filter = Annotated[str | None, Query(min_length=1, max_length=200, pattern=TEXT)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many objects a page has at most.")]
After = Annotated[
    str | None,
    Query(min_length=1, max_length=200, pattern=TEXT, description="The `next` of the page before."),
]


# The headers are only for the documentation: the gate has checked the key before a route is looked for.
_GUARD = (
    Depends(permitted),
    Depends(HTTPBearer(auto_error=False)),
    *(Depends(APIKeyHeader(name=name, scheme_name=name, auto_error=False)) for name in ("x-api-key", "api-key")),
)


class Deleted(BaseModel):
    id: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


class ListPage(BaseModel, Generic[T]):
    """`next` goes into `?after=` for the page after this one."""

    data: list[T]
    has_more: bool
    next: str | None

    @classmethod
    def cut(cls, views: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Self:
        """Of all that a store has found, which is one more than `limit` if there are more."""
        data, more = list(views[:limit]), len(views) > limit
        return cls(data=data, has_more=more, next=cursor(data[-1]) if more else None)


def _storable(value: datetime) -> datetime:
    if not datetime(1970, 1, 1, tzinfo=UTC) <= value <= datetime(9999, 12, 30, tzinfo=UTC):
        raise ValueError("must be a time between 1970 and 9999")
    return value


Instant = Annotated[AwareDatetime, AfterValidator(_storable)]  # RFC 3339 with a zone, or Unix seconds


def moment(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else at(unix_s)


def unix(value: datetime | None) -> float | None:
    return None if value is None else value.timestamp()


def at(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


class StrictRoute(APIRoute):
    """A route of the admin plane: under its prefix, and for those whom its role lets in.

    Its JSON body is read by the rules of RFC 8259 alone, and holds only texts that every database takes.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["dependencies"] = [*_GUARD, *(options.get("dependencies") or ())]
        options["strict_content_type"] = False
        super().__init__(PREFIX + path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        """Python's parser takes NaN, lone surrogates and numbers beyond every column; none of them can be stored."""
        try:
            value = msgspec.json.decode(await self.body())
            _check_texts(value)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise json.JSONDecodeError(str(error), "", 0) from error
        return value


def _check_texts(value: object) -> None:
    """PostgreSQL has no NUL in a text."""
    match value:
        case str():
            if "\x00" in value:
                raise ValueError("a text holds a NUL character")
            value.encode()
        case dict():
            for name, inner in value.items():
                _check_texts(name)
                _check_texts(inner)
        case list():
            for inner in value:
                _check_texts(inner)
        case _:
            pass
