"""`/admin/v1/audit`: who changed what, newest first; and `/admin/v1/me`: who asks."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from admin import audit
from admin.audit import Entry
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Filter, Limit, ListPage, StrictRoute, at
from admin.roles import Role


class AuditView(BaseModel):
    """`before` and `after` hold the fields that differ; where an object was made or deleted, one of them is null."""

    id: str
    at: datetime
    actor: Annotated[str, Field(description="`admin key`, `token tok_…` or `user ada@example.com`.")]
    action: str
    subject: str
    org_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class MeView(BaseModel):
    actor: str
    role: Role
    org_id: str | None
    team_id: str | None


def router(control: Control) -> APIRouter:
    routes = APIRouter(tags=["audit"], route_class=StrictRoute)

    @routes.get("/audit", summary="List changes, newest first", responses=documented())
    async def listed(
        *,
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        actor: Filter = None,
        action: Filter = None,
        subject: Filter = None,
    ) -> ListPage[AuditView]:
        only = audit.Filter(actor, action, subject)
        found = await control.read(lambda tx: audit.listed(tx, limit, after, only, asker.reach))
        views = [_view(entry) for entry in found.data]
        return ListPage[AuditView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/me", summary="Show who asks", responses=documented())
    async def me(asker: Asker) -> MeView:
        return MeView(actor=asker.actor, role=asker.role, org_id=asker.org_id, team_id=asker.team_id)

    return routes


def _view(entry: Entry) -> AuditView:
    return AuditView(
        id=entry.id,
        at=at(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        org_id=entry.org_id,
        before=None if entry.before is None else dict(entry.before),
        after=None if entry.after is None else dict(entry.after),
    )
