"""`/admin/v1/requests`: what happened to each call, newest first."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Filter, Instant, Limit, ListPage, StrictRoute, at
from gateway import request_store
from gateway.request_store import RequestFilter, RequestRecord


class TryView(BaseModel):
    """One attempt. `failure` is its class, null for the one that answered; `id` that of its own record, if it was settled by itself."""

    model: str
    deployment: str
    failure: str | None
    ms: float
    id: str | None
    cost_nanousd: int | None


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
    guards: Annotated[list[str] | None, Field(description="What each guard did: `name=outcome:category+category`.")]
    units: Annotated[
        dict[str, float] | None, Field(description="Images, seconds, characters and search_units that it used.")
    ]


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
    ) -> ListPage[RequestView]:
        only = RequestFilter(
            key_id,
            model,
            status,
            None if since is None else since.timestamp(),
            org_id=asker.reach.org_id,
            team_id=asker.reach.team_id,
        )
        found = await control.read(lambda tx: request_store.listed(tx, limit, after, only))
        views = [_view(record) for record in found.data]
        return ListPage[RequestView](data=views, has_more=found.next is not None, next=found.next)

    return routes


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
