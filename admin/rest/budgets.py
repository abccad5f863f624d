"""`/admin/v1/budgets`: money per period on any scope, what is left of it, and how it is reset or raised for a while."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import given
from admin.rest.money import ShownUsd, Usd, nanousd, usd
from admin.rest.scope_fields import (
    BudgetFields,
    BudgetView,
    ScopeFields,
    Thresholds,
    Zone,
    budget_view,
    check_budget,
    require_settable,
)
from admin.rest.wire import After, Deleted, Filter, Identifier, Instant, Limit, ListPage, StrictRoute, at
from gateway import budget_store
from gateway.budget_store import BudgetChange, BudgetRecord
from gateway.errors import BadRequest
from gateway.scopes import EACH, Exceeded, Period, Raise, ScopeKind, Use, bind, window
from gateway.settings import Name, Section

# What the lease store knows of accounts, by id, in the order asked. Raises GatewayError where it does not answer.
Uses = Callable[[Sequence[str]], Awaitable[Sequence[Use]]]

_EXACT = msgspec.json.Encoder(decimal_format="number")  # sums may have more digits than a double
_CHANGES = ("period", "rolling", "timezone", "thresholds", "on_exceeded", "fallback_model", "blocked")


class BudgetBody(BudgetFields):
    scope: ScopeFields


class BudgetChangeBody(Section):
    """What is left out stays. Another period, zone or kind of window begins with that window's own account."""

    limit_usd: Usd = usd(0)
    period: Period = "total"
    rolling: bool = False
    timezone: Zone = "UTC"
    thresholds: Thresholds = ()
    on_exceeded: Exceeded = "deny"
    fallback_model: Name | None = None
    blocked: bool = False


class RaiseBody(Section):
    """So much more than `limit_usd` until then; an amount of 0 ends what was raised before."""

    amount_usd: Usd
    until: Instant


class BudgetState(BudgetView):
    """`held_usd` is set aside for calls under way or lent to servers. Null: not known here, or a budget for each of many."""

    settled_usd: ShownUsd | None
    held_usd: ShownUsd | None
    remaining_usd: ShownUsd | None
    starts_at: datetime | None
    resets_at: datetime | None


def router(control: Control, uses: Uses | None) -> APIRouter:
    routes = APIRouter(prefix="/budgets", tags=["budgets"], route_class=StrictRoute)

    @routes.post(
        "", summary="Put a budget on a scope", status_code=201, response_model=BudgetView, responses=documented(409)
    )
    async def create(request: Request, asker: Asker, body: BudgetBody) -> Response:
        control.require_enforcing(None)
        scope = body.scope.compile()

        def work(tx: Connection) -> tuple[str, BaseModel]:
            require_settable(asker, budget_store.owner(tx, scope), scope)
            record = budget_store.create_budget(tx, body.compile(scope), asker.level)
            return record.id, budget_view(record)

        return await control.create(request, asker, "budget.create", work)

    @routes.get("", summary="List budgets, oldest first", responses=documented())
    async def listed(
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        scope_kind: Annotated[ScopeKind | None, Query()] = None,
        scope_id: Filter = None,
    ) -> ListPage[BudgetView]:
        found = await control.read(
            lambda tx: budget_store.list_budgets(tx, limit, after, asker.reach, scope_kind, scope_id)
        )
        views = [budget_view(record) for record in found.data]
        return ListPage[BudgetView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get(
        "/{id}", summary="Show a budget and what is left of it", response_model=BudgetState, responses=documented(404)
    )
    async def show(
        id: Identifier,  # noqa: A002 — the contract's name
        asker: Asker,
        scope_id: Annotated[
            str | None, Query(min_length=1, max_length=500, description="Of a budget on `*`: whose share.")
        ] = None,
    ) -> Response:
        record = await control.read(lambda tx: budget_store.get_budget(tx, id, asker.reach))
        state = await _state(record, scope_id, uses)
        return Response(_EXACT.encode(state.model_dump()), media_type="application/json")

    @routes.patch("/{id}", summary="Change a budget", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: BudgetChangeBody) -> BudgetView:  # noqa: A002 — the contract's name
        values = {name: given(body, name) for name in _CHANGES}
        if "limit_usd" in body.model_fields_set:
            values["limit_nanousd"] = nanousd(body.limit_usd)
        changes = BudgetChange(**values)

        def work(tx: Connection) -> BudgetView:
            return budget_view(check_budget(budget_store.change_budget(tx, id, changes, asker.reach, asker.level)))

        return await control.change(
            asker,
            "budget.change",
            id,
            work,
            before=lambda tx: budget_view(budget_store.get_budget(tx, id, asker.reach)),
        )

    @routes.delete("/{id}", summary="Delete a budget", responses=documented(404))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — the contract's name
        await control.delete(
            asker,
            "budget.delete",
            id,
            lambda tx: budget_store.delete_budget(tx, id, asker.reach, asker.level),
            before=lambda tx: budget_view(budget_store.get_budget(tx, id, asker.reach)),
        )
        return Deleted(id=id)

    _add_relief(routes, control)
    return routes


def _add_relief(routes: APIRouter, control: Control) -> None:
    """What gives a budget room before its window ends."""

    @routes.post(
        "/{id}/reset",
        summary="Begin again with nothing spent",
        response_model=BudgetView,
        responses=documented(404, 409),
    )
    async def reset(request: Request, id: Identifier, asker: Asker) -> Response:  # noqa: A002 — the contract's name
        def work(tx: Connection) -> tuple[str, BaseModel]:
            return id, budget_view(budget_store.reset_budget(tx, id, asker.reach, asker.level))

        return await control.create(request, asker, "budget.reset", work, status=200)

    @routes.post(
        "/{id}/raise",
        summary="Raise a budget until a moment",
        response_model=BudgetView,
        responses=documented(404, 409),
    )
    async def raise_(request: Request, id: Identifier, asker: Asker, body: RaiseBody) -> Response:  # noqa: A002 — the contract's name
        until = body.until.timestamp()
        raised = Raise(nanousd(body.amount_usd), until) if body.amount_usd else None
        if raised is not None and until <= time.time():
            raise BadRequest("until: this moment has passed.", param="until", code="invalid_value")

        def work(tx: Connection) -> tuple[str, BaseModel]:
            return id, budget_view(budget_store.raise_budget(tx, id, raised, asker.reach, asker.level))

        return await control.create(
            request,
            asker,
            "budget.raise",
            work,
            status=200,
            before=lambda tx: budget_view(budget_store.get_budget(tx, id, asker.reach)),
        )


async def _state(record: BudgetRecord, scope_id: str | None, uses: Uses | None) -> BudgetState:
    """Of the window that this moment is in."""
    budget, now = record.budget, time.time()
    whose = scope_id if budget.scope.id == EACH else budget.scope.id
    found = window(bind(budget, whose or EACH), now)
    state = BudgetState.model_validate(
        {
            **budget_view(record).model_dump(),
            **dict.fromkeys(("settled_usd", "held_usd", "remaining_usd")),
            "starts_at": None if found.resets_at is None else at(found.starts_at),
            "resets_at": None if found.resets_at is None else at(found.resets_at),
        }
    )
    if whose is None or uses is None:
        return state
    held = await uses(found.counted)
    settled_nano, held_nano = sum(use.settled for use in held), sum(use.held for use in held)
    return state.model_copy(
        update={
            "settled_usd": usd(settled_nano),
            "held_usd": usd(held_nano),
            # Never below zero: an upstream that billed more than its worst case leaves no promise.
            "remaining_usd": usd(max(0, budget.amount(now) - settled_nano - held_nano)),
        }
    )
