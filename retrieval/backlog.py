"""What is still to be read, what waits and why, and what could not be read: as operators see it, and let it be tried again.

Every function takes its transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update

from retrieval import job_store
from retrieval.collection_store import Collection
from retrieval.database import locked_for
from retrieval.document_store import Status
from retrieval.job_store import Waiting
from retrieval.paging import Page, page
from retrieval.tables import collections, documents, ingestion_jobs

RETRIED_AT_ONCE: Final = 500

_Row = documents.c
_Job = ingestion_jobs.c


class Entry(msgspec.Struct, frozen=True):
    """A document with its job, if it has one. `payer`: the id of the key on whose account it is read. `working`: somebody reads it now."""

    id: int
    collection_id: str
    source_id: str
    filename: str
    status: Status
    error_code: str | None
    error_message: str | None
    passages: int
    usage_bytes: int
    batch_id: str | None
    created_at: float
    attempts: int | None
    payer: str | None
    working: bool
    waiting: Waiting | None


def listed(
    tx: Connection,
    limit: int,
    *,
    after: int | None = None,
    status: Status | None = None,
    collection_id: str | None = None,
    org_id: str | None = None,
    team_id: str | None = None,
) -> Page[Entry]:
    """Newest first, of all collections that are not deleted."""
    owner = collections.c
    query = (
        select(documents, _Job.attempts, _Job.payer, _Job.owner, _Job.note, _Job.not_before)
        .join(collections, owner.id == _Row.collection_id)
        .join(ingestion_jobs, _Job.document_id == _Row.id, isouter=True)
        .where(owner.deleted.is_(False))
    )
    for column, value in (
        (_Row.status, status),
        (_Row.collection_id, collection_id),
        (owner.org_id, org_id),
        (owner.team_id, team_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(_Row.id < after)
    return page([_entry(row._mapping) for row in tx.execute(query.order_by(_Row.id.desc()).limit(limit + 1))], limit)  # noqa: SLF001 — SQLAlchemy's public name for it


def retry(
    tx: Connection, collection: Collection, *, files: Sequence[str] | None = None, payer: str | None = None
) -> Sequence[str]:
    """What failed or was cancelled is read again, as it was to be read: the ids of those files. `files` None: all that failed.

    Paid by the key that made the collection unless another is named, as who added a file is not kept once it has ended.
    """
    locked_for(tx, collection.id)
    here = _Row.collection_id == collection.id
    ended = here & (_Row.status == "failed")
    if files is not None:
        ended = here & _Row.status.in_(("failed", "cancelled")) & _Row.source_id.in_(files)
    found = tx.execute(select(_Row.id, _Row.source_id).where(ended).order_by(_Row.id)).all()
    ids = [row.id for row in found]
    for start in range(0, len(ids), RETRIED_AT_ONCE):
        some = _Row.id.in_(ids[start : start + RETRIED_AT_ONCE])
        tx.execute(update(documents).where(some).values(status="in_progress", error_code=None, error_message=None))
    for id_ in ids:
        job_store.add(tx, collection.id, id_, payer or collection.key_id)
    return [row.source_id for row in found]


def _entry(row: Mapping[Any, Any]) -> Entry:
    put_off = row["note"] is not None and row["owner"] is None
    return Entry(
        id=row["id"],
        collection_id=row["collection_id"],
        source_id=row["source_id"],
        filename=row["filename"],
        status=row["status"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        passages=row["passages"],
        usage_bytes=row["usage_bytes"],
        batch_id=row["batch_id"],
        created_at=row["created_at"],
        attempts=row["attempts"],
        payer=row["payer"],
        working=row["owner"] is not None,
        waiting=Waiting(row["note"], row["attempts"], row["not_before"]) if put_off else None,
    )
