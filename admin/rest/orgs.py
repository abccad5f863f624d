"""`/admin/v1/orgs`: organisations, the tenants of this installation."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import Allowed, Metadata, Title, given
from admin.rest.wire import After, Deleted, Identifier, Limit, ListPage, StrictRoute, at
from gateway import org_store
from gateway.org_store import NewOrg, Org, OwnerChange
from gateway.settings import Section


class OrgBody(Section):
    """`models` lists what keys of the organisation may use at most; without it, everything."""

    name: Title
    models: Allowed | None = None
    metadata: Metadata = None


class OrgChangeBody(Section):
    """What is left out stays; null takes a value away. A blocked organisation's keys are refused."""

    name: Title = ""
    models: Allowed | None = None
    blocked: bool = False
    metadata: Metadata = None


class OrgView(BaseModel):
    id: str
    name: str
    models: list[str] | None
    blocked: bool
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/orgs", tags=["orgs"], route_class=StrictRoute)

    @routes.post("", summary="Make an organisation", status_code=201, response_model=OrgView, responses=documented(409))
    async def create(request: Request, asker: Asker, body: OrgBody) -> Response:
        def work(tx: Connection) -> tuple[str, BaseModel]:
            org = org_store.create_org(tx, NewOrg(body.name, body.models, body.metadata))
            return org.id, _view(org)

        return await control.create(request, asker, "org.create", work)

    @routes.get("", summary="List organisations, oldest first", responses=documented())
    async def listed(asker: Asker, limit: Limit = 100, after: After = None) -> ListPage[OrgView]:
        found = await control.read(lambda tx: org_store.list_orgs(tx, limit, after, asker.reach))
        return ListPage[OrgView](
            data=[_view(org) for org in found.data], has_more=found.next is not None, next=found.next
        )

    @routes.get("/{id}", summary="Show an organisation", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> OrgView:  # noqa: A002 — the contract's name
        return _view(await control.read(lambda tx: org_store.get_org(tx, id, asker.reach)))

    @routes.patch("/{id}", summary="Change an organisation", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: OrgChangeBody) -> OrgView:  # noqa: A002 — the contract's name
        changes = OwnerChange(**{name: given(body, name) for name in ("name", "models", "blocked", "metadata")})
        return await control.change(
            asker,
            "org.change",
            id,
            lambda tx: _view(org_store.change_org(tx, id, changes)),
            before=lambda tx: _view(org_store.get_org(tx, id)),
        )

    @routes.delete("/{id}", summary="Delete an organisation that has nothing below it", responses=documented(404, 409))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — the contract's name
        await control.delete(
            asker,
            "org.delete",
            id,
            lambda tx: org_store.delete_org(tx, id),
            before=lambda tx: _view(org_store.get_org(tx, id)),
        )
        return Deleted(id=id)

    return routes


def _view(org: Org) -> OrgView:
    return OrgView(
        id=org.id,
        name=org.name,
        models=None if org.models is None else list(org.models),
        blocked=org.blocked,
        metadata=None if org.metadata is None else dict(org.metadata),
        created_at=at(org.created_at),
        updated_at=at(org.updated_at),
    )
