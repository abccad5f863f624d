"""The tables of organisations, teams and users: who keys belong to. Every function takes its transaction.

An organisation has teams and users, a team has users; neither moves to another organisation. What still has something below
it is not deleted: that would leave keys without anyone to pay for them.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from gateway import budget_store
from gateway.database import record_revision
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.ids import new_id
from gateway.paging import Page, page
from gateway.reach import EVERYTHING, Reach
from gateway.tables import keys, orgs, teams, users

Kind = Literal["org", "team", "user"]
R = TypeVar("R", "Org", "Team", "User")


class NewOrg(msgspec.Struct, frozen=True):
    """`models` None admits every model, here and below."""

    name: str
    models: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None


class NewTeam(msgspec.Struct, frozen=True):
    org_id: str
    name: str
    models: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    mcp: Mapping[str, Any] | None = None


class NewUser(msgspec.Struct, frozen=True):
    """`email` is compared in lower case; `role` is what the person may do on the admin plane, `member` for nothing."""

    org_id: str
    email: str
    role: str = "member"
    team_id: str | None = None
    name: str | None = None
    models: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None


class OwnerChange(msgspec.Struct, frozen=True):
    """What to change in an organisation, a team or a user: UNSET leaves a value as it is, None clears it."""

    name: str | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    blocked: bool | UnsetType = UNSET
    metadata: Mapping[str, Any] | UnsetType | None = UNSET
    mcp: Mapping[str, Any] | UnsetType | None = UNSET  # teams alone
    role: str | UnsetType = UNSET  # users alone, as is the team
    team_id: str | UnsetType | None = UNSET


class Org(msgspec.Struct, frozen=True):
    id: str
    name: str
    models: tuple[str, ...] | None
    blocked: bool
    metadata: Mapping[str, Any] | None
    created_at: float
    updated_at: float


class Team(msgspec.Struct, frozen=True):
    id: str
    org_id: str
    name: str
    models: tuple[str, ...] | None
    blocked: bool
    metadata: Mapping[str, Any] | None
    mcp: Mapping[str, Any] | None
    created_at: float
    updated_at: float


class User(msgspec.Struct, frozen=True):
    id: str
    org_id: str
    team_id: str | None
    email: str
    name: str | None
    role: str
    models: tuple[str, ...] | None
    blocked: bool
    metadata: Mapping[str, Any] | None
    created_at: float
    updated_at: float


def create_org(tx: Connection, new: NewOrg) -> Org:
    id_ = new_id("org")
    _insert(tx, orgs, id_, msgspec.structs.asdict(new))
    return get_org(tx, id_)


def create_team(tx: Connection, new: NewTeam) -> Team:
    """Raises BadRequest for an unknown organisation."""
    _named(tx, orgs, "org", new.org_id)
    id_ = new_id("team")
    _insert(tx, teams, id_, msgspec.structs.asdict(new))
    return get_team(tx, id_)


def create_user(tx: Connection, new: NewUser) -> User:
    """Raises BadRequest for an unknown organisation or team, Conflict for an address that is taken."""
    _named(tx, orgs, "org", new.org_id)
    _check_team(tx, new.team_id, new.org_id)
    email = new.email.lower()
    if tx.scalar(select(users.c.id).where(users.c.email == email)) is not None:
        raise Conflict("There is a user with this email already.", param="email")
    id_ = new_id("user")
    _insert(tx, users, id_, {**msgspec.structs.asdict(new), "email": email})
    return get_user(tx, id_)


def get_org(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> Org:
    """Raises NotFound, also for one that is out of reach."""
    return _record(Org, _get(tx, orgs, "org", id_, reach.rows(orgs, org="id", team="id")))


def get_team(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> Team:
    """Raises NotFound, also for one that is out of reach."""
    return _record(Team, _get(tx, teams, "team", id_, reach.rows(teams, team="id")))


def get_user(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> User:
    """Raises NotFound, also for one that is out of reach."""
    return _record(User, _get(tx, users, "user", id_, reach.rows(users)))


def user_by_email(tx: Connection, email: str) -> User | None:
    row = tx.execute(select(users).where(users.c.email == email.lower())).one_or_none()
    return None if row is None else _record(User, row)


def list_orgs(tx: Connection, limit: int, after: str | None, reach: Reach = EVERYTHING) -> Page[Org]:
    """Oldest first."""
    found = [_record(Org, row) for row in _listed(tx, orgs, limit, after, reach.rows(orgs, org="id", team="id"))]
    return page(found, limit, [each.id for each in found])


def list_teams(
    tx: Connection, limit: int, after: str | None, reach: Reach = EVERYTHING, org_id: str | None = None
) -> Page[Team]:
    """Oldest first."""
    which = reach.rows(teams, team="id") & Reach(org_id).rows(teams)
    found = [_record(Team, row) for row in _listed(tx, teams, limit, after, which)]
    return page(found, limit, [each.id for each in found])


def list_users(
    tx: Connection,
    limit: int,
    after: str | None,
    reach: Reach = EVERYTHING,
    org_id: str | None = None,
    team_id: str | None = None,
) -> Page[User]:
    """Oldest first."""
    which = reach.rows(users) & Reach(org_id, team_id).rows(users)
    found = [_record(User, row) for row in _listed(tx, users, limit, after, which)]
    return page(found, limit, [each.id for each in found])


def change_org(tx: Connection, id_: str, change: OwnerChange, reach: Reach = EVERYTHING) -> Org:
    """Raises NotFound."""
    get_org(tx, id_, reach)
    _update(tx, orgs, "org", id_, change)
    return get_org(tx, id_)


def change_team(tx: Connection, id_: str, change: OwnerChange, reach: Reach = EVERYTHING) -> Team:
    """Raises NotFound."""
    get_team(tx, id_, reach)
    _update(tx, teams, "team", id_, change)
    return get_team(tx, id_)


def change_user(tx: Connection, id_: str, change: OwnerChange, reach: Reach = EVERYTHING) -> User:
    """Raises NotFound, and BadRequest for an unknown team."""
    user = get_user(tx, id_, reach)
    if change.team_id is not UNSET:
        _check_team(tx, change.team_id, user.org_id)
        budget_store.move(tx, "user", id_, user.org_id, change.team_id)
    _update(tx, users, "user", id_, change)
    return get_user(tx, id_)


def delete_org(tx: Connection, id_: str) -> None:
    """With its own budgets and limits. Raises NotFound, and Conflict while it has teams, users or keys that are not revoked."""
    get_org(tx, id_)
    _refuse_while(tx, f"organisation {id_}", "teams", teams, teams.c.org_id == id_)
    _refuse_while(tx, f"organisation {id_}", "users", users, users.c.org_id == id_)
    _refuse_while(tx, f"organisation {id_}", "keys", keys, (keys.c.org_id == id_) & keys.c.revoked_at.is_(None))
    _delete(tx, orgs, "org", id_)


def delete_team(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> None:
    """With its own budgets and limits. Raises NotFound, and Conflict while it has users or keys that are not revoked."""
    get_team(tx, id_, reach)
    _refuse_while(tx, f"team {id_}", "users", users, users.c.team_id == id_)
    _refuse_while(tx, f"team {id_}", "keys", keys, (keys.c.team_id == id_) & keys.c.revoked_at.is_(None))
    _delete(tx, teams, "team", id_)


def delete_user(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> None:
    """With its own budgets and limits. Raises NotFound, and Conflict while it has keys that are not revoked."""
    get_user(tx, id_, reach)
    _refuse_while(tx, f"user {id_}", "keys", keys, (keys.c.user_id == id_) & keys.c.revoked_at.is_(None))
    _delete(tx, users, "user", id_)


def owners(tx: Connection, org_id: str | None, team_id: str | None, user_id: str | None) -> str | None:
    """The organisation of a key that names these. Raises BadRequest where one is unknown or of another organisation."""
    if org_id is not None:
        _named(tx, orgs, "org", org_id)
    for kind, table, id_ in (("team", teams, team_id), ("user", users, user_id)):
        if id_ is not None:
            above = _named(tx, table, kind, id_).org_id
            if org_id is not None and above != org_id:
                raise BadRequest(f"The {kind} {id_!r} is of another organisation.", param=f"{kind}_id")
            org_id = above
    return org_id


def _check_team(tx: Connection, team_id: str | None, org_id: str) -> None:
    if team_id is not None:
        owners(tx, org_id, team_id, None)


def _named(tx: Connection, table: Table, kind: str, id_: str) -> Row[Any]:
    """What a body refers to: where it is missing, the body is wrong."""
    row = tx.execute(select(table).where(table.c.id == id_)).one_or_none()
    if row is None:
        raise BadRequest(f"There is no {kind} {id_!r}.", param=f"{kind}_id", code=f"{kind}_not_found")
    return row


def _get(tx: Connection, table: Table, kind: Kind, id_: str, which: ColumnElement[bool]) -> Row[Any]:
    row = tx.execute(select(table).where(table.c.id == id_, which)).one_or_none()
    if row is None:
        raise NotFound(f"There is no {kind} {id_!r}.", param="id", code=f"{kind}_not_found")
    return row


def _listed(tx: Connection, table: Table, limit: int, after: str | None, which: ColumnElement[bool]) -> list[Row[Any]]:
    query = select(table).where(which).order_by(table.c.id).limit(limit + 1)
    return list(tx.execute(query if after is None else query.where(table.c.id > after)))


def _insert(tx: Connection, table: Table, id_: str, values: Mapping[str, Any]) -> None:
    now = time.time()
    tx.execute(insert(table).values(**values, id=id_, created_at=now, updated_at=now))


def _update(tx: Connection, table: Table, kind: Kind, id_: str, change: OwnerChange) -> None:
    values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    if not values:
        return
    tx.execute(update(table).where(table.c.id == id_).values(**values, updated_at=time.time()))
    if values.keys() & {"models", "blocked", "mcp"}:  # the keys below are compiled with these
        revision = record_revision(tx, f"{kind} {id_} changed")
        tx.execute(update(keys).where(keys.c[f"{kind}_id"] == id_).values(revision=revision))


def _delete(tx: Connection, table: Table, kind: Kind, id_: str) -> None:
    budget_store.delete_scope(tx, kind, id_)
    tx.execute(delete(table).where(table.c.id == id_))


def _refuse_while(tx: Connection, subject: str, what: str, table: Table, which: ColumnElement[bool]) -> None:
    count = tx.scalar(select(func.count()).select_from(table).where(which))
    if count:
        raise Conflict(f"The {subject} still has {what} ({count}): delete or revoke them first.", code="not_empty")


def _record(kind: type[R], row: Row[Any]) -> R:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for a row as a mapping
    return kind(**{**values, "models": None if values["models"] is None else tuple(values["models"])})
