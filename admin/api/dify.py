"""`POST /retrieval`: a vector store as an external knowledge base of Dify, with Dify's own error codes beside OpenAI's shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from admin.api.wire import read
from gateway import errors
from gateway.authentication import is_bearer
from gateway.grounding import booking
from gateway.grounding.ports import Found, Searcher, Wanted
from gateway.keys import Key

PATH = "/retrieval"
BAD_HEADER, NOT_AUTHORISED, NO_SUCH_KNOWLEDGE = 1001, 1002, 2001
MOST = 50
Json = dict[str, Any]

_PLAIN = {"is": "eq", "is not": "ne", "before": "lt", "after": "gt", "start with": "prefix"}
_NUMBERS = {"=": "eq", "≠": "ne", ">": "gt", "<": "lt", "≥": "gte", "≤": "lte"}
_LISTS = {"in": "in", "not in": "nin"}


class _Loose(BaseModel):
    """Dify adds fields from version to version."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Setting(_Loose):
    top_k: Annotated[int, Field(ge=1)] = 4
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Condition(_Loose):
    name: Annotated[list[str], Field(min_length=1, max_length=16)] | str
    comparison_operator: str
    value: str | float | list[str] | None = None


class Conditions(_Loose):
    logical_operator: Literal["and", "or"] = "and"
    conditions: Annotated[list[Condition], Field(max_length=64)] = []


class RetrievalBody(_Loose):
    knowledge_id: Annotated[str, Field(min_length=1, max_length=256)]
    query: Annotated[str, Field(min_length=1, max_length=32_768)]
    retrieval_setting: Setting = Setting()
    metadata_condition: Conditions | None = None

    def wanted(self) -> Wanted:
        """Raises BadRequest."""
        given = self.metadata_condition
        return Wanted(
            (self.knowledge_id,),
            min(self.retrieval_setting.top_k, MOST),
            None if given is None or not given.conditions else filter_of(given),
            self.retrieval_setting.score_threshold or 0.0,
        )


def router(identify: Callable[[Mapping[bytes, bytes]], Key], searcher: Searcher) -> APIRouter:
    """`identify` finds the virtual key of a request by its headers."""
    routes = APIRouter(include_in_schema=False)

    @routes.post(PATH, summary="Search, as Dify asks an external knowledge base")
    async def retrieval(request: Request) -> Response:
        try:
            headers = dict(request.headers.raw)
            key = _key(identify, headers)
            asked = await read(request, RetrievalBody)
            found = await searcher.search(key, [asked.query], asked.wanted(), booking.of(headers))
        except errors.GatewayError as error:
            return _refused(error)
        return _answer(200, {"records": [_record(one) for one in found]})

    return routes


def filter_of(given: Conditions) -> Json:
    """Dify's conditions in OpenAI's grammar. Raises BadRequest for what neither exact search nor an index can tell."""
    parts = [_condition(one, name) for one in given.conditions for name in _names(one)]
    return parts[0] if len(parts) == 1 else {"type": given.logical_operator, "filters": parts}


def _names(condition: Condition) -> Sequence[str]:
    return [condition.name] if isinstance(condition.name, str) else condition.name


def _condition(one: Condition, name: str) -> Json:
    operator = one.comparison_operator
    if operator in {"empty", "not empty"}:
        there: Json = {"type": "exists", "key": name}
        return there if operator == "not empty" else {"type": "not", "filter": there}
    if operator in _PLAIN:
        return {"type": _PLAIN[operator], "key": name, "value": one.value}
    if operator in _NUMBERS:
        return {"type": _NUMBERS[operator], "key": name, "value": _number(one)}
    if operator in _LISTS:
        every = one.value if isinstance(one.value, list) else str(one.value or "").split(",")
        return {"type": _LISTS[operator], "key": name, "value": [each.strip() for each in every]}
    known = ", ".join(("empty", "not empty", *_PLAIN, *_NUMBERS, *_LISTS))
    raise errors.BadRequest(
        f"The operator '{operator[:40]}' is not known here; these are: {known}", param="metadata_condition"
    )


def _number(one: Condition) -> float:
    try:
        return float(one.value)  # type: ignore[arg-type]  # what is no number is said below
    except (TypeError, ValueError):
        raise errors.BadRequest(
            f"The operator '{one.comparison_operator}' compares numbers", param="metadata_condition"
        ) from None


def _key(identify: Callable[[Mapping[bytes, bytes]], Key], headers: Mapping[bytes, bytes]) -> Key:
    """Raises GatewayError."""
    if not is_bearer(headers.get(b"authorization", b"")):
        raise _BadHeader("Invalid Authorization header format. Expected 'Bearer <api-key>' format.")
    key = identify(headers)
    if not key.may_call(PATH):
        raise errors.AccessDenied(f"This key may not call {PATH}", code="route_access_denied")
    return key


class _BadHeader(errors.Unauthenticated):
    pass


def _record(one: Found) -> Json:
    place = {"vector_store_id": one.store_id, "file_id": one.file_id, "page": one.page, "line": one.line}
    told = {name: value for name, value in place.items() if value is not None}
    return {
        "content": one.text,
        "score": round(one.score, 6),
        "title": one.filename,
        "metadata": {**one.attributes, **told},
    }


def _refused(error: errors.GatewayError) -> Response:
    code = error.status
    if isinstance(error, _BadHeader):
        code = BAD_HEADER
    elif error.status in {401, 403}:
        code = NOT_AUTHORISED
    elif error.status == 404:
        code = NO_SUCH_KNOWLEDGE
    told = {
        "error_code": code,
        "error_msg": error.message,
        **msgspec.json.decode(error.body()),
    }  # and as everywhere else
    return _answer(error.status, told, dict(error.headers))


def _answer(status: int, value: Json, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")
