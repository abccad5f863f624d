"""The table of ingestion jobs: documents that are to be read, and who works on which. Every function takes its transaction.

Who works on one has a lease: `owner` and `epoch`, renewed by `beat`. What an owner writes it writes under them, so that one who was only
asleep while another took over changes nothing any more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select, update

from retrieval.database import locked_for, now
from retrieval.ids import new_id
from retrieval.tables import ingestion_jobs

LEASE_S: Final = 30.0  # after which another machine may take over from an owner that is silent
ANY: Final = "EXISTS (SELECT 1 FROM ingestion_jobs)"

_Row = ingestion_jobs.c


class Job(msgspec.Struct, frozen=True):
    """`payer`: the id of the key on whose account vectors are made. Times are Unix seconds."""

    id: str
    collection_id: str
    document_id: int
    payer: str
    attempts: int
    not_before: float
    note: str | None
    owner: str | None
    host: str | None
    seen_at: float | None
    epoch: int
    created_at: float


class Waiting(msgspec.Struct, frozen=True):
    """Why a document that was begun is not read yet, after so many attempts that count, and when the next one is due (Unix seconds)."""

    reason: str
    attempts: int
    retry_at: float


class Owner(msgspec.Struct, frozen=True):
    """A serving process: `id` is its session, `host` the kernel that it runs on."""

    id: str
    host: str


class LeaseLost(Exception):
    """Another process works on it by now, or it is wanted no more."""


def add(tx: Connection, collection_id: str, document_id: int, payer: str) -> None:
    """Whoever works on an older job of the document loses it: what is to be read has changed."""
    tx.execute(delete(ingestion_jobs).where(_Row.document_id == document_id))
    at = now(tx)
    tx.execute(
        insert(ingestion_jobs).values(
            id=new_id("job_"),
            collection_id=collection_id,
            document_id=document_id,
            payer=payer,
            attempts=0,
            not_before=at,
            epoch=0,
            created_at=at,
        )
    )


def waiting(tx: Connection, owner: Owner, limit: int) -> Sequence[Job]:
    """The oldest of each payer that nobody works on, or whose owner is silent or on this machine and may be dead.

    Payers with the fewest in work come first, so that a thousand documents of one do not stand before the one of another.
    """
    at = now(tx)
    free = _free(at, owner)
    first = select(func.min(_Row.id)).where(free).group_by(_Row.payer).scalar_subquery()
    found = [_job(row) for row in tx.execute(select(ingestion_jobs).where(_Row.id.in_(first)))]
    busy = dict(_busy(tx, at))
    found.sort(key=lambda job: (busy.get(job.payer, 0), job.id))
    if len(found) < limit:  # one payer alone may have it all
        taken = [job.id for job in found]
        more = select(ingestion_jobs).where(free, _Row.id.not_in(taken)).order_by(_Row.id).limit(limit - len(found))
        found += [_job(row) for row in tx.execute(more)]
    return found[:limit]


def any_left(tx: Connection) -> bool:
    return tx.execute(select(_Row.id).limit(1)).first() is not None


def silent(job: Job, unix: float) -> bool:
    return job.owner is None or job.seen_at is None or job.seen_at < unix - LEASE_S


def claim(tx: Connection, job: Job, owner: Owner) -> Job | None:
    """The job in an epoch of its own, one attempt more; None if another was faster."""
    lease = {"owner": owner.id, "host": owner.host, "seen_at": now(tx), "epoch": job.epoch + 1}
    mine = (_Row.id == job.id) & (_Row.epoch == job.epoch)
    if tx.execute(update(ingestion_jobs).where(mine).values(**lease, attempts=job.attempts + 1)).rowcount != 1:
        return None
    return _job(tx.execute(select(ingestion_jobs).where(_Row.id == job.id)).one())


def beat(tx: Connection, owner: Owner, ids: Sequence[str]) -> None:
    """All that the process works on, in one go. What it has and does not work on is free again when its lease is over."""
    mine = (_Row.owner == owner.id) & _Row.id.in_(ids)
    tx.execute(update(ingestion_jobs).where(mine).values(seen_at=now(tx)))


def hold(tx: Connection, job: Job) -> None:
    """What follows in this transaction is done under the lease. Raises LeaseLost."""
    locked_for(tx, job.id)
    mine = (_Row.id == job.id) & (_Row.owner == job.owner) & (_Row.epoch == job.epoch)
    if tx.execute(update(ingestion_jobs).where(mine).values(seen_at=now(tx))).rowcount != 1:
        raise LeaseLost


def went_on(tx: Connection, job: Job) -> None:
    """As `hold`, with something of it done: attempts before this one brought it further, and count no more. Raises LeaseLost."""
    hold(tx, job)
    tx.execute(update(ingestion_jobs).where(_Row.id == job.id, _Row.attempts > 1).values(attempts=1))


def later(tx: Connection, job: Job, wait_s: float, note: str | None, *, counted: bool) -> None:
    """Somebody tries again, in a while. `counted`: the attempt was one. Raises LeaseLost."""
    hold(tx, job)
    free = {"owner": None, "host": None, "seen_at": None, "note": note, "not_before": now(tx) + wait_s}
    attempts = _Row.attempts if counted else _Row.attempts - 1
    tx.execute(update(ingestion_jobs).where(_Row.id == job.id).values(**free, attempts=attempts))


def finish(tx: Connection, job: Job) -> None:
    """Raises LeaseLost."""
    hold(tx, job)
    tx.execute(delete(ingestion_jobs).where(_Row.id == job.id))


def of_document(tx: Connection, document_id: int) -> Job | None:
    row = tx.execute(select(ingestion_jobs).where(_Row.document_id == document_id)).one_or_none()
    return None if row is None else _job(row)


def put_off(tx: Connection, document_ids: Sequence[int]) -> Mapping[int, Waiting]:
    """Of those that somebody began, and nobody works on."""
    noted = _Row.document_id.in_(document_ids) & _Row.note.is_not(None) & _Row.owner.is_(None)
    rows = tx.execute(select(_Row.document_id, _Row.note, _Row.attempts, _Row.not_before).where(noted))
    return {id_: Waiting(note, attempts, not_before) for id_, note, attempts, not_before in rows}


def _free(at: float, owner: Owner) -> ColumnElement[bool]:
    near = (_Row.host == owner.host) & (_Row.owner != owner.id)
    return (_Row.not_before <= at) & or_(_Row.owner.is_(None), _Row.seen_at < at - LEASE_S, near)


def _busy(tx: Connection, at: float) -> Sequence[tuple[str, int]]:
    alive = _Row.owner.is_not(None) & (_Row.seen_at >= at - LEASE_S)
    query = select(_Row.payer, func.count()).where(alive).group_by(_Row.payer)
    return [(str(payer), int(number)) for payer, number in tx.execute(query)]


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
