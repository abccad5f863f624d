"""In which blocks of records an answer may be, by the id that stands in the answer itself.

Such an id says nothing of when it was, so every block has marks beside it: the CRC-32 of each, four bytes. A row for each answer would
cost every call more than all the rest of its record, for the few that somebody speaks of.
"""

from collections.abc import Collection, Iterator
from zlib import crc32

from sqlalchemy import Connection, delete, select, tuple_

from gateway.database import adding
from gateway.ledger_blocks import Part
from gateway.tables import answer_marks

BLOCKS_AT_ONCE = 200


def add(tx: Connection, session: str, calls: Part) -> None:
    """For a block of these, inside `gateway.database.appending`."""
    if calls.answers:
        marks = b"".join([_mark(one) for one in calls.answers])
        tx.execute(
            adding(tx.dialect.name, answer_marks), {"last_id": calls.last_id, "session": session, "marks": marks}
        )


def forget(tx: Connection, session: str, last_id: str) -> None:
    """For a block that is deleted."""
    tx.execute(delete(answer_marks).where(answer_marks.c.last_id == last_id, answer_marks.c.session == session))


def holding(tx: Connection, wanted: Collection[str], since: str) -> Iterator[tuple[str, str]]:
    """The last id and the session of each block that may hold one of these, from the newest back to the one that ended at `since`.

    `wanted` may shrink on the way; with nothing in it this ends.
    """
    import numpy as np  # noqa: PLC0415 — for those who ask

    columns = answer_marks.c
    query = select(answer_marks).where(columns.last_id >= since)
    query = query.order_by(columns.last_id.desc(), columns.session.desc()).limit(BLOCKS_AT_ONCE)
    page = query
    while wanted:
        rows = tx.execute(page).all()
        for row in rows:
            sought = np.frombuffer(b"".join([_mark(one) for one in wanted]), "<u4")
            if np.isin(np.frombuffer(row.marks, "<u4"), sought).any():
                yield row.last_id, row.session
        if len(rows) < BLOCKS_AT_ONCE:
            return
        page = query.where(tuple_(columns.last_id, columns.session) < (rows[-1].last_id, rows[-1].session))


def _mark(answer_id: str) -> bytes:
    return crc32(answer_id.encode()).to_bytes(4, "little")
