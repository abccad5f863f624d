"""The table of feature views. Every function takes its transaction."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update

from inference.errors import Conflict, NotFound
from inference.features.view import FeatureView, Source
from inference.signature import Column
from inference.tables import feature_history, feature_latest, feature_views

GONE_AT_ONCE = 10_000

_Columns = feature_views.c
_SHOWN = [_Columns[name] for name in FeatureView.__struct_fields__]
_THERE = _Columns.deleted_at.is_(None)


class Declared(msgspec.Struct, frozen=True):
    """What a file said of a view. `edited`: since then REST has changed or deleted it, and has the last word."""

    origin: str | None
    seed_hash: str | None
    edited: bool


def state(tx: Connection) -> tuple[int, int]:
    """Differs whenever a view was made, changed or deleted: how many there are, and the newest revision."""
    there = func.count().filter(_THERE)
    count, newest = tx.execute(select(there, func.max(_Columns.revision)).select_from(feature_views)).one()
    return int(count), int(newest or 0)


def every(tx: Connection) -> Sequence[FeatureView]:
    return [_view(row) for row in tx.execute(select(*_SHOWN).where(_THERE).order_by(_Columns.name))]


def listed(tx: Connection, limit: int, after: str | None = None) -> Sequence[FeatureView]:
    """By name, one more than `limit` if there are more."""
    query = select(*_SHOWN).where(_THERE).order_by(_Columns.name).limit(limit + 1)
    return [_view(row) for row in tx.execute(query if after is None else query.where(_Columns.name > after))]


def find(tx: Connection, name: str) -> FeatureView:
    """Raises NotFound."""
    row = tx.execute(select(*_SHOWN).where(_Columns.name == name, _THERE)).one_or_none()
    if row is None:
        raise NotFound(f"There is no feature view '{name}'", param="name", code="feature_view_not_found")
    return _view(row)


def add(tx: Connection, view: FeatureView) -> FeatureView:
    """Raises Conflict."""
    if tx.execute(select(_Columns.name).where(_Columns.name == view.name, _THERE)).one_or_none() is not None:
        raise Conflict(f"There is a feature view '{view.name}' already", param="name")
    tx.execute(delete(feature_views).where(_Columns.name == view.name))
    tx.execute(insert(feature_views).values(**_values(view)))
    return find(tx, view.name)


def change(tx: Connection, name: str, revision: int, changes: Mapping[str, Any]) -> FeatureView:
    """`changes` by the fields of a view; more features make it a version more. Raises NotFound."""
    before = find(tx, name)
    fields = {**changes, "revision": revision, "updated_at": time.time()}
    if "features" in changes and changes["features"] != before.features:
        fields["version"] = before.version + 1
    after = msgspec.structs.replace(before, **fields)
    tx.execute(update(feature_views).where(_Columns.name == name).values(**_values(after), edited=True))
    return find(tx, name)


def declared(tx: Connection, name: str) -> Declared | None:
    """None where there is no such view, and none that was deleted."""
    columns = _Columns.origin, _Columns.seed_hash, _Columns.edited
    row = tx.execute(select(*columns).where(_Columns.name == name)).one_or_none()
    return None if row is None else Declared(*row)


def declare(tx: Connection, name: str, origin: str, seed_hash: str) -> None:
    """The view is as a file says."""
    values = {"origin": origin, "seed_hash": seed_hash, "edited": False}
    tx.execute(update(feature_views).where(_Columns.name == name).values(**values))


def remove(tx: Connection, name: str) -> None:
    """Its rows go later, see `sweep`. One that a file declares leaves a mark, so that no start brings it back. Raises NotFound."""
    find(tx, name)
    mine = _Columns.name == name
    tx.execute(update(feature_views).where(mine).values(deleted_at=time.time(), edited=True))
    tx.execute(delete(feature_views).where(mine, _Columns.origin.is_(None)))


def sweep(tx: Connection) -> int:
    """Deletes rows of views that are gone, a part at a time; how many it were. Until it is 0 there may be more."""
    alive = frozenset(tx.execute(select(_Columns.number).where(_THERE)).scalars())
    return sum(_sweep(tx, table, alive) for table in (feature_latest, feature_history))


def _sweep(tx: Connection, table: Table, alive: frozenset[int]) -> int:
    gone, number = 0, -1
    while True:  # from view to view, each by one look into the index: there are many rows, and few views
        found = tx.execute(select(func.min(table.c.view)).where(table.c.view > number)).scalar_one()
        if found is None:
            return gone
        number = int(found)
        if number not in alive:
            keys = select(table.c.entity).where(table.c.view == number).order_by(table.c.entity).limit(GONE_AT_ONCE)
            last = tx.execute(keys).scalars().all()[-1]
            gone += tx.execute(delete(table).where(table.c.view == number, table.c.entity <= last)).rowcount


def _values(view: FeatureView) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(view)
    return made


def _view(row: Row[Any]) -> FeatureView:
    fields = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    for name in ("entities", "features"):
        fields[name] = tuple(msgspec.convert(fields[name], list[Column]))
    fields["source"] = msgspec.convert(fields["source"], Source)
    return FeatureView(**fields)
