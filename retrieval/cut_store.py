"""The table of documents' cuts: what becomes of each document in the edition of its collection that is not read.

What is read stands in the documents themselves; a swap exchanges the two. Every function takes its transaction.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from retrieval.chunking_strategy import Chunking
from retrieval.tables import document_cuts, documents

TOGETHER: Final = 500  # rows of one statement

_Row, _Document = document_cuts.c, documents.c


class Kept(msgspec.Struct, frozen=True):
    """A document that is not cut as was asked for, but as it was, and why."""

    source_id: str
    note: str


def begin(tx: Connection, collection_id: str, edition: int, chunking: Chunking) -> None:
    """Every document that is not in the edition yet is to be cut in this way there."""
    there = select(_Row.document_id).where(_Row.document_id == _Document.id, _Row.edition == edition)
    wanted = literal(msgspec.structs.asdict(chunking), _Row.chunking.type)
    rows = select(_Document.id, literal(edition), wanted, null(), literal(0), null()).where(
        _Document.collection_id == collection_id, ~there.exists()
    )
    tx.execute(insert(document_cuts).from_select(_names(), rows))


def want(tx: Connection, document_id: int, edition: int, chunking: Chunking) -> None:
    """A document that is put into the collection meanwhile, or once more: when it is read, it is to be cut in this way."""
    plain = msgspec.structs.asdict(chunking)
    if tx.execute(update(document_cuts).where(*_one(document_id, edition)).values(chunking=plain)).rowcount == 0:
        new = {"document_id": document_id, "edition": edition, "chunking": plain, "passages": 0}
        tx.execute(insert(document_cuts).values(**new))


def wanted(tx: Connection, document_id: int, edition: int) -> Chunking | None:
    """How it is to be cut; None of one that is not there."""
    found = tx.execute(select(_Row.chunking).where(*_one(document_id, edition))).scalar_one_or_none()
    return None if found is None else Chunking(**found)


def complete(
    tx: Connection,
    document_id: int,
    edition: int,
    *,
    chunking: Chunking,
    fingerprint: str | None,
    passages: int,
    note: str | None = None,
) -> None:
    """It is cut. `note`: why not as was asked for."""
    want(tx, document_id, edition, chunking)
    values = {"fingerprint": fingerprint, "passages": passages, "note": note}
    tx.execute(update(document_cuts).where(*_one(document_id, edition)).values(**values))


def outdate(tx: Connection, document_id: int, but: int | None = None) -> None:
    """It was read anew, and is to be cut again in every edition `but` one."""
    there = (_Row.document_id == document_id) & _Row.fingerprint.is_not(None)
    others = there if but is None else there & (_Row.edition != but)
    tx.execute(update(document_cuts).where(others).values(fingerprint=None))


def empty(tx: Connection, document_id: int) -> None:
    """Nothing of it is in any edition."""
    none = {"fingerprint": None, "passages": 0, "note": None}
    tx.execute(update(document_cuts).where(_Row.document_id == document_id).values(**none))


def missing(tx: Connection, collection_id: str, edition: int, after: int, limit: int) -> Sequence[int]:
    """Documents behind `after` that are still to be cut, by id: those of which something is read."""
    query = select(_Document.id).join(document_cuts, _Row.document_id == _Document.id)
    todo = query.where(*_of(collection_id, edition), *_todo(), _Document.id > after)
    return tx.execute(todo.order_by(_Document.id).limit(limit)).scalars().all()


def kept(tx: Connection, collection_id: str, edition: int, limit: int) -> Sequence[Kept]:
    """Those with a note."""
    query = select(_Document.source_id, _Row.note).join(document_cuts, _Row.document_id == _Document.id)
    noted = query.where(*_of(collection_id, edition), _Row.note.is_not(None))
    return [Kept(source_id, note) for source_id, note in tx.execute(noted.order_by(_Document.id).limit(limit))]


def counts(tx: Connection, collection_id: str, edition: int) -> tuple[int, int]:
    """How many documents there are to be cut or cut, and how many of them are cut."""
    todo = func.coalesce(func.sum(case((or_(*_todo_any()), 1), else_=0)), 0)
    query = select(func.count(), todo).join(document_cuts, _Row.document_id == _Document.id)
    row = tx.execute(query.where(*_of(collection_id, edition), _Document.fingerprint.is_not(None))).one()
    return int(row[0]), int(row[0]) - int(row[1])


def exchange(tx: Connection, collection_id: str, before: int, after: int, bytes_before: int, bytes_after: int) -> None:
    """What the documents are in the edition `after` is what is read of them from here on, and what they were is that of `before`.

    The bytes are those of a vector in each.
    """
    mine = select(_Document.id).where(_Document.collection_id == collection_id)
    here = (_Document.collection_id == collection_id) & (_Row.document_id == _Document.id) & (_Row.edition == after)
    was = (_Document.id, literal(before), _Document.chunking, _Document.fingerprint, _Document.passages, _Row.note)
    tx.execute(delete(document_cuts).where(_Row.edition == before, _Row.document_id.in_(mine)))
    tx.execute(insert(document_cuts).from_select(_names(), select(*was).where(here)))
    values = {
        "chunking": _Row.chunking,
        "passages": _Row.passages,
        "empty": case((_Document.fingerprint.is_(None), _Document.empty), else_=_Row.passages == 0),
        "usage_bytes": _Document.usage_bytes - bytes_before * _Document.passages + bytes_after * _Row.passages,
    }
    tx.execute(update(documents).where(here).values(**values))
    tx.execute(delete(document_cuts).where(_Row.edition == after, _Row.document_id.in_(mine)))


def drop(tx: Connection, collection_id: str, edition: int) -> bool:
    """Some of the edition, for good; whether there are more."""
    ids = tx.execute(
        select(_Row.document_id)
        .join(documents, _Document.id == _Row.document_id)
        .where(*_of(collection_id, edition))
        .limit(TOGETHER)
    )
    some = ids.scalars().all()
    tx.execute(delete(document_cuts).where(_Row.edition == edition, _Row.document_id.in_(some)))
    return len(some) == TOGETHER


def _of(collection_id: str, edition: int) -> tuple[ColumnElement[bool], ...]:
    return _Document.collection_id == collection_id, _Row.edition == edition


def _one(document_id: int, edition: int) -> tuple[ColumnElement[bool], ...]:
    return _Row.document_id == document_id, _Row.edition == edition


def _todo_any() -> tuple[ColumnElement[bool], ...]:
    return _Row.fingerprint.is_(None), _Row.fingerprint != _Document.fingerprint


def _todo() -> tuple[ColumnElement[bool], ...]:
    return _Document.fingerprint.is_not(None), or_(*_todo_any())


def _names() -> list[str]:
    return ["document_id", "edition", "chunking", "fingerprint", "passages", "note"]
