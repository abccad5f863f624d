"""The table of admin tokens: for machines that administer with less than the admin key. Only hashes are kept."""

import secrets
import time
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from admin.rbac import Principal, principal
from admin.roles import Role
from admin.tables import tokens
from gateway import keys, org_store
from gateway.errors import NotFound
from gateway.ids import new_id
from gateway.paging import Page, page
from gateway.reach import EVERYTHING, Reach

PREFIX = "sk-pa-"


class NewToken(msgspec.Struct, frozen=True):
    name: str
    role: Role
    org_id: str | None = None
    team_id: str | None = None
    expires_at: float | None = None


class TokenRecord(msgspec.Struct, frozen=True):
    id: str
    name: str
    hint: str
    role: Role
    org_id: str | None
    team_id: str | None
    expires_at: float | None
    revoked_at: float | None
    created_at: float


def create(tx: Connection, new: NewToken) -> tuple[TokenRecord, str]:
    """The token and its secret, which is not kept. Raises BadRequest for a role without its organisation or team."""
    org_id = org_store.owners(tx, new.org_id, new.team_id, None)
    holder = principal("", new.role, org_id, new.team_id)
    secret, id_ = PREFIX + secrets.token_urlsafe(32), new_id("tok")
    tx.execute(
        insert(tokens).values(
            id=id_,
            digest=keys.digest(secret.encode()),
            hint=f"{PREFIX}…{secret[-4:]}",
            name=new.name,
            role=holder.role,
            org_id=holder.org_id,
            team_id=holder.team_id,
            expires_at=new.expires_at,
            created_at=time.time(),
        )
    )
    return get(tx, id_), secret


def get(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> TokenRecord:
    """Raises NotFound, also for one that is out of reach."""
    row = tx.execute(select(tokens).where(tokens.c.id == id_, reach.rows(tokens))).one_or_none()
    if row is None:
        raise NotFound(f"There is no token {id_!r}.", param="id", code="token_not_found")
    return _record(row)


def listed(tx: Connection, limit: int, after: str | None = None, reach: Reach = EVERYTHING) -> Page[TokenRecord]:
    """Oldest first; revoked tokens are among them."""
    query = select(tokens).where(reach.rows(tokens)).order_by(tokens.c.id).limit(limit + 1)
    found = [_record(row) for row in tx.execute(query if after is None else query.where(tokens.c.id > after))]
    return page(found, limit, [each.id for each in found])


def revoke(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> TokenRecord:
    """For good. Raises NotFound; revoking again changes nothing."""
    if get(tx, id_, reach).revoked_at is None:
        tx.execute(update(tokens).where(tokens.c.id == id_).values(revoked_at=time.time()))
    return get(tx, id_)


def holder(tx: Connection, secret: bytes) -> Principal | None:
    """Whose a secret is, unless it is unknown, revoked or expired."""
    row = tx.execute(select(tokens).where(tokens.c.digest == keys.digest(secret))).one_or_none()
    if row is None or row.revoked_at is not None:
        return None
    if row.expires_at is not None and row.expires_at <= time.time():
        return None
    return Principal(f"token {row.id}", row.role, row.org_id, row.team_id)


def _record(row: Row[Any]) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        name=row.name,
        hint=row.hint,
        role=row.role,
        org_id=row.org_id,
        team_id=row.team_id,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        created_at=row.created_at,
    )
