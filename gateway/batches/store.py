"""The table of batches: what clients asked for, how far it is, and who works on it. Every function takes its transaction.

Who works on a batch has a lease: `owner` and `epoch`, renewed by `beat`. Every change that an owner makes is made under them, so that one
who was only asleep while another took over changes nothing any more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from gateway import database
from gateway.batches.lines import Problem
from gateway.batches.results import Counts, Usage
from gateway.errors import BadRequest, NotFound
from gateway.files import store as files
from gateway.files.store import UNFINISHED, File
from gateway.files.whose import owned, visible
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.paging import Page, page
from gateway.tables import batches

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Outcome = Literal["completed", "expired", "cancelled", "failed"]

LEASE_S: Final = 30.0  # after which another machine may take over from an owner that is silent
ANY_UNFINISHED: Final = f"EXISTS (SELECT 1 FROM batches WHERE status IN {UNFINISHED})"  # noqa: S608 — constants

_Row = batches.c


class Batch(msgspec.Struct, frozen=True):
    """As it is kept. `moments`: when each state began. Times are Unix seconds; `keep_s` is how long its results are kept."""

    id: str
    key_id: str
    team_id: str | None
    org_id: str | None
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    outcome: Outcome | None
    moments: Mapping[str, float]
    metadata: Mapping[str, str] | None
    errors: tuple[Problem, ...] | None
    model: str | None
    keep_s: int | None
    total: int
    completed: int
    failed: int
    usage: Usage | None
    output_file_id: str | None
    error_file_id: str | None
    created_at: float
    expires_at: float
    owner: str | None
    host: str | None
    seen_at: float | None
    epoch: int


class NewBatch(msgspec.Struct, frozen=True):
    endpoint: str
    input_file_id: str
    completion_window: str
    window_s: float
    metadata: Mapping[str, str] | None = None
    keep_s: int | None = None


class Owner(msgspec.Struct, frozen=True):
    """A serving process: `id` is its session, `host` the kernel that it runs on."""

    id: str
    host: str


class LeaseLost(Exception):
    """Another process works on the batch by now."""


def create(tx: Connection, key: Key, new: NewBatch) -> Batch:
    """Raises NotFound, BadRequest where the input file is not there or not for this."""
    file = files.get(tx, key, new.input_file_id)
    if file.purpose != "batch":
        raise BadRequest(
            f"The file {file.id} has the purpose '{file.purpose}': upload it with purpose 'batch'",
            param="input_file_id",
            code="invalid_purpose",
        )
    now = database.now(tx)
    id_ = f"batch_{uuid7_hex()}"
    tx.execute(
        insert(batches).values(
            id=id_,
            **owned(key),
            endpoint=new.endpoint,
            input_file_id=new.input_file_id,
            completion_window=new.completion_window,
            status="validating",
            moments={},
            metadata=new.metadata,
            keep_s=new.keep_s,
            total=0,
            completed=0,
            failed=0,
            created_at=now,
            expires_at=now + new.window_s,
            epoch=0,
        )
    )
    return get(tx, key, id_)


def get(tx: Connection, key: Key, id_: str) -> Batch:
    """Raises NotFound, also for one of somebody else's."""
    row = tx.execute(select(batches).where(_Row.id == id_, visible(batches, key))).one_or_none()
    if row is None:
        raise NotFound(f"No such Batch object: {id_}", param="batch_id", code="batch_not_found")
    return _batch(row)


def listed(tx: Connection, key: Key, limit: int, after: str | None = None) -> Page[Batch]:
    """Newest first."""
    query = select(batches).where(visible(batches, key)).order_by(_Row.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(_Row.id < after)
    found = [_batch(row) for row in tx.execute(query)]
    return page(found, limit, [batch.id for batch in found])


def cancel(tx: Connection, key: Key, id_: str) -> Batch:
    """Its owner sees it with its next beat. Raises NotFound, BadRequest for one that has ended."""
    database.locked_for(tx, id_)
    batch = get(tx, key, id_)
    if batch.status in ("cancelling", "cancelled"):
        return batch
    if batch.status not in ("validating", "in_progress") or batch.outcome is not None:
        raise BadRequest(f"A batch that is {batch.status} cannot be cancelled", code="batch_not_cancellable")
    moments = {**batch.moments, "cancelling": database.now(tx)}
    tx.execute(update(batches).where(_Row.id == id_).values(status="cancelling", moments=moments))
    return msgspec.structs.replace(batch, status="cancelling", moments=moments)


def waiting(tx: Connection, owner: Owner) -> Sequence[Batch]:
    """Those that nobody works on, as far as the database knows, or that somebody on this machine does, who may be dead. Oldest first."""
    silent = _Row.seen_at < database.now(tx) - LEASE_S
    near = (_Row.host == owner.host) & (_Row.owner != owner.id)
    query = select(batches).where(_Row.status.in_(UNFINISHED), or_(_Row.owner.is_(None), silent, near))
    return [_batch(row) for row in tx.execute(query.order_by(_Row.id))]


def silent(tx: Connection, batch: Batch) -> bool:
    return batch.seen_at is None or batch.seen_at < database.now(tx) - LEASE_S


def claim(tx: Connection, batch: Batch, owner: Owner) -> Batch | None:
    """The batch in an epoch of its own; None if another was faster."""
    as_seen = (_Row.id == batch.id, _Row.epoch == batch.epoch, _Row.status.in_(UNFINISHED))
    lease = {"owner": owner.id, "host": owner.host, "seen_at": database.now(tx), "epoch": batch.epoch + 1}
    if tx.execute(update(batches).where(*as_seen).values(**lease)).rowcount != 1:
        return None
    return _batch(tx.execute(select(batches).where(_Row.id == batch.id)).one())


def release(tx: Connection, batch: Batch) -> None:
    """For whoever comes next, at once."""
    tx.execute(update(batches).where(*_mine(batch)).values(owner=None, host=None, seen_at=None))


def begin(tx: Connection, batch: Batch, total: int, model: str | None) -> Batch:
    """Its input is valid. A cancelled one stays so. Raises LeaseLost."""
    current = _current(tx, batch)
    status = "in_progress" if current.status == "validating" else current.status
    moments = {**current.moments, "in_progress": database.now(tx)}
    return _changed(tx, batch, status=status, moments=moments, total=total, model=model)


def fail(tx: Connection, batch: Batch, problems: Sequence[Problem]) -> Batch:
    """Nothing of it was begun. Raises LeaseLost."""
    moments = {**_current(tx, batch).moments, "failed": database.now(tx)}
    return _changed(tx, batch, status="failed", moments=moments, errors=_problems(problems), owner=None, host=None)


def beat(tx: Connection, batch: Batch, counts: Counts, note: Problem | None) -> Status:
    """How far it is, and why it waits, if it does. Changes nothing of a batch that is settled. Raises LeaseLost."""
    current = _current(tx, batch)
    if current.outcome is not None:
        return current.status
    changed = _changed(
        tx,
        batch,
        seen_at=database.now(tx),
        errors=None if note is None else _problems([note]),
        **_counted(counts),
    )
    return changed.status


def settle(
    tx: Connection,
    batch: Batch,
    outcome: Outcome,
    counts: Counts,
    *,
    problems: Sequence[Problem] | None,
    output: bool,
    errors: bool,
) -> Batch:
    """Every line has its result, and the files that will hold them have their names. Raises LeaseLost."""
    current = _current(tx, batch)
    now = database.now(tx)
    status = current.status if outcome == "cancelled" else "finalizing"
    return _changed(
        tx,
        batch,
        status=status,
        outcome=outcome,
        moments=current.moments if outcome == "cancelled" else {**current.moments, "finalizing": now},
        errors=_problems(problems),
        output_file_id=files.new_id() if output else None,
        error_file_id=files.new_id() if errors else None,
        seen_at=now,
        **_counted(counts),
    )


def finish(tx: Connection, batch: Batch, sizes: Mapping[str, int]) -> Batch:
    """Its files are in their place: `sizes` by id. Raises LeaseLost."""
    assert batch.outcome is not None
    now = database.now(tx)
    for id_, kind in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
        if id_ is not None and id_ in sizes:
            name = f"{batch.id}_{kind}.jsonl"
            expires_at = None if batch.keep_s is None else now + batch.keep_s
            whose = batch.key_id, batch.team_id, batch.org_id
            files.add(tx, File(id_, "batch_output", name, sizes[id_], now, expires_at, *whose))
    return _changed(
        tx,
        batch,
        status=batch.outcome,
        moments={**batch.moments, batch.outcome: now},
        owner=None,
        host=None,
        seen_at=None,
    )


def unknown(tx: Connection, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are of no unfinished batch."""
    query = select(_Row.id).where(_Row.id.in_(ids), _Row.status.in_(UNFINISHED))
    known = set(tx.execute(query).scalars())
    return [id_ for id_ in ids if id_ not in known]


def _mine(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    # A batch that has ended has no owner: a late beat of its last one must not take NULL for itself.
    return (_Row.id == batch.id, _Row.owner.is_not(None), _Row.owner == batch.owner, _Row.epoch == batch.epoch)


def _current(tx: Connection, batch: Batch) -> Batch:
    database.locked_for(tx, batch.id)
    row = tx.execute(select(batches).where(*_mine(batch))).one_or_none()
    if row is None:
        raise LeaseLost
    return _batch(row)


def _changed(tx: Connection, batch: Batch, **values: Any) -> Batch:
    if tx.execute(update(batches).where(*_mine(batch)).values(**values)).rowcount != 1:
        raise LeaseLost
    return _batch(tx.execute(select(batches).where(_Row.id == batch.id)).one())


def _counted(counts: Counts) -> dict[str, Any]:
    return {
        "completed": counts.completed,
        "failed": counts.failed,
        "usage": msgspec.structs.asdict(counts.usage),
    }


def _problems(problems: Sequence[Problem] | None) -> list[dict[str, Any]] | None:
    return None if problems is None else [msgspec.structs.asdict(problem) for problem in problems]


def _batch(row: Row[Any]) -> Batch:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    if values["errors"] is not None:
        values["errors"] = tuple(Problem(**problem) for problem in values["errors"])
    if values["usage"] is not None:
        values["usage"] = Usage(**values["usage"])
    return Batch(**values)
