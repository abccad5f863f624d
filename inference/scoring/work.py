"""The life of a job in one process: take it, score chunk by chunk, write the output, leave nothing behind.

Chunks are cut by the input alone, and a process of the model runs each of them in one go, so that what comes out does not depend on who
scored it, or on how often somebody was killed.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import InferenceError
from inference.ports import Bundle
from inference.scoring import job_store
from inference.scoring.cluster import Cluster, Task
from inference.scoring.errors import Failed, LeaseLost, Paused, Stopped
from inference.scoring.job import Count, Job, Owner, State
from inference.scoring.job_store import Database
from inference.scoring.parts import Part, chunks, scored
from inference.scoring.rows import Plan, plan
from inference.scoring.scorer import Scorer
from inference.scoring.sinks import layout, output, write_refused
from inference.scoring.sources import Row, Source, open_source
from inference.scoring.till import Till
from inference.scoring.worksheet import Lock, Position, Worksheet

log = structlog.stdlib.get_logger(__name__)

BEAT_S: Final = 1.0
MAX_ATTEMPTS: Final = 20  # that scored nothing


class Terms(msgspec.Struct, frozen=True):
    """`folder`: of all worksheets. `databases`: URLs by name. `loader`: where a bundle is loaded. `timeout_s`: of one run of the model."""

    folder: str
    databases: Mapping[str, str]
    loader: str
    timeout_s: float


class Sheet(NamedTuple):
    """What is to be done of a job from `position` on."""

    job: Job
    bundle: Bundle
    source: Source
    planned: Plan
    worksheet: Worksheet
    position: Position
    total: int
    till: Till | None


@final
class Work:
    """Blocks: for the main thread of a process. `find` gives the bundle of a version, whatever aliases say meanwhile; `till` keeps the
    accounts of jobs that are on one, by the bundle that they score with: without it they are left to others. `cluster`
    scores in the place of this process.
    """

    def __init__(
        self,
        database: Database,
        owner: Owner,
        terms: Terms,
        find: Callable[[str, int], Bundle],
        stopping: threading.Event,
        told: Callable[[Count], None] = lambda _: None,
        till: Callable[[Bundle], Till] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._terms = terms
        self._find = find
        self._stopping = stopping
        self._told = told
        self._till = till
        self._cluster = cluster

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
            steps = self._here if self._cluster is None else self._there
            for after in steps(Sheet(job, bundle, source, planned, worksheet, position, total, till)):
                self._tell(beat, Count(total, after.rows, after.refused), after)
                if after.rows < total:
                    self._check(job, worksheet, beat.count, beat)
        self._check(job, worksheet, beat.count, beat)
        found = layout(worksheet, bundle.signature, job.spec.key)
        write_refused(job, worksheet)
        with output(job, worksheet, found, self._terms.databases) as publish:
            self._check(job, worksheet, beat.count, beat)
            self._end(job, Path(self._terms.folder) / job.id, beat, "completed", publish=publish)

    def _here(self, sheet: Sheet) -> Iterator[Position]:
        """Chunk by chunk in this process: where each of them ends. Raises Failed, Paused, LeaseLost."""
        position, size = sheet.position, sheet.job.spec.chunk_rows
        with self._scorer(sheet) as scorer, closing(chunks(sheet.source, position, size)) as found:
            for rows in found:
                with _held(sheet.till, sheet.worksheet, position, len(rows)) as kept:
                    position = _scored(sheet, scorer, position, rows)
                    kept(position)
                yield position

    def _there(self, sheet: Sheet) -> Iterator[Position]:
        """The same by a cluster. Raises Failed, LeaseLost."""
        job, position = sheet.job, sheet.position
        assert self._cluster is not None, "it was asked for"
        if job.spec.input.format == "sql":
            raise Failed("unsupported_source", "A query is read by one process: a cluster needs files")
        last = -(-sheet.total // job.spec.chunk_rows)
        task = Task(sheet.bundle, job.spec, self._terms.loader, self._terms.timeout_s, position.chunks, last)
        with self._cluster.parts(task) as parts:
            for part in parts:
                try:
                    position = _taken(sheet.worksheet, position, part)
                except _Repeated:  # a key of the rows before that block, of which who scored it could not know
                    with (
                        self._scorer(sheet) as scorer,
                        closing(chunks(sheet.source, position, job.spec.chunk_rows)) as found,
                    ):
                        position = _scored(sheet, scorer, position, next(found))
                yield position

    def _scorer(self, sheet: Sheet) -> Scorer:
        return Scorer(sheet.bundle, self._terms.loader, self._terms.timeout_s)

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


def _scored(sheet: Sheet, scorer: Scorer, position: Position, rows: list[Row]) -> Position:
    """One chunk, from its rows to its place in the worksheet: where the next begins."""
    with sheet.worksheet.chunk() as chunk:
        part = scored(sheet.planned, scorer, position, rows, chunk.known)
        chunk.write(part.after, part.keys, part.outputs, part.refusals)
    return part.after


class _Repeated(Exception):
    pass


def _taken(worksheet: Worksheet, position: Position, part: Part) -> Position:
    """One that was scored elsewhere. Raises _Repeated, and nothing is done, where a key of it was there before."""
    refused = position.refused + len(part.refusals)
    after = msgspec.structs.replace(part.after, refused=refused, chunks=position.chunks + 1)
    with worksheet.chunk() as chunk:
        if any(chunk.known(key) for key in part.seen):
            raise _Repeated
        chunk.write(after, part.keys, part.outputs, part.refusals)
    return after
