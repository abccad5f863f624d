"""`/admin/v1/teams`: teams of an organisation. A team stays in the organisation that it was made in."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rbac import Principal
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.fields import Allowed, Id, Metadata, Title, given, kept, stored
from admin.rest.wire import After, Deleted, Filter, Identifier, Limit, ListPage, StrictRoute, at
from gateway import org_store
from gateway.errors import BadRequest
from gateway.mcp.settings import RightsSpec
from gateway.org_store import NewTeam, OwnerChange, Team
from gateway.settings import Section


class TeamBody(Section):
    """`org_id` may be left out by who administers one. `models` lists what its keys may use at most."""

    name: Title
    org_id: Id | None = None
    models: Allowed | None = None
    metadata: Metadata = None
    mcp: RightsSpec | None = None


class TeamChangeBody(Section):
    """What is left out stays; null takes a value away. A blocked team's keys are refused."""

    name: Title = ""
    models: Allowed | None = None
    blocked: bool = False
    metadata: Metadata = None
    mcp: RightsSpec | None = None


class TeamView(BaseModel):
    id: str
    org_id: str
    name: str
    models: list[str] | None
    blocked: bool
    metadata: dict[str, Any] | None
    mcp: RightsSpec | None
    created_at: datetime
    updated_at: datetime


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/teams", tags=["teams"], route_class=StrictRoute)

    @routes.post("", summary="Make a team", status_code=201, response_model=TeamView, responses=documented(409))
    async def create(request: Request, asker: Asker, body: TeamBody) -> Response:
        org_id = named_org(asker, body.org_id)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            team = org_store.create_team(tx, NewTeam(org_id, body.name, body.models, body.metadata, kept(body.mcp)))
            return team.id, _view(team)

        return await control.create(request, asker, "team.create", work)

    @routes.get("", summary="List teams, oldest first", responses=documented())
    async def listed(
        asker: Asker, limit: Limit = 100, after: After = None, org_id: Filter = None
    ) -> ListPage[TeamView]:
        found = await control.read(lambda tx: org_store.list_teams(tx, limit, after, asker.reach, org_id))
        views = [_view(team) for team in found.data]
        return ListPage[TeamView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id}", summary="Show a team", responses=documented(404))
    async def show(id: Identifier, asker: Asker) -> TeamView:  # noqa: A002 — the contract's name
        return _view(await control.read(lambda tx: org_store.get_team(tx, id, asker.reach)))

    @routes.patch("/{id}", summary="Change a team", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: TeamChangeBody) -> TeamView:  # noqa: A002 — the contract's name
        named = {name: given(body, name) for name in ("name", "models", "blocked", "metadata")}
        changes = OwnerChange(**named, mcp=stored(given(body, "mcp")))
        return await control.change(
            asker,
            "team.change",
            id,
            lambda tx: _view(org_store.change_team(tx, id, changes, asker.reach)),
            before=lambda tx: _view(org_store.get_team(tx, id, asker.reach)),
        )

    @routes.delete("/{id}", summary="Delete a team without users and keys", responses=documented(404, 409))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — the contract's name
        await control.delete(
            asker,
            "team.delete",
            id,
            lambda tx: org_store.delete_team(tx, id, asker.reach),
            before=lambda tx: _view(org_store.get_team(tx, id, asker.reach)),
        )
        return Deleted(id=id)

    return routes


def named_org(asker: Principal, org_id: str | None) -> str:
    """The organisation that something is made in: the asker's own unless named. Raises BadRequest, AccessDenied."""
    found = org_id or asker.org_id
    if found is None:
        raise BadRequest("org_id: say which organisation.", param="org_id", code="missing_required_parameter")
    asker.require_reach(found, asker.team_id)
    return found


def _view(team: Team) -> TeamView:
    return TeamView(
        id=team.id,
        org_id=team.org_id,
        name=team.name,
        models=None if team.models is None else list(team.models),
        blocked=team.blocked,
        metadata=None if team.metadata is None else dict(team.metadata),
        mcp=None if team.mcp is None else RightsSpec.model_validate(team.mcp),
        created_at=at(team.created_at),
        updated_at=at(team.updated_at),
    )
