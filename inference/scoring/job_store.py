"""The table of scoring jobs. Every function takes its transaction.

Who works on one has a lease: `owner` and `epoch`, renewed by `beat`. What an owner writes it writes under them, so that one who was only
asleep while another took over changes nothing any more.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, insert, select, text, update

from inference.errors import Conflict, NotFound
from inference.scoring.errors import LeaseLost
from inference.scoring.job import KEPT, OPEN, Count, Job, Owner, Spec, State
from inference.tables import scoring_jobs

LEASE_S: Final = 30.0  # after which another machine may take over from an owner that is silent

Transaction = Callable[[], AbstractContextManager[Connection]]

_Row = scoring_jobs.c


class Database(msgspec.Struct, frozen=True):
    """`reading` writes nothing; `writing` is a transaction."""

    reading: Transaction
    writing: Transaction


def add(tx: Connection, id_: str, home: str, model: str, version: int, spec: Spec, created_by: str) -> Job:
    tx.execute(
        insert(scoring_jobs).values(
            id=id_,
            home=home,
            model=model,
            version=version,
            spec=msgspec.to_builtins(spec),
            state="queued",
            rows_done=0,
            rows_refused=0,
            attempts=0,
            epoch=0,
            created_by=created_by,
            created_at=now(tx),
        )
    )
    return find(tx, id_)


def find(tx: Connection, id_: str) -> Job:
    """Raises NotFound."""
    row = tx.execute(select(scoring_jobs).where(_Row.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"There is no scoring job '{id_}'", code="scoring_job_not_found")
    return _job(row)


def listed(tx: Connection, limit: int, after: str | None = None, state: State | None = None) -> Sequence[Job]:
    """Newest first, one more than `limit` if there are more."""
    query = select(scoring_jobs).order_by(_Row.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(_Row.state == state)
    return [_job(row) for row in tx.execute(query if after is None else query.where(_Row.id < after))]


def same(tx: Connection, home: str, model: str, version: int | None, spec: Spec) -> Job | None:
    """The job that was asked for in the same words and is not over: whoever asks again goes on with it."""
    query = select(scoring_jobs).where(_Row.home == home, _Row.model == model, _Row.state.in_(KEPT))
    found = [_job(row) for row in tx.execute(query.order_by(_Row.id))]
    return next((job for job in found if job.spec == spec and version in {None, job.version}), None)


def waiting(tx: Connection, home: str, host: str) -> Sequence[Job]:
    """Oldest first: nobody's, those of a silent owner, and those of this machine, whose owner may be dead."""
    query = select(scoring_jobs).where(_Row.home == home, _Row.state.in_(OPEN)).order_by(_Row.id)
    found = [_job(row) for row in tx.execute(query)]
    at = now(tx)
    return [job for job in found if free(job, host, at)]


def kept_ids(tx: Connection, home: str) -> frozenset[str]:
    """Jobs whose worksheets are needed."""
    return frozenset(tx.execute(select(_Row.id).where(_Row.home == home, _Row.state.in_(KEPT))).scalars())


def free(job: Job, host: str, at: float) -> bool:
    """Of a job of this machine the lock of its folder tells more."""
    return job.owner is None or job.host == host or job.seen_at is None or job.seen_at < at - LEASE_S


def claim(tx: Connection, job: Job, owner: Owner) -> Job:
    """The job in an epoch of its own, one attempt more. Raises LeaseLost if another was faster."""
    at = now(tx)
    mine = (_Row.id == job.id) & (_Row.epoch == job.epoch) & _Row.state.in_(OPEN)
    values = {
        "owner": owner.id,
        "host": owner.host,
        "seen_at": at,
        "epoch": job.epoch + 1,
        "state": "running",
        "attempts": job.attempts + 1,
        "started_at": job.started_at or at,
    }
    if tx.execute(update(scoring_jobs).where(mine).values(**values)).rowcount != 1:
        raise LeaseLost
    return find(tx, job.id)


def beat(tx: Connection, job: Job, count: Count, *, advanced: bool) -> None:
    """`advanced`: something was scored under this lease, so earlier attempts were none. Raises LeaseLost."""
    values: dict[str, Any] = {"seen_at": now(tx), **_counted(count)}
    _change(tx, job, {**values, "attempts": 1} if advanced else values)


def requeue(tx: Connection, job: Job, count: Count) -> None:
    """Somebody goes on with it; the attempt was none. Raises LeaseLost."""
    free_ = {"owner": None, "host": None, "seen_at": None, "state": "queued", "attempts": job.attempts - 1}
    _change(tx, job, {**free_, **_counted(count)})


def pause(tx: Connection, job: Job, count: Count, code: str, message: str) -> None:
    """Until `resume`; the attempt was none. Raises LeaseLost."""
    free_ = {"owner": None, "host": None, "seen_at": None, "state": "paused", "attempts": 0}
    _change(tx, job, {**free_, "code": code, "message": message, **_counted(count)})


def resume(tx: Connection, id_: str) -> Job:
    """Raises NotFound, Conflict."""
    mine = (_Row.id == id_) & (_Row.state == "paused")
    changed = tx.execute(update(scoring_jobs).where(mine).values(state="queued", code=None, message=None))
    job = find(tx, id_)
    if changed.rowcount != 1:
        raise Conflict(f"The scoring job '{id_}' is not paused: it is {job.state}")
    return job


def finish(
    tx: Connection, job: Job, state: State, count: Count, code: str | None = None, message: str | None = None
) -> None:
    """Raises LeaseLost."""
    ended = {"owner": None, "host": None, "seen_at": None, "state": state, "ended_at": now(tx)}
    _change(tx, job, {**ended, "code": code, "message": message, **_counted(count)})


def cancel(tx: Connection, id_: str) -> Job:
    """Whoever works on it loses it. Raises NotFound, Conflict."""
    ended = {"owner": None, "host": None, "seen_at": None, "state": "cancelled", "ended_at": now(tx)}
    changed = tx.execute(
        update(scoring_jobs).where(_Row.id == id_, _Row.state.in_(KEPT)).values(**ended, epoch=_Row.epoch + 1)
    )
    job = find(tx, id_)
    if changed.rowcount != 1:
        raise Conflict(f"The scoring job '{id_}' is {job.state} already")
    return job


def now(tx: Connection) -> float:
    """Unix seconds by the one clock that all replicas share."""
    if tx.dialect.name == "postgresql":
        return float(tx.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()


def _change(tx: Connection, job: Job, values: dict[str, Any]) -> None:
    mine = (_Row.id == job.id) & (_Row.owner == job.owner) & (_Row.epoch == job.epoch)
    if tx.execute(update(scoring_jobs).where(mine).values(**values)).rowcount != 1:
        raise LeaseLost


def _counted(count: Count) -> dict[str, Any]:
    return {"rows_total": count.total, "rows_done": count.done, "rows_refused": count.refused}


def _job(row: Row[Any]) -> Job:
    fields = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    count = Count(fields.pop("rows_total"), fields.pop("rows_done"), fields.pop("rows_refused"))
    return Job(**{**fields, "spec": msgspec.convert(fields["spec"], Spec), "count": count})
