"""Captured predictions in the database."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from inference.serving.capture import Captured
from inference.tables import predictions

Transaction = Callable[[], AbstractContextManager[Connection]]

AT_ONCE: Final = 500


def store(writing: Transaction, rows: list[Captured]) -> None:
    """Each once, however often it is brought."""
    values = [_row(captured) for captured in rows]
    for first in range(0, len(values), AT_ONCE):
        with writing() as tx:
            insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
            tx.execute(
                insert(predictions).on_conflict_do_nothing(index_elements=["id"]), values[first : first + AT_ONCE]
            )


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


def _row(captured: Captured) -> dict[str, Any]:
    row = captured._asdict()
    for name in ("inputs", "outputs"):
        row[name] = None if row[name] is None else row[name].decode()
    return row
