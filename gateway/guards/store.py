"""The table of guards. Every function takes the transaction it works in.

As models: the file seeds it (`gateway.seeding`), REST changes it, and from then on the database is the truth.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import Conflict, NotFound
from gateway.guards.policy import BROKEN, Guard, Where
from gateway.guards.sealing import sealed
from gateway.guards.settings import GuardSpec
from gateway.paging import Page, page
from gateway.secret_box import SecretBox
from gateway.tables import guards as table
from gateway.tables import teams

Spec = Mapping[str, Any]
REST: Final = "rest"
USUAL_ORDER: Final = 100
_COMMON: Final = frozenset({
    "name", "kind", "order", "stage", "action", "on_error", "timeout_s", "dry_run", "enabled", "default", "keys", "teams", "models",
})  # fmt: skip


class GuardRecord(msgspec.Struct, frozen=True):
    """`spec` is a GuardSpec's JSON with sealed values or references, never a secret in clear."""

    name: str
    spec: Spec
    origin: str
    edited: bool
    created_at: float
    updated_at: float


def create(tx: Connection, spec: GuardSpec, box: SecretBox) -> GuardRecord:
    """Behind all others, or in the place of a deleted one of that name. Raises Conflict when the name is taken."""
    if tx.execute(select(table.c.name).where(_alive(spec.name))).one_or_none() is not None:
        raise Conflict(f"guard {spec.name!r} exists already: change it with PATCH, or delete it.", param="name")
    now = time.time()
    values = {"spec": guard_json(spec, box), "origin": REST, "edited": True, "deleted_at": None}
    values |= {"created_at": now, "updated_at": now}
    if tx.execute(update(table).where(table.c.name == spec.name).values(**values)).rowcount == 0:
        tx.execute(insert(table).values(name=spec.name, **values))
    record_revision(tx, f"guard {spec.name} created")
    return get(tx, spec.name)


def get(tx: Connection, name: str) -> GuardRecord:
    """Raises NotFound."""
    row = tx.execute(select(table).where(_alive(name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no guard {name!r}.", param="name", code="guard_not_found")
    return _record(row)


def listed(tx: Connection, limit: int, after: str | None = None) -> Page[GuardRecord]:
    """By name."""
    query = select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.name).limit(limit + 1)
    found = [_record(row) for row in tx.execute(query if after is None else query.where(table.c.name > after))]
    return page(found, limit, [one.name for one in found])


def change(tx: Connection, name: str, changes: Spec, box: SecretBox) -> GuardRecord:
    """Merges JSON of GuardSpec's fields, secrets in clear; None puts a default back. Raises NotFound, ValidationError."""
    merged = {key: value for key, value in {**get(tx, name).spec, **sealed(changes, box)}.items() if value is not None}
    GuardSpec.model_validate(merged)
    tx.execute(update(table).where(_alive(name)).values(spec=merged, edited=True, updated_at=time.time()))
    record_revision(tx, f"guard {name} changed")
    return get(tx, name)


def remove(tx: Connection, name: str) -> None:
    """A seeded one leaves a mark, or the next start would bring it back. Raises NotFound."""
    get(tx, name)
    now = time.time()
    seeded = update(table).where(table.c.name == name, table.c.origin != REST)
    tx.execute(seeded.values(deleted_at=now, updated_at=now, edited=True))
    tx.execute(delete(table).where(table.c.name == name, table.c.origin == REST))
    record_revision(tx, f"guard {name} deleted")


def every(tx: Connection) -> list[GuardRecord]:
    """All that there are, in their order: by `order`, and by name where that is equal."""
    found = [_record(row) for row in tx.execute(select(table).where(table.c.deleted_at.is_(None)))]
    return sorted(found, key=lambda record: (record.spec.get("order", USUAL_ORDER), record.name))


def team_ids(tx: Connection, records: Sequence[GuardRecord]) -> Mapping[str, str]:
    """Ids of the teams that guards name, by name."""
    named = {team for record in records for team in record.spec.get("teams", ())}
    if not named:
        return {}
    return {row.name: row.id for row in tx.execute(select(teams.c.id, teams.c.name).where(teams.c.name.in_(named)))}


def guard_json(spec: GuardSpec, box: SecretBox) -> dict[str, Any]:
    return sealed(spec.model_dump(mode="json", exclude_defaults=True), box)


def compiled(record: GuardRecord, clear: Callable[[str], str], ids: Mapping[str, str]) -> Guard | None:
    """What the data plane works with; None for one that is switched off. Raises ValidationError, and what `clear` raises."""
    spec = GuardSpec.model_validate(record.spec)
    if not spec.enabled:
        return None
    options = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(_COMMON))
    options["window"] = spec.window
    if spec.secret is not None:
        options["secret"] = clear(spec.secret)
    if spec.headers:
        options["headers"] = {name.lower(): clear(value) for name, value in spec.headers.items()}
    return Guard(
        spec.name,
        spec.kind,
        spec.stage,
        spec.action,
        spec.on_error,
        spec.timeout_s,
        spec.dry_run,
        _where(spec.default, spec.keys, spec.teams, spec.models, ids),
        options,
    )


def broken(record: GuardRecord, ids: Mapping[str, str]) -> Guard:
    """In place of one that cannot be compiled: it fails wherever it is asked, so that `on_error` decides."""
    spec = record.spec
    where = _where(spec.get("default", False), spec.get("keys", ()), spec.get("teams", ()), spec.get("models", ()), ids)
    stages = tuple(spec.get("stage", ("before",)))
    on_error = spec.get("on_error", "fail_closed")
    return Guard(
        record.name, spec["kind"], stages, "block", on_error, 1.0, spec.get("dry_run", False), where, {BROKEN: True}
    )


def _where(
    everywhere: bool,
    keys: Iterable[str],
    teams_: Iterable[str],
    models: Iterable[str],
    ids: Mapping[str, str],
) -> Where:
    return Where(everywhere, frozenset(keys), frozenset(ids.get(team, team) for team in teams_), frozenset(models))


def _alive(name: str) -> Any:
    return (table.c.name == name) & table.c.deleted_at.is_(None)


def _record(row: Row[Any]) -> GuardRecord:
    return GuardRecord(row.name, row.spec, row.origin, row.edited, row.created_at, row.updated_at)
