"""Keeps the snapshot in force up to date: asks the database for its newest revision and loads what is newer.

A database that is slow, hung or gone leaves the last snapshot in force: requests go on with what is known. All questions
are asked on one daemon thread, so that neither the event loop nor the end of the process ever waits for a database.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import structlog

from gateway.deadline import deadline
from gateway.snapshot import Current, Snapshot
from gateway.snapshot_store import Loaded, Skipped, SnapshotStore

log = structlog.get_logger(__name__)


class Refresher:
    """`run` is the loop; `refresh_now` shows a writer what it wrote. `slow_s` without an answer counts as unhealthy."""

    def __init__(self, store: SnapshotStore, current: Current, interval_s: float = 0.25, slow_s: float = 2.0) -> None:
        self._store = store
        self._current = current
        self._interval_s = interval_s
        self._slow_s = slow_s
        self._asking = _Asking()
        self._confirmed = time.monotonic()
        self._trouble: str | None = None
        self._skipped: tuple[Skipped, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether the database answered the last question in time."""
        return self._trouble is None

    @property
    def revision(self) -> int:
        """The one in force."""
        return self._current.snapshot.revision

    @property
    def age_s(self) -> float:
        """Seconds since the database last confirmed the snapshot in force, or brought it."""
        return time.monotonic() - self._confirmed

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Stored objects that the snapshot in force had to leave out."""
        return self._skipped

    def load(self) -> Snapshot:
        """Blocks until a first snapshot is in force: for start-up, which must see failures. Raises SQLAlchemyError."""
        self._accept(self._store.load())
        return self._current.snapshot

    async def run(self) -> None:
        """Until cancelled. The thread asks by itself: an answer that says nothing new costs the event loop no turn."""
        loop = asyncio.get_running_loop()
        self._asking.repeat(lambda: self._poll(loop), self._interval_s)
        try:
            while True:
                await asyncio.sleep(self._slow_s / 2)
                if self._asking.busy_s > self._slow_s:
                    self._note(self._slow)
        finally:
            self._asking.repeat(None, 0.0)

    def close(self, wait_s: float = 0.0) -> None:
        """Lets the thread end after the question that it is at. Blocks until then, for up to `wait_s`."""
        self._asking.close(wait_s)

    async def refresh_now(self) -> bool:
        """Whether the newest revision at the time of the call is in force. Does not raise for a database in trouble."""
        loop = asyncio.get_running_loop()
        answer = self._asking.submit(lambda: self._ask(loop))
        try:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that meets the answer.
            async with deadline(self._slow_s):
                await asyncio.wrap_future(answer)
        except TimeoutError:
            self._note(self._slow)
        except Exception as error:  # noqa: BLE001 — a task border: whatever breaks, requests go on with the last snapshot
            self._note(_told(error))
        else:
            self._note(None)
        return self.healthy

    @property
    def _slow(self) -> str:
        return f"no answer within {self._slow_s:g} s"

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the thread. The event loop hears of it only if something has changed."""
        trouble: str | None = None
        try:
            self._ask(loop)
        except Exception as error:  # noqa: BLE001 — a thread border: whatever breaks, requests go on with the last snapshot
            trouble = _told(error)
        if trouble is None and self._asking.busy_s > self._slow_s:
            trouble = self._slow
        if trouble != self._trouble:
            with suppress(RuntimeError):  # the loop is closed, and nobody wants to know any more
                loop.call_soon_threadsafe(self._note, trouble)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the thread. An answer that comes after `slow_s` still counts: a slow database must not mean none."""
        known = self._current.snapshot
        revision = self._store.revision()
        if revision < known.revision:
            raise LostRevisionsError(f"the database went back from revision {known.revision} to {revision}: restart")
        if revision > known.revision:
            loop.call_soon_threadsafe(self._accept, self._store.load(known))
        self._confirmed = time.monotonic()

    def _accept(self, loaded: Loaded) -> None:
        if loaded.snapshot.revision < self._current.snapshot.revision:
            return
        for skipped in set(loaded.skipped).difference(self._skipped):
            log.warning("snapshot.skipped", kind=skipped.kind, id=skipped.id, reason=skipped.reason)
        self._skipped = loaded.skipped
        self._current.replace(loaded.snapshot)

    def _note(self, trouble: str | None) -> None:
        """Logs when things become bad or good again, not four times a second."""
        if trouble is not None and self._trouble is None:
            log.warning("snapshot.stale", reason=trouble, revision=self._current.snapshot.revision)
        elif trouble is None and self._trouble is not None:
            log.info("snapshot.fresh", revision=self._current.snapshot.revision)
        self._trouble = trouble


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class LostRevisionsError(Exception):
    """The database is an older copy of itself. What changed since is unknown, so the snapshot is kept."""


class _Asking:
    """One daemon thread that answers questions in turn, and repeats one of its own. A question whose asker gave up before its turn is
    dropped."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._own: Callable[[], None] | None = None  # never raises
        self._every_s: float | None = None
        self._busy_since: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the thread has been at the question that it is at."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def repeat(self, own: Callable[[], None] | None, every_s: float) -> None:
        """Asks `own` whenever nothing else was asked for `every_s`; None ends that."""
        self._own, self._every_s = own, None if own is None else every_s
        if own is not None:
            self.submit(lambda: None)  # the thread may be waiting for as long as it takes

    def submit(self, question: Callable[[], None]) -> Future[None]:
        self._start()
        answer: Future[None] = Future()
        self._questions.put((answer, question))
        return answer

    def close(self, wait_s: float) -> None:
        if self._thread is not None:
            self._questions.put(None)
            self._thread.join(wait_s)
            self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="penstock-refresh", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                item = self._questions.get(timeout=self._every_s)
            except queue.Empty:
                self._busy_since = time.monotonic()
                own = self._own
                if own is not None:
                    own()
                self._busy_since = None
                continue
            if item is None:
                return
            answer, question = item
            if not answer.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                question()
            except Exception as error:  # noqa: BLE001 — a thread border: the asker gets it and logs it
                answer.set_exception(error)
            else:
                answer.set_result(None)
            self._busy_since = None
