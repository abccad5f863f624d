"""The life of a job in one process: take it, score chunk by chunk, write the output, leave nothing behind.

Chunks are cut by the input alone, and a process of the model runs each of them in one go, so that what comes out does not depend on who
scored it, or on how often somebody was killed.
"""

import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import InferenceError
from inference.ports import Bundle
from inference.scoring import job_store
from inference.scoring.errors import Failed, LeaseLost, Paused, Stopped
from inference.scoring.job import Count, Job, Owner, State
from inference.scoring.job_store import Database
from inference.scoring.rows import Bad, Plan, plan, read
from inference.scoring.scorer import Scored, Scorer
from inference.scoring.sinks import layout, output, write_refused
from inference.scoring.sources import Row, Source, open_source
from inference.scoring.till import Till
from inference.scoring.worksheet import Chunk, Lock, Position, Refusal, Worksheet
from inference.serving.frame import Frame

log = structlog.stdlib.get_logger(__name__)

BEAT_S: Final = 1.0
MAX_ATTEMPTS: Final = 20  # that scored nothing


class Terms(msgspec.Struct, frozen=True):
    """`folder`: of all worksheets. `databases`: URLs by name. `loader`: where a bundle is loaded. `timeout_s`: of one run of the model."""

    folder: str
    databases: Mapping[str, str]
    loader: str
    timeout_s: float


@final
class Work:
    """Blocks: for the main thread of a process. `find` gives the bundle of a version, whatever aliases say meanwhile; `till` keeps the
    accounts of jobs that are on one, by the bundle that they score with: without it they are left to others."""

    def __init__(
        self,
        database: Database,
        owner: Owner,
        terms: Terms,
        find: Callable[[str, int], Bundle],
        stopping: threading.Event,
        told: Callable[[Count], None] = lambda _: None,
        till: Callable[[Bundle], Till] | None = None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._terms = terms
        self._find = find
        self._stopping = stopping
        self._told = told
        self._till = till

    def run(self, id_: str) -> bool:
        """Whether it was free: the job is over or given back when this returns, or another's. Raises SQLAlchemyError, OSError."""
        folder = Path(self._terms.folder) / id_
        try:
            with Lock(folder):
                job = self._claim(id_)
                with Beat(self._database, job) as beat:
                    self._held(job, folder, beat)
        except (BlockingIOError, LeaseLost):
            return False
        return True

    def _claim(self, id_: str) -> Job:
        with self._database.writing() as tx:
            found = job_store.find(tx, id_)
            unpaid = found.spec.key_id is not None and self._till is None
            if unpaid or not job_store.free(found, self._owner.host, job_store.now(tx)):
                raise LeaseLost
            return job_store.claim(tx, found, self._owner)

    def _held(self, job: Job, folder: Path, beat: "Beat") -> None:
        try:
            _require_attempts(job)
            with Worksheet(folder, job.epoch) as worksheet:
                self._score(job, worksheet, beat)
        except Stopped:
            with self._database.writing() as tx:
                job_store.requeue(tx, job, beat.count)
            log.info("scoring.stopped", job=job.id, rows=beat.count.done)
        except Paused as paused:
            with self._database.writing() as tx:
                job_store.pause(tx, job, beat.count, paused.code, paused.message)
            log.info("scoring.paused", job=job.id, code=paused.code, rows=beat.count.done)
        except Failed as failure:
            self._end(job, folder, beat, "failed", failure.code, failure.message)
        except InferenceError as error:  # of the registry: the version is gone
            self._end(job, folder, beat, "failed", error.code or "model_not_found", error.message)

    def _score(self, job: Job, worksheet: Worksheet, beat: "Beat") -> None:
        """Raises Failed, Paused, Stopped, LeaseLost."""
        bundle = self._find(job.model, job.version)
        till = None if job.spec.key_id is None or self._till is None else self._till(bundle)
        source = open_source(job.spec, self._terms.databases)
        if worksheet.remember("fingerprint", source.fingerprint()) != source.fingerprint():
            raise Failed("input_changed", "The input was changed while the job was at work")
        planned = plan(bundle.signature, source.names, job.spec.key, job.spec.features, textual=source.textual)
        position = worksheet.position
        total = worksheet.remember("total", None if position.rows else source.total())
        self._tell(beat, Count(total, position.rows, position.refused), position)
        self._check(job, worksheet, beat.count)
        if position.rows < total:
            with (
                Scorer(bundle, self._terms.loader, self._terms.timeout_s) as scorer,
                closing(_chunks(source, position, job.spec.chunk_rows)) as chunks,
            ):
                for chunk in chunks:
                    self._check(job, worksheet, beat.count, beat)
                    with _held(till, worksheet, position, len(chunk)) as kept:
                        position = _scored(worksheet, planned, scorer, position, chunk)
                        kept(position)
                    self._tell(beat, Count(total, position.rows, position.refused), position)
        self._check(job, worksheet, beat.count, beat)
        found = layout(worksheet, bundle.signature, job.spec.key)
        write_refused(job, worksheet)
        with output(job, worksheet, found, self._terms.databases) as publish:
            self._check(job, worksheet, beat.count, beat)
            self._end(job, Path(self._terms.folder) / job.id, beat, "completed", publish=publish)

    def _check(self, job: Job, worksheet: Worksheet, count: Count, beat: "Beat | None" = None) -> None:
        """Raises Stopped, LeaseLost, Failed: whatever keeps the next chunk from being scored."""
        if beat is not None and beat.lost:
            raise LeaseLost
        if count.total is not None and count.refused > job.spec.max_refused * max(1, count.total):
            write_refused(job, worksheet)
            share = f"{count.refused} of {count.total} rows"
            admitted = f"{job.spec.max_refused:.1%} are admitted"
            raise Failed("too_many_refused", f"{share} were refused already, and {admitted}: see {job.spec.refused}")
        if self._stopping.is_set():
            raise Stopped

    def _tell(self, beat: "Beat", count: Count, position: Position) -> None:
        beat.count = count
        beat.advanced = beat.advanced or position.chunks > beat.since(position)
        self._told(count)

    def _end(
        self,
        job: Job,
        folder: Path,
        beat: "Beat",
        state: State,
        code: str | None = None,
        message: str | None = None,
        *,
        publish: Callable[[], None] = lambda: None,
    ) -> None:
        """Under the lease: nobody sees an output of a job that was cancelled before."""
        with self._database.writing() as tx:
            job_store.finish(tx, job, state, beat.count, code, message)
            publish()
        log.info("scoring.ended", job=job.id, state=state, code=code, rows=beat.count.done, refused=beat.count.refused)
        shutil.rmtree(folder, ignore_errors=True)


def _require_attempts(job: Job) -> None:
    if job.attempts > MAX_ATTEMPTS:
        raise Failed("server_error", f"{MAX_ATTEMPTS} attempts ended before they scored anything")


@final
class Beat:
    """A thread that says once a second that the job is worked on, and how far it is. `lost`: the lease is another's, or nobody's."""

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self._job = job
        self._over = threading.Event()
        self._first: int | None = None
        self._thread = threading.Thread(target=self._run, name="scoring-beat", daemon=True)
        self.count = job.count
        self.advanced = False
        self.lost = False

    def __enter__(self) -> "Beat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def since(self, position: Position) -> int:
        """Chunks that were scored before this lease."""
        if self._first is None:
            self._first = position.chunks
        return self._first

    def _run(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                with self._database.writing() as tx:
                    job_store.beat(tx, self._job, self.count, advanced=self.advanced)
            except LeaseLost:
                self.lost = True
                return
            except SQLAlchemyError as error:  # a lease lasts for many beats
                log.warning("scoring.not_heard", job=self._job.id, reason=type(error).__name__)


def _chunks(source: Source, after: Position, size: int) -> Generator[list[Row]]:
    """Closed, it lets go of the database at once."""
    with closing(source.rows(after)) as rows:
        while chunk := list(islice(rows, size)):
            yield chunk


@contextmanager
def _held(
    till: Till | None, worksheet: Worksheet, position: Position, rows: int
) -> Iterator[Callable[[Position], None]]:
    """On the account for the time of a block, which says that its chunk is kept by where the next one begins. Raises Paused, Stopped."""
    if till is None:
        yield lambda _: None
        return
    before = worksheet.held
    if before is not None and before[0] == position.chunks and till.paid(before[1]):
        yield lambda _: None
        return
    id_ = till.new_id()
    worksheet.hold(position.chunks, id_)
    till.hold(id_, position.chunks, rows, position.refused)
    yield lambda after: till.settle(id_, rows - (after.refused - position.refused))


def _scored(worksheet: Worksheet, planned: Plan, scorer: Scorer, position: Position, rows: list[Row]) -> Position:
    """One chunk, from its rows to its place in the worksheet: where the next begins."""
    with worksheet.chunk() as chunk:
        bad: dict[int, Bad] = {}
        keys = _keys(planned, chunk, position, rows, bad)
        left = [number for number in range(len(rows)) if number not in bad]
        frame, unread = read(planned, [rows[number].values for number in left])
        bad.update((left[number], why) for number, why in unread.items())
        left = [number for number in left if number not in bad]
        scored = _answered(scorer, frame)
        bad.update((left[number], why) for number, why in scored.bad.items())
        left = [number for number in left if number not in bad]
        refusals = [Refusal(position.rows + number + 1, keys[number], *bad[number]) for number in sorted(bad)]
        after = _behind(planned, position, rows, len(bad))
        outputs = {name: array.tolist() for name, array in scored.outputs.items()}
        chunk.write(after, [keys[number] for number in left], outputs, refusals)
    return after


def _answered(scorer: Scorer, frame: Frame | None) -> Scored:
    return Scored({}, {}) if frame is None else scorer.score(frame)


def _keys(planned: Plan, chunk: Chunk, position: Position, rows: list[Row], bad: dict[int, Bad]) -> list[Any]:
    """Of each row; `bad` learns of rows that are broken, have no key, or the key of another."""
    keys: list[Any] = []
    for number, row in enumerate(rows):
        key: Any = position.rows + number + 1
        if row.fault is not None:
            bad[number] = Bad("invalid_shape", None, row.fault)
            key = key if planned.key is None else None
        elif planned.key is not None:
            key = _key(row.values[planned.key])
            if key is None:
                bad[number] = Bad("missing_key", None, "The row has no key")
            elif chunk.known(str(key)):
                bad[number] = Bad("duplicate_key", None, "An earlier row has the same key")
        keys.append(key)
    return keys


def _key(value: Any) -> int | str | None:
    if value is None or value == "":
        return None
    return value if type(value) is int and abs(value) < 1 << 63 else str(value)


def _behind(planned: Plan, position: Position, rows: list[Row], refused: int) -> Position:
    """With the last key and its ties, by which a query goes on."""
    last, ties = position.last, position.ties
    if planned.key is not None and not planned.textual:
        for row in rows:
            value = row.values[planned.key]
            value = value if isinstance(value, int | float | str) else str(value)
            last, ties = value, ties + 1 if ties and value == last else 1
    return Position(position.rows + len(rows), position.refused + refused, position.chunks + 1, last, ties)
