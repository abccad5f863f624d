"""`/admin/v1/users`: people of an organisation, and what they may do here when they log in."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin import rbac
from admin.rbac import Principal
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import Allowed, Id, Metadata, Title, given
from admin.rest.teams import named_org
from admin.rest.wire import After, Deleted, Filter, Identifier, Limit, ListPage, StrictRoute, at
from admin.roles import ROLES, UserRole
from gateway import org_store
from gateway.org_store import NewUser, OwnerChange, User
from gateway.settings import Section

Email = Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")]


class UserBody(Section):
    """`role` is what the person may do on this plane: `member` for nothing. A `team_admin` needs a team."""

    email: Email
    org_id: Id | None = None
    team_id: Id | None = None
    role: UserRole = "member"
    name: Title | None = None
    models: Allowed | None = None
    metadata: Metadata = None


class UserChangeBody(Section):
    """What is left out stays; null takes a value away. A blocked user has no login, and the user's keys are refused."""

    name: Title | None = None
    team_id: Id | None = None
    role: UserRole = "member"
    models: Allowed | None = None
    blocked: bool = False
    metadata: Metadata = None


class UserView(BaseModel):
    id: str
    org_id: str
    team_id: str | None
    email: str
    name: str | None
    role: UserRole
    models: list[str] | None
    blocked: bool
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/users", tags=["users"], route_class=StrictRoute)

    @routes.post("", summary="Make a user", status_code=201, response_model=UserView, responses=documented(409))
    async def create(request: Request, asker: Asker, body: UserBody) -> Response:
        org_id = named_org(asker, body.org_id)
        asker.require_grant(body.role)
        new = NewUser(org_id, body.email, body.role, body.team_id, body.name, body.models, body.metadata)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            user = org_store.create_user(tx, new)
            _check_role(user)
            return user.id, _view(user)

        return await control.create(request, asker, "user.create", work)

    @routes.get("", summary="List users, oldest first", responses=documented())
    async def listed(
        asker: Asker, limit: Limit = 100, after: After = None, org_id: Filter = None, team_id: Filter = None
    ) -> ListPage[UserView]:
        found = await control.read(lambda tx: org_store.list_users(tx, limit, after, asker.reach, org_id, team_id))
        views = [_view(user) for user in found.data]
        return ListPage[UserView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id}", summary="Show a user", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> UserView:  # noqa: A002 — the contract's name
        return _view(await control.read(lambda tx: org_store.get_user(tx, id, asker.reach)))

    @routes.patch("/{id}", summary="Change a user", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: UserChangeBody) -> UserView:  # noqa: A002 — the contract's name
        names = ("name", "team_id", "role", "models", "blocked", "metadata")
        changes = OwnerChange(**{name: given(body, name) for name in names})

        def work(tx: Connection) -> UserView:
            _require_above(asker, org_store.get_user(tx, id, asker.reach))
            user = org_store.change_user(tx, id, changes, asker.reach)
            asker.require_grant(user.role)
            _check_role(user)
            return _view(user)

        return await control.change(
            asker, "user.change", id, work, before=lambda tx: _view(org_store.get_user(tx, id, asker.reach))
        )

    @routes.delete("/{id}", summary="Delete a user without keys", responses=documented(404, 409))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — the contract's name
        def work(tx: Connection) -> None:
            _require_above(asker, org_store.get_user(tx, id, asker.reach))
            org_store.delete_user(tx, id, asker.reach)

        await control.delete(
            asker, "user.delete", id, work, before=lambda tx: _view(org_store.get_user(tx, id, asker.reach))
        )
        return Deleted(id=id)

    return routes


def _require_above(asker: Principal, user: User) -> None:
    """Who may not make such a user may not touch one either."""
    asker.require_grant(user.role)


def _check_role(user: User) -> None:
    """A role that needs a team has one. Raises BadRequest."""
    role = next((role for role in ROLES if role == user.role), None)
    if role is not None:
        rbac.principal("", role, user.org_id, user.team_id)


def _view(user: User) -> UserView:
    return UserView.model_validate(
        {
            "id": user.id,
            "org_id": user.org_id,
            "team_id": user.team_id,
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "models": None if user.models is None else list(user.models),
            "blocked": user.blocked,
            "metadata": user.metadata,
            "created_at": at(user.created_at),
            "updated_at": at(user.updated_at),
        }
    )
