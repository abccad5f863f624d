"""`/admin/v1/requests`: what happened to each call, newest first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import TEXT, After, Filter, Identifier, Instant, Limit, ListPage, StrictRoute, at
from gateway import request_store
from gateway.contents import store
from gateway.contents.store import Content, Search
from gateway.errors import NotFound
from gateway.request_store import RequestFilter, RequestRecord

RECORDED = "only where content is recorded"


class TryView(BaseModel):
    """One attempt. `failure` is its class, null for the one that answered; `id` that of its own record, if it was settled by itself."""

    model: str
    deployment: str
    failure: str | None
    ms: float
    id: str | None
    cost_nanousd: int | None


class ContentView(BaseModel):
    """What was asked and answered, redacted, in the words of the API that it was asked in; a stream is put together."""

    request: str
    answer: str | None
    session: str | None


class RequestView(BaseModel):
    """What is not known is null. `usage_source` says who counted the tokens; `trail` has every attempt, where one has failed."""

    id: str
    at: datetime
    key_id: str | None
    org_id: str | None
    team_id: str | None
    model: str | None
    deployment: str | None
    provider: str | None
    endpoint: str
    status: int
    stream: bool
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_nanousd: int | None
    cost_usd: Annotated[float | None, Field(description="cost_nanousd, rounded to what a float can tell.")]
    latency_ms: float
    first_token_ms: float | None
    overhead_ms: float | None
    error_code: str | None
    tags: list[str] | None
    user: str | None
    usage_source: str | None
    trail: list[TryView] | None
    route: Annotated[str | None, Field(description="Why this deployment, where there was a choice.")]
    route_version: Annotated[str | None, Field(description="The version of a route that was drawn, as `name@3`.")]
    prompt_version: Annotated[str | None, Field(description="The version of a prompt that was drawn, as `name@3`.")]
    shadow_of: Annotated[str | None, Field(description="The id of the request that this one is a copy of.")]
    agreement: Annotated[float | None, Field(description="Of a copy: 1 if it was answered alike, 0 if not.")]
    guards: Annotated[list[str] | None, Field(description="What each guard did: `name=outcome:category+category`.")]
    router: Annotated[
        str | None,
        Field(description="Which router chose the model, its label and how sure it was: `auto: easy 0.930`."),
    ]
    part_of: Annotated[str | None, Field(description="The request, or the answer, that it was made for.")]
    answer_id: Annotated[str | None, Field(description="The id in the answer: `chatcmpl-…`, `msg_…`, `resp_…`.")]
    units: Annotated[
        dict[str, float] | None, Field(description="Images, seconds, characters and search_units that it used.")
    ]


class RequestDetail(RequestView):
    """`content` is null where nothing was recorded, or where it was forgotten. `parts`: what was asked of models for the same answer, as
    the vectors of its searches, and the other turns of a response; `bill_nanousd`: what all of it cost together."""

    content: ContentView | None
    parts: list[RequestView]
    bill_nanousd: int


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/requests", tags=["requests"], route_class=StrictRoute)

    @routes.get("", summary="List requests, newest first", responses=documented())
    async def listed(
        *,
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        key_id: Filter = None,
        model: Filter = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        since: Annotated[Instant | None, Query(description="RFC 3339 with a zone, or Unix seconds.")] = None,
        tag: Filter = None,
        session: Annotated[
            str | None,
            Query(min_length=1, max_length=200, pattern=TEXT, description=f"`x-penstock-session`; {RECORDED}."),
        ] = None,
        text: Annotated[
            str | None, Query(min_length=1, max_length=200, pattern=TEXT, description=f"Asked or answered; {RECORDED}.")
        ] = None,
    ) -> ListPage[RequestView]:
        only = RequestFilter(
            key_id,
            model,
            status,
            None if since is None else since.timestamp(),
            org_id=asker.reach.org_id,
            team_id=asker.reach.team_id,
            tag=tag,
        )
        if text is not None:  # to find words is to read them
            asker.require("GET", "/requests/{id}")
        if text is not None or session is not None:
            search = Search(text, session, only.org_id, only.team_id, only.since)
            return await control.read_records(lambda tx: _said(tx, search, only, limit, after))
        found = await control.read_records(lambda tx: request_store.listed(tx, limit, after, only))
        views = [_view(record) for record in found.data]
        return ListPage[RequestView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id}", summary="One request, with what was said, if it is recorded", responses=documented(404))
    async def one(id: Identifier, *, asker: Asker) -> RequestDetail:  # noqa: A002 — the contract's name
        only = RequestFilter(org_id=asker.reach.org_id, team_id=asker.reach.team_id)

        def read(tx: Connection) -> tuple[Sequence[RequestRecord], Content | None, Sequence[RequestRecord]]:
            found = request_store.some(tx, (id,), only)
            return found, store.get(tx, id), request_store.parts(tx, found[0], only) if found else ()

        found, content, parts = await control.read_records(read)
        if not found:
            raise NotFound(f"There is no record of a request '{id}'")
        said = (
            None
            if content is None
            else ContentView(**{name: getattr(content, name) for name in ContentView.model_fields})
        )
        bill = sum(one.cost_nanousd or 0 for one in (found[0], *parts))
        views = [_view(one) for one in parts]
        return RequestDetail(**_view(found[0]).model_dump(), content=said, parts=views, bill_nanousd=bill)

    return routes


def _said(tx: Connection, search: Search, only: RequestFilter, limit: int, after: str | None) -> ListPage[RequestView]:
    """Requests by what was said in them. A page may be shorter than it could be, where the records of some are not there."""
    ids = store.found(tx, search, limit + 1, after)
    more = len(ids) > limit
    records = request_store.some(tx, ids[:limit], only)
    return ListPage[RequestView](
        data=[_view(record) for record in records], has_more=more, next=ids[limit - 1] if more else None
    )


def _view(record: RequestRecord) -> RequestView:
    cost = record.cost_nanousd
    values = msgspec.structs.asdict(record) | {
        "at": at(record.at),
        "tags": None if record.tags is None else list(record.tags),
        "guards": None if record.guards is None else list(record.guards),
        "cost_usd": None if cost is None else cost / 1_000_000_000,
        "trail": None if record.trail is None else [TryView(**msgspec.structs.asdict(one)) for one in record.trail],
    }
    return RequestView(**values)
