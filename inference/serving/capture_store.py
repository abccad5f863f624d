"""Captured predictions in the database."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select

from inference.database import inserting
from inference.serving.capture import FACTS, Captured
from inference.tables import predictions

Transaction = Callable[[], AbstractContextManager[Connection]]

AT_ONCE: Final = 500
_SQLITE: Final = (
    f"INSERT OR IGNORE INTO predictions ({', '.join(Captured._fields)}) "  # noqa: S608 — our own names
    f"VALUES ({', '.join('?' * len(Captured._fields))})"
)


def store(writing: Transaction, rows: list[Captured]) -> None:
    """Each once, however often it is brought."""
    values = [(*row[:FACTS], *(None if text is None else text.decode() for text in row[FACTS:])) for row in rows]
    for first in range(0, len(values), AT_ONCE):
        some = values[first : first + AT_ONCE]
        with writing() as tx:
            if tx.dialect.name == "sqlite":  # a third of what the same costs through SQLAlchemy, for each prediction
                tx.exec_driver_sql(_SQLITE, some)
            else:
                named = [dict(zip(Captured._fields, row, strict=True)) for row in some]
                tx.execute(inserting(tx.dialect.name)(predictions).on_conflict_do_nothing(index_elements=["id"]), named)


def forget(writing: Transaction, before: float, most: int) -> int:
    """Deletes what is older than a moment, and the oldest of more than `most`. How many went."""
    with writing() as tx:
        gone = tx.execute(delete(predictions).where(predictions.c.at < before)).rowcount
        over = tx.execute(select(func.count()).select_from(predictions)).scalar_one() - most
        if over > 0:
            oldest = select(predictions.c.id).order_by(predictions.c.at, predictions.c.id).limit(over)
            gone += tx.execute(delete(predictions).where(predictions.c.id.in_(oldest))).rowcount
    return gone


def between(tx: Connection, since: float, until: float, model: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a span of time, in order."""
    query = select(predictions).where(predictions.c.at >= since, predictions.c.at < until)
    if model is not None:
        query = query.where(predictions.c.model == model)
    for row in tx.execute(query.order_by(predictions.c.at, predictions.c.id)).mappings():
        yield dict(row)
