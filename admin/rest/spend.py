"""`/admin/v1/spend`: what calls cost, by key, team, model, provider, tag, customer, day and so on."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, BeforeValidator, Field

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import Filter, Instant, StrictRoute, at
from gateway.errors import BadRequest
from gateway.ledger_entries import DAY_S
from gateway.spend import EVER, GroupBy, Range, Spend, spend
from gateway.spend_sums import day_of

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def _of_date(value: object) -> object:
    """A date is its first moment in UTC."""
    return f"{value}T00:00:00Z" if isinstance(value, str) and _DATE.fullmatch(value) else value


Moment = Annotated[Instant, BeforeValidator(_of_date)]

NANO_EXPONENT = -9


class SpendRow(BaseModel):
    """`group` is the id or name that was grouped by, null where calls had none; for day and month its first day, as a date."""

    group: str | None
    cost_usd: Annotated[float, Field(description="Exact: a decimal number of up to nine places.")]
    cost_nanousd: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class SpendList(BaseModel):
    """The costliest first; days and months in order. `next` counts groups: what is spent in between may move some from page to page."""

    group_by: Literal["org", "team", "user", "key", "customer", "model", "provider", "tag", "day", "month"]
    since: Annotated[datetime | None, Field(description="Where the first day that was counted begins.")]
    until: Annotated[datetime | None, Field(description="Where the first day that was not counted begins.")]
    data: list[SpendRow]
    has_more: bool
    next: str | None


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/spend", tags=["spend"], route_class=StrictRoute)
    encode = msgspec.json.Encoder(decimal_format="number").encode

    @routes.get("", summary="Spend, grouped", response_model=SpendList, responses=documented())
    async def grouped(
        *,
        asker: Asker,
        group_by: GroupBy = "day",
        since: Annotated[Moment | None, Query(description="Spend is kept by day of UTC: the whole day counts.")] = None,
        until: Annotated[
            Moment | None, Query(description="Exclusive; a day that has begun before it counts as a whole.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        after: Annotated[str | None, Query(pattern=r"^\d{1,9}$", description="`next` of the page before.")] = None,
        org_id: Filter = None,
        team_id: Filter = None,
        user_id: Filter = None,
        key_id: Filter = None,
        customer: Filter = None,
        model: Filter = None,
        provider: Filter = None,
        tag: Filter = None,
    ) -> Response:
        days = _days(since, until)
        skipped = int(after or 0)
        reach = asker.reach
        asker.require_reach(org_id or reach.org_id, team_id or reach.team_id)
        asked = {
            "org": org_id or reach.org_id,
            "team": team_id or reach.team_id,
            "user": user_id,
            "key": key_id,
            "customer": customer,
            "model": model,
            "provider": provider,
            "tag": tag,
        }
        only = {name: value for name, value in asked.items() if value is not None}
        found = await control.read_records(lambda tx: spend(tx, group_by, days, only, limit + 1, skipped))
        more = len(found) > limit
        answer = {
            "group_by": group_by,
            "since": None if since is None else at(days.since * DAY_S),
            "until": None if until is None else at(days.until * DAY_S),
            "data": [_row(one) for one in found[:limit]],
            "has_more": more,
            "next": str(skipped + limit) if more else None,
        }
        return Response(encode(answer), media_type="application/json")

    return routes


def _days(since: datetime | None, until: datetime | None) -> Range:
    first = EVER.since if since is None else day_of(since.timestamp())
    end = EVER.until if until is None else day_of(until.timestamp() + DAY_S - 1e-6)
    if end < first:
        raise BadRequest("`until` is before `since`.", param="until")
    return Range(first, end)


def _row(one: Spend) -> dict[str, object]:
    return {
        "group": at(one.group * DAY_S).date().isoformat() if isinstance(one.group, int) else one.group,
        "cost_usd": Decimal(one.cost_nanousd).scaleb(NANO_EXPONENT),
        "cost_nanousd": one.cost_nanousd,
        "requests": one.requests,
        "prompt_tokens": one.input_tokens,
        "cached_tokens": one.cached_tokens,
        "completion_tokens": one.output_tokens,
    }
