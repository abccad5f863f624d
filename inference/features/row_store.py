"""The rows of features. Every function takes its transaction.

A row goes into the history always, and takes the place of its entity's newest unless that one is of a later moment: so it does not
matter in which order rows arrive, or whether they come twice. Of two of one moment, the one that is written last counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from inference.features.view import Row
from inference.features.writing import Written
from inference.tables import feature_history, feature_latest

AT_ONCE: Final = 500
_READ: Final = "SELECT entity, event_us, features FROM feature_latest WHERE view = {0} AND entity IN ({1})"

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def write(tx: Connection, view: int, rows: Sequence[Written], now_us: int) -> None:
    """In the order of entities, so that two writers of the same ones do not wait for each other in a circle."""
    ordered = sorted(rows, key=lambda row: (row.entity, row.event_us))
    values = [
        {"view": view, "entity": row.entity, "event_us": row.event_us, "written_us": now_us, "features": row.features}
        for row in ordered
    ]
    for first in range(0, len(values), AT_ONCE):
        some = values[first : first + AT_ONCE]
        _upsert(tx, feature_history, some, newer=False)
        _upsert(tx, feature_latest, some, newer=True)


def latest(tx: Connection, view: int, entities: Sequence[str]) -> Mapping[str, Row]:
    """The newest row of each that has any: one look into the index. In plain SQL, which costs a third of SQLAlchemy's way."""
    made = {}
    wanted = list(dict.fromkeys(entities))
    mark = "%s" if tx.dialect.name == "postgresql" else "?"
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        query = _READ.format(mark, ", ".join([mark] * len(some)))
        for key, event_us, features in tx.exec_driver_sql(query, (view, *some)):
            made[key] = Row(event_us, _decode(features))
    return made


def history(
    tx: Connection, view: int, entities: Sequence[str], since_us: int | None, until_us: int
) -> Mapping[str, list[Row]]:
    """All rows of these between two moments, both included, oldest first."""
    columns = feature_history.c
    made: dict[str, list[Row]] = {}
    wanted = list(dict.fromkeys(entities))
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        query = (
            select(columns.entity, columns.event_us, columns.features)
            .where(columns.view == view, columns.entity.in_(some), columns.event_us <= until_us)
            .order_by(columns.entity, columns.event_us)
        )
        if since_us is not None:
            query = query.where(columns.event_us >= since_us)
        for key, event_us, features in tx.execute(query):
            made.setdefault(key, []).append(Row(event_us, _decode(features)))
    return made


def counted(tx: Connection, view: int) -> tuple[int, int | None]:
    """How many entities there are, and the moment of the newest row."""
    columns = feature_latest.c
    count, newest = tx.execute(select(func.count(), func.max(columns.event_us)).where(columns.view == view)).one()
    return int(count), newest


def forget(tx: Connection, view: int, before_us: int, after: str) -> str | None:
    """Deletes what the history has of some entities, those behind `after`, before a moment; the last of them, or None where that were all.

    Of each the newest row before it stays, so that who asks for any later moment finds what was known then.
    """
    columns, later = feature_history.c, feature_history.alias("later")
    some = select(columns.entity).where(columns.view == view, columns.entity > after).distinct()
    entities = tx.execute(some.order_by(columns.entity).limit(AT_ONCE)).scalars().all()
    if not entities:
        return None
    newer = select(later.c.event_us).where(
        later.c.view == view,
        later.c.entity == columns.entity,
        later.c.event_us > columns.event_us,
        later.c.event_us <= before_us,
    )
    old = (columns.view == view) & columns.entity.between(entities[0], entities[-1]) & (columns.event_us < before_us)
    tx.execute(delete(feature_history).where(old, newer.exists()))
    last: str = entities[-1]
    return last


def _upsert(tx: Connection, table: Table, values: Sequence[Mapping[str, Any]], *, newer: bool) -> None:
    insert = postgresql.insert(table) if tx.dialect.name == "postgresql" else sqlite.insert(table)
    given = insert.excluded
    keys = [column.name for column in table.primary_key]
    fresh = {name: given[name] for name in ("event_us", "written_us", "features") if name not in keys}
    where = given["event_us"] >= table.c.event_us if newer else None
    tx.execute(insert.on_conflict_do_update(index_elements=keys, set_=fresh, where=where), list(values))
