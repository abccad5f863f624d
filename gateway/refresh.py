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

import structlog

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
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.refresh_now()

    def close(self) -> None:
        """Lets the thread end after the question that it is at. Does not wait for it."""
        self._asking.close()

    async def refresh_now(self) -> bool:
        """Whether the newest revision at the time of the call is in force. Does not raise for a database in trouble."""
        loop = asyncio.get_running_loop()
        answer = self._asking.submit(lambda: self._ask(loop))
        try:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that meets the answer.
            async with asyncio.timeout(self._slow_s):
                await asyncio.wrap_future(answer)
        except TimeoutError:
            self._note(f"no answer within {self._slow_s:g} s")
        except Exception as error:  # noqa: BLE001 — a task border: whatever breaks, requests go on with the last snapshot
            self._note(f"{type(error).__name__}: {error}")
        else:
            self._note(None)
        return self.healthy

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the thread. An answer that comes after `slow_s` still counts: a slow database must not mean none."""
        known = self._current.snapshot
        revision = self._store.revision()
        if revision < known.revision:
            raise LostRevisionsError(f"the database went back from revision {known.revision} to {revision}: restart")
        loaded = self._store.load(known) if revision > known.revision else None
        loop.call_soon_threadsafe(self._accept, loaded)

    def _accept(self, loaded: Loaded | None) -> None:
        self._confirmed = time.monotonic()
        if loaded is None or loaded.snapshot.revision < self._current.snapshot.revision:
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


class LostRevisionsError(Exception):
    """The database is an older copy of itself. What changed since is unknown, so the snapshot is kept."""


class _Asking:
    """One daemon thread that answers questions in turn. A question whose asker gave up before its turn is dropped."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, question: Callable[[], None]) -> Future[None]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="penstock-refresh", daemon=True)
            self._thread.start()
        answer: Future[None] = Future()
        self._questions.put((answer, question))
        return answer

    def close(self) -> None:
        """Lets the thread end after the question it is at."""
        if self._thread is not None:
            self._questions.put(None)
            self._thread = None

    def _work(self) -> None:
        while (item := self._questions.get()) is not None:
            answer, question = item
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                question()
            except Exception as error:  # noqa: BLE001 — a thread border: the asker gets it and logs it
                answer.set_exception(error)
            else:
                answer.set_result(None)
