"""SQL of monitors and their windows. Every function takes the transaction that it works in. Needs no NumPy."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from inference.monitors.monitor import Monitor, Stream, Terms, Window
from inference.tables import monitor_windows, monitors

KEPT = 10_000  # windows of a monitor

_SHOWN = [monitors.c[name] for name in ("id", "kind", "name", "subject", "terms", "created_at")]


class Baseline(msgspec.Struct, frozen=True):
    """As the table has it; `corpus` and `queries` are bytes of 16-bit numbers."""

    version: int | None
    dimensions: int | None
    corpus: bytes | None
    after: int
    queries: bytes | None


def add(tx: Connection, monitor: Monitor) -> None:
    tx.execute(insert(monitors).values(**msgspec.to_builtins(monitor)))


def every(tx: Connection) -> Sequence[Monitor]:
    """All that there are: dozens."""
    return tuple(_monitor(row) for row in tx.execute(select(*_SHOWN).order_by(monitors.c.id)).mappings())


def listed(tx: Connection, limit: int, after: str | None) -> Sequence[Monitor]:
    """Newest first, and one more than asked for where there are more."""
    query = select(*_SHOWN).order_by(monitors.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(monitors.c.id < after)
    return [_monitor(row) for row in tx.execute(query).mappings()]


def find(tx: Connection, id_: str) -> Monitor | None:
    row = tx.execute(select(*_SHOWN).where(monitors.c.id == id_)).mappings().first()
    return None if row is None else _monitor(row)


def change(tx: Connection, id_: str, terms: Terms) -> None:
    tx.execute(update(monitors).where(monitors.c.id == id_).values(terms=msgspec.to_builtins(terms)))


def remove(tx: Connection, id_: str) -> None:
    tx.execute(delete(monitor_windows).where(monitor_windows.c.monitor == id_))
    tx.execute(delete(monitors).where(monitors.c.id == id_))


def forget(tx: Connection, id_: str) -> None:
    """Its baseline: what comes next is a new one."""
    tx.execute(
        update(monitors)
        .where(monitors.c.id == id_)
        .values(version=None, dimensions=None, corpus=None, after=0, queries=None)
    )


def baseline(tx: Connection, id_: str) -> Baseline | None:
    """None for a monitor that is gone."""
    names = ("version", "dimensions", "corpus", "after", "queries")
    row = tx.execute(select(*(monitors.c[name] for name in names)).where(monitors.c.id == id_)).mappings().first()
    return None if row is None else Baseline(**row)


def progress(tx: Connection, id_: str) -> tuple[int | None, bool]:
    """The version of the vectors that it compares with, and whether it can compare questions."""
    query = select(monitors.c.version, monitors.c.queries.is_not(None)).where(monitors.c.id == id_)
    version, ready = tx.execute(query).one()
    return version, bool(ready)


def begin(
    tx: Connection, id_: str, before: int | None, version: int, dimensions: int, corpus: bytes, newest: int
) -> None:
    """Of another version of the vectors than `before`, unless another process was faster. Questions of that version are yet to come."""
    same = monitors.c.version.is_(None) if before is None else monitors.c.version == before
    tx.execute(
        update(monitors)
        .where(monitors.c.id == id_, same)
        .values(version=version, dimensions=dimensions, corpus=corpus, after=newest, queries=None)
    )


def keep_queries(tx: Connection, id_: str, version: int, queries: bytes) -> None:
    """The first window, unless another process was faster."""
    mine = (monitors.c.id == id_) & (monitors.c.version == version) & monitors.c.queries.is_(None)
    tx.execute(update(monitors).where(mine).values(queries=queries))


def pass_on(tx: Connection, id_: str, after: int, newest: int) -> bool:
    """Whether passages up to `newest` are for this process to judge."""
    mine = (monitors.c.id == id_) & (monitors.c.after == after)
    return tx.execute(update(monitors).where(mine).values(after=newest)).rowcount == 1


def tell(tx: Connection, id_: str, window: Window) -> Window:
    """With the next number. The oldest ones make room."""
    number = monitor_windows.c.number
    mine = monitor_windows.c.monitor == id_
    last = tx.execute(select(func.max(number)).where(mine)).scalar() or 0
    window = msgspec.structs.replace(window, number=last + 1)
    tx.execute(insert(monitor_windows).values(monitor=id_, **msgspec.to_builtins(window)))
    tx.execute(delete(monitor_windows).where(mine, number <= last + 1 - KEPT))
    return window


def windows(
    tx: Connection, id_: str, limit: int, before: int | None = None, stream: Stream | None = None
) -> Sequence[Window]:
    """Newest first, and one more than asked for where there are more."""
    found = monitor_windows.c
    query = select(monitor_windows).where(found.monitor == id_).order_by(found.number.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(found.number < before)
    if stream is not None:
        query = query.where(found.stream == stream)
    return [msgspec.convert(_plain(row), Window) for row in tx.execute(query).mappings()]


def _monitor(row: Any) -> Monitor:
    return msgspec.convert(_plain(row), Monitor)


def _plain(row: Any) -> dict[str, Any]:
    """Names that are words of SQL are of a type of their own."""
    return {str(name): value for name, value in row.items()}
