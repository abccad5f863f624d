"""`/admin/v1/keys`: virtual keys. The secret is in the answer that makes or rotates a key, and nowhere else."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rbac import Principal
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import Allowed, Id, Metadata, Routes, Title, given, kept, stored
from admin.rest.scope_fields import (
    BudgetFields,
    BudgetView,
    LimitsFields,
    LimitsView,
    budget_view,
    check_limits,
    limits_view,
)
from admin.rest.wire import (
    After,
    Filter,
    Identifier,
    Instant,
    Limit,
    ListPage,
    StrictRoute,
    at,
    moment,
    unix,
)
from gateway import budget_store, key_store
from gateway.budget_store import BudgetChange
from gateway.key_store import KeyChange, KeyRecord, NewKey
from gateway.mcp.settings import RightsSpec
from gateway.reach import Reach
from gateway.scopes import Scope
from gateway.settings import Section

_CHANGES = ("name", "team_id", "user_id", "models", "routes", "blocked", "metadata")


class KeyBody(Section):
    """`models` lists what the key may use, `gpt-*` for every name with that start; `routes` the same by path.

    The organisation follows from the team or the user. `budget` and `limits` are made with the key and stand on it.
    """

    name: Title
    org_id: Id | None = None
    team_id: Id | None = None
    user_id: Id | None = None
    models: Allowed | None = None
    routes: Routes | None = None
    expires_at: Instant | None = None
    metadata: Metadata = None
    mcp: RightsSpec | None = None
    budget: BudgetFields | None = None
    limits: LimitsFields | None = None


class KeyChangeBody(Section):
    """What is left out stays; null takes a value away. `budget` and `limits` change those made with the key, or make them."""

    name: Title = ""
    team_id: Id | None = None
    user_id: Id | None = None
    models: Allowed | None = None
    routes: Routes | None = None
    blocked: bool = False
    expires_at: Instant | None = None
    metadata: Metadata = None
    mcp: RightsSpec | None = None
    budget: BudgetFields | None = None
    limits: LimitsFields | None = None


class RotateBody(Section):
    """How long the secrets that the key had until now still work."""

    grace_s: Annotated[float, Field(ge=0, le=31 * 86_400)] = 86_400


class KeyView(BaseModel):
    """A key without its secret; `hint` shows its last four characters. `budget` and `limits`: the oldest on the key."""

    id: str
    name: str
    hint: str
    org_id: str | None
    team_id: str | None
    user_id: str | None
    models: list[str] | None
    routes: list[str] | None
    blocked: bool
    expires_at: datetime | None
    revoked_at: datetime | None
    metadata: dict[str, Any] | None
    mcp: RightsSpec | None
    budget: BudgetView | None
    limits: LimitsView | None
    created_at: datetime
    updated_at: datetime


class KeyCreated(KeyView):
    key: str = Field(description="The secret. It is shown this once and cannot be read again.")


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictRoute)

    @routes.post("", summary="Make a key", status_code=201, response_model=KeyCreated, responses=documented(409))
    async def create(request: Request, asker: Asker, body: KeyBody) -> Response:
        _require_enforcing(control, body)
        new = _new(asker, body)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record, secret = key_store.create(tx, new)
            asker.require_reach(record.org_id, record.team_id)
            _set_money(tx, asker, record, body)
            return record.id, KeyCreated(**_shown(tx, record).model_dump(), key=secret)

        return await control.create(request, asker, "key.create", work)

    @routes.get("", summary="List keys, oldest first", responses=documented())
    async def listed(
        *,
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        org_id: Filter = None,
        team_id: Filter = None,
        user_id: Filter = None,
    ) -> ListPage[KeyView]:
        def work(tx: Connection) -> tuple[list[KeyView], str | None]:
            found = key_store.listed(tx, limit, after, asker.reach, Reach(org_id, team_id), user_id)
            return _views(tx, found.data), found.next

        views, following = await control.read(work)
        return ListPage[KeyView](data=views, has_more=following is not None, next=following)

    @routes.get("/{id}", summary="Show a key", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> KeyView:  # noqa: A002 — the contract's name
        return await control.read(lambda tx: _shown(tx, key_store.get(tx, id, asker.reach)))

    @routes.patch("/{id}", summary="Change a key", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: KeyChangeBody) -> KeyView:  # noqa: A002 — the contract's name
        _require_enforcing(control, body)
        values = {name: given(body, name) for name in _CHANGES}
        values["mcp"] = stored(given(body, "mcp"))
        if "expires_at" in body.model_fields_set:
            values["expires_at"] = unix(body.expires_at)
        changes = KeyChange(**values)

        def work(tx: Connection) -> KeyView:
            record = key_store.change(tx, id, changes, asker.reach)
            asker.require_reach(record.org_id, record.team_id)
            _set_money(tx, asker, record, body)
            return _shown(tx, record)

        return await control.change(
            asker, "key.change", id, work, before=lambda tx: _shown(tx, key_store.get(tx, id, asker.reach))
        )

    @routes.delete("/{id}", summary="Revoke a key for good", responses=documented(404))
    @routes.post("/{id}/revoke", summary="Revoke a key for good", responses=documented(404))
    async def revoke(id: Identifier, asker: Asker) -> KeyView:  # noqa: A002 — the contract's name
        return await control.change(
            asker,
            "key.revoke",
            id,
            lambda tx: _shown(tx, key_store.revoke(tx, id, asker.reach)),
            before=lambda tx: _shown(tx, key_store.get(tx, id, asker.reach)),
        )

    @routes.post(
        "/{id}/rotate",
        summary="Give a key a new secret",
        status_code=201,
        response_model=KeyCreated,
        responses=documented(404, 409),
    )
    async def rotate(request: Request, id: Identifier, asker: Asker, body: RotateBody) -> Response:  # noqa: A002 — the contract's name
        def work(tx: Connection) -> tuple[str, BaseModel]:
            record, secret = key_store.rotate(tx, id, body.grace_s, asker.reach)
            return id, KeyCreated(**_shown(tx, record).model_dump(), key=secret)

        return await control.create(
            request,
            asker,
            "key.rotate",
            work,
            before=lambda tx: _shown(tx, key_store.get(tx, id, asker.reach)),
        )

    return routes


def _require_enforcing(control: Control, body: KeyBody | KeyChangeBody) -> None:
    for param in ("budget", "limits"):
        if getattr(body, param) is not None:
            control.require_enforcing(param)


def _new(asker: Principal, body: KeyBody) -> NewKey:
    """Whose the key is goes without saying for who administers one organisation or team."""
    return NewKey(
        name=body.name,
        org_id=body.org_id or asker.org_id,
        team_id=body.team_id or asker.team_id,
        user_id=body.user_id,
        models=body.models,
        routes=body.routes,
        expires_at=unix(body.expires_at),
        metadata=body.metadata,
        mcp=kept(body.mcp),
    )


def _set_money(tx: Connection, asker: Principal, record: KeyRecord, body: KeyBody | KeyChangeBody) -> None:
    """The budget and the limits that a body names on its key: made, changed or, by null, deleted."""
    named = body.model_fields_set & {"budget", "limits"}
    if not named:
        return
    scope = Scope("key", record.id)
    budgets, limits = budget_store.first_on_keys(tx, [record.id])
    budget, numbers = budgets.get(record.id), limits.get(record.id)
    if body.budget is not None:
        new = body.budget.compile(scope)
        if budget is None:
            budget_store.create_budget(tx, new, asker.level)
        else:
            changes = {name: value for name, value in msgspec.structs.asdict(new).items() if name != "scope"}
            budget_store.change_budget(tx, budget.id, BudgetChange(**changes), level=asker.level)
    elif "budget" in named and budget is not None:
        budget_store.delete_budget(tx, budget.id, level=asker.level)
    if body.limits is not None:
        if numbers is None:
            check_limits(budget_store.create_limits(tx, scope, body.limits.compile(), asker.level))
        else:
            check_limits(budget_store.change_limits(tx, numbers.id, body.limits.compile(), level=asker.level))
    elif "limits" in named and numbers is not None:
        budget_store.delete_limits(tx, numbers.id, level=asker.level)


def _shown(tx: Connection, record: KeyRecord) -> KeyView:
    return _views(tx, [record])[0]


def _views(tx: Connection, records: Sequence[KeyRecord]) -> list[KeyView]:
    budgets, limits = budget_store.first_on_keys(tx, [record.id for record in records])
    found: list[KeyView] = []
    for record in records:
        budget, numbers = budgets.get(record.id), limits.get(record.id)
        found.append(
            KeyView(
                **{name: getattr(record, name) for name in _SAME},
                models=None if record.models is None else list(record.models),
                routes=None if record.routes is None else list(record.routes),
                expires_at=moment(record.expires_at),
                revoked_at=moment(record.revoked_at),
                metadata=None if record.metadata is None else dict(record.metadata),
                mcp=None if record.mcp is None else RightsSpec.model_validate(record.mcp),
                budget=None if budget is None else budget_view(budget),
                limits=None if numbers is None else limits_view(numbers),
                created_at=at(record.created_at),
                updated_at=at(record.updated_at),
            )
        )
    return found


_SAME = ("id", "name", "hint", "org_id", "team_id", "user_id", "blocked")
