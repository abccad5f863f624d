"""`/admin/v1/tokens`: admin tokens, for machines that administer less than everything."""

from datetime import datetime

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin import token_store
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import Id, Title
from admin.rest.wire import After, Identifier, Instant, Limit, ListPage, StrictRoute, at, moment, unix
from admin.roles import Role
from admin.token_store import NewToken, TokenRecord
from gateway.settings import Section


class TokenBody(Section):
    """A role below `platform_…` needs `org_id`, a `team_admin` needs `team_id`. An org admin's own organisation goes without saying."""

    name: Title
    role: Role
    org_id: Id | None = None
    team_id: Id | None = None
    expires_at: Instant | None = None


class TokenView(BaseModel):
    """A token without its secret; `hint` shows its last four characters."""

    id: str
    name: str
    hint: str
    role: Role
    org_id: str | None
    team_id: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class TokenCreated(TokenView):
    key: str = Field(description="The secret. It is shown this once and cannot be read again.")


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/tokens", tags=["tokens"], route_class=StrictRoute)

    @routes.post(
        "", summary="Make an admin token", status_code=201, response_model=TokenCreated, responses=documented(409)
    )
    async def create(request: Request, asker: Asker, body: TokenBody) -> Response:
        asker.require_grant(body.role)
        new = NewToken(body.name, body.role, body.org_id or asker.org_id, body.team_id, unix(body.expires_at))

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record, secret = token_store.create(tx, new)
            asker.require_reach(record.org_id, record.team_id)
            return record.id, TokenCreated(**_view(record).model_dump(), key=secret)

        return await control.create(request, asker, "token.create", work)

    @routes.get("", summary="List admin tokens, oldest first", responses=documented())
    async def listed(asker: Asker, limit: Limit = 100, after: After = None) -> ListPage[TokenView]:
        found = await control.read(lambda tx: token_store.listed(tx, limit, after, asker.reach))
        views = [_view(token) for token in found.data]
        return ListPage[TokenView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id}", summary="Show an admin token", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> TokenView:  # noqa: A002 — the contract's name
        return _view(await control.read(lambda tx: token_store.get(tx, id, asker.reach)))

    @routes.delete("/{id}", summary="Revoke an admin token for good", responses=documented(404))
    async def revoke(id: Identifier, asker: Asker) -> TokenView:  # noqa: A002 — the contract's name
        return await control.change(
            asker,
            "token.revoke",
            id,
            lambda tx: _view(token_store.revoke(tx, id, asker.reach)),
            before=lambda tx: _view(token_store.get(tx, id, asker.reach)),
        )

    return routes


def _view(record: TokenRecord) -> TokenView:
    times = {
        "expires_at": moment(record.expires_at),
        "revoked_at": moment(record.revoked_at),
        "created_at": at(record.created_at),
    }
    return TokenView(**msgspec.structs.asdict(record) | times)
