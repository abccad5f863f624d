"""`/admin/v1/limits`: requests and tokens per minute, requests per day and calls at the same time, on any scope."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.scope_fields import (
    LimitsFields,
    LimitsView,
    ScopeFields,
    check_limits,
    limits_view,
    require_settable,
)
from admin.rest.wire import After, Deleted, Filter, Identifier, Limit, ListPage, StrictRoute
from gateway import budget_store
from gateway.scopes import ScopeKind


class LimitsBody(LimitsFields):
    scope: ScopeFields


class LimitsChangeBody(LimitsFields):
    """What is left out stays; null takes a number away."""


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/limits", tags=["limits"], route_class=StrictRoute)

    @routes.post(
        "", summary="Put limits on a scope", status_code=201, response_model=LimitsView, responses=documented(409)
    )
    async def create(request: Request, asker: Asker, body: LimitsBody) -> Response:
        control.require_enforcing(None)
        scope = body.scope.compile()

        def work(tx: Connection) -> tuple[str, BaseModel]:
            require_settable(asker, budget_store.owner(tx, scope), scope)
            record = check_limits(budget_store.create_limits(tx, scope, body.compile(), asker.level))
            return record.id, limits_view(record)

        return await control.create(request, asker, "limits.create", work)

    @routes.get("", summary="List limits, oldest first", responses=documented())
    async def listed(
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        scope_kind: Annotated[ScopeKind | None, Query()] = None,
        scope_id: Filter = None,
    ) -> ListPage[LimitsView]:
        found = await control.read(
            lambda tx: budget_store.list_limits(tx, limit, after, asker.reach, scope_kind, scope_id)
        )
        views = [limits_view(record) for record in found.data]
        return ListPage[LimitsView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id}", summary="Show limits", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> LimitsView:  # noqa: A002 — the contract's name
        return await control.read(lambda tx: limits_view(budget_store.get_limits(tx, id, asker.reach)))

    @routes.patch("/{id}", summary="Change limits", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: LimitsChangeBody) -> LimitsView:  # noqa: A002 — the contract's name
        numbers = body.compile()

        def work(tx: Connection) -> LimitsView:
            return limits_view(check_limits(budget_store.change_limits(tx, id, numbers, asker.reach, asker.level)))

        return await control.change(
            asker,
            "limits.change",
            id,
            work,
            before=lambda tx: limits_view(budget_store.get_limits(tx, id, asker.reach)),
        )

    @routes.delete("/{id}", summary="Delete limits", responses=documented(404))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — the contract's name
        await control.delete(
            asker,
            "limits.delete",
            id,
            lambda tx: budget_store.delete_limits(tx, id, asker.reach, asker.level),
            before=lambda tx: limits_view(budget_store.get_limits(tx, id, asker.reach)),
        )
        return Deleted(id=id)

    return routes
