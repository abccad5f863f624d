"""Who changed what, when, from what to what: written in the transaction of the change itself. Nobody edits it."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, insert, select, true

from admin.tables import audit
from gateway.ids import new_id
from gateway.paging import Page, page
from gateway.reach import EVERYTHING, Reach

ADMIN_KEY = "admin key"
SILENT = frozenset({"updated_at", "key"})  # changes with every change; and the one secret that an answer can hold

State = Mapping[str, Any]  # an object as it is shown over REST, in JSON's types


class Entry(msgspec.Struct, frozen=True):
    """`before` and `after` hold the fields that differ; one of them is missing where an object was made or deleted."""

    id: str
    at: float
    actor: str
    action: str
    subject: str
    org_id: str | None
    before: State | None
    after: State | None


class Filter(msgspec.Struct, frozen=True):
    actor: str | None = None
    action: str | None = None
    subject: str | None = None


EVERY_ENTRY = Filter()


def record(
    tx: Connection,
    action: str,
    subject: str,
    *,
    actor: str = ADMIN_KEY,
    org_id: str | None = None,
    before: State | None = None,
    after: State | None = None,
) -> None:
    """For instance `key.create` of `key_018f…`. Of two states only what differs is kept, and never a secret."""
    tx.execute(
        insert(audit).values(
            id=new_id("audit"),
            at=time.time(),
            actor=actor,
            action=action,
            subject=subject,
            org_id=org_id,
            before=_differing(before, after),
            after=_differing(after, before),
        )
    )


def listed(
    tx: Connection, limit: int, after: str | None = None, only: Filter = EVERY_ENTRY, reach: Reach = EVERYTHING
) -> Page[Entry]:
    """Newest first."""
    wanted = [audit.c[name] == value for name, value in msgspec.structs.asdict(only).items() if value is not None]
    if reach.org_id is not None:
        wanted.append(audit.c.org_id == reach.org_id)
    found = entries(tx, and_(true(), *wanted), limit, after)
    return page(found, limit, [each.id for each in found])


def entries(tx: Connection, wanted: ColumnElement[bool], limit: int, after: str | None = None) -> list[Entry]:
    """Newest first, one more than `limit` if there are more."""
    query = select(audit).where(wanted).order_by(audit.c.id.desc()).limit(limit + 1)
    return [_entry(row) for row in tx.execute(query if after is None else query.where(audit.c.id < after))]


def _differing(state: State | None, other: State | None) -> State | None:
    if state is None:
        return None
    shown = {name: value for name, value in state.items() if name not in SILENT}
    if other is None:
        return shown
    return {name: value for name, value in shown.items() if name not in other or other[name] != value}


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        org_id=row.org_id,
        before=row.before,
        after=row.after,
    )
