"""The table of file batches: documents that were added to a collection together. Every function takes its transaction."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from retrieval import document_store
from retrieval.access import Caller
from retrieval.collection_store import Collection, Counts
from retrieval.database import locked_for, now
from retrieval.errors import NotFound
from retrieval.ids import new_id
from retrieval.tables import file_batches


class FileBatch(msgspec.Struct, frozen=True):
    id: str
    collection_id: str
    created_at: float
    cancelled: bool
    counts: Counts = Counts()

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.counts.in_progress:
            return "in_progress"
        return "failed" if self.counts.failed and self.counts.failed == self.counts.total else "completed"


def create(tx: Connection, collection: Collection) -> str:
    id_ = new_id("vsfb_")
    tx.execute(insert(file_batches).values(id=id_, collection_id=collection.id, created_at=now(tx), cancelled=False))
    return id_


def get(tx: Connection, caller: Caller, collection: Collection, id_: str) -> FileBatch:
    """Raises NotFound, also for one with other tenants' files."""
    here = (file_batches.c.id == id_) & (file_batches.c.collection_id == collection.id)
    row: Row[Any] | None = tx.execute(select(file_batches).where(here)).one_or_none()
    foreign = caller.tenant is not None and document_store.batched_by_others(tx, id_, caller.tenant)
    if row is None or foreign:
        raise NotFound(
            f"No file batch with id '{id_}' in vector store '{collection.id}'",
            param="batch_id",
            code="file_batch_not_found",
        )
    return FileBatch(**row._mapping, counts=document_store.counts(tx, id_))  # noqa: SLF001 — SQLAlchemy's public name


def cancel(tx: Connection, caller: Caller, collection: Collection, id_: str) -> FileBatch:
    """What is not read yet is not read. A batch that is through stays what it is."""
    locked_for(tx, collection.id)
    batch = get(tx, caller, collection, id_)
    if batch.status == "in_progress":
        document_store.cancel(tx, id_)
        tx.execute(update(file_batches).where(file_batches.c.id == id_).values(cancelled=True))
    return get(tx, caller, collection, id_)
