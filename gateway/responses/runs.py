"""Responses that go on without their client: each is a task of this process; its events are kept for whoever comes to hear them.

The database is told twice a second that a run is alive and what it said. What it was not told of for some seconds is lost, and any
process that notices says so. Another process stops a run by a mark in its row, which is read at the same beat.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, final

import structlog
from sqlalchemy import Connection

from gateway import errors
from gateway.responses import store
from gateway.responses.frame import Problem
from gateway.responses.shelf import Shelf
from gateway.responses.store import LOST, Stored
from gateway.signs import RUNS, Signs

log = structlog.stdlib.get_logger(__name__)

BEAT_S: Final = 0.5
SWEEP_S: Final = 5.0
LOST_S: Final = 10.0  # without a beat
MAX_RUNS: Final = 1_000
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024  # of one run
MAX_BYTES: Final = 256 * 1024 * 1024  # of all of them, before no more are begun
WRITES: Final = 5  # attempts to keep the end of a run
TOO_LONG: Final = Problem("server_error", f"The response's events passed {MAX_EVENT_BYTES} bytes")


@final
class Run:
    """One response in the background, and the `Exchange` that it is answered into. Event n of `events` has the sequence number n."""

    def __init__(self, stored: Stored, headers: Mapping[bytes, bytes], body: bytes, started_at: float) -> None:
        self.stored = stored
        self.headers = headers
        self.body = body
        self.started_at = started_at
        self.begun = False
        self.events: list[bytes] = []
        self.kept = 0  # how many of them the database has
        self.ended = False
        self.stopped = False  # somebody wants it to end
        self.too_long = False
        self.size = 0
        self.current: Callable[[], bytes] = lambda: stored.response
        self.task: asyncio.Task[None] | None = None
        self._interrupted = False
        self._waiting: list[asyncio.Future[None]] = []

    def stop(self) -> None:
        """Cancels the upstream's call at once."""
        if self.interrupt():
            self.stopped = True

    def interrupt(self) -> bool:
        """Once, and only while it runs: what follows its end must not be disturbed. Whether this did it."""
        if self._interrupted or self.ended or self.task is None:
            return False
        self._interrupted = True
        return self.task.cancel()

    async def stopping(self) -> None:
        """Stops it and waits for its end, which is near."""
        self.stop()
        while not self.ended:
            await self.more()

    def end_with(self, events: bytes) -> None:
        """Nothing follows."""
        self.send(events)
        self.ended = True
        self._wake()

    async def more(self) -> None:
        """Returns when there is something new to hear."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    # As an exchange

    def respond(self, status: int, head: bytes, body: bytes) -> None:  # noqa: ARG002 — the port's names
        self.begun = True

    def begin(self, status: int, head: bytes) -> None:  # noqa: ARG002 — the port's names
        self.begun = True

    def begin_events(self, status: int, head: bytes) -> None:
        self.begin(status, head)

    def send(self, data: bytes) -> None:
        added = [one + b"\n\n" for one in data.split(b"\n\n") if one and not one.startswith(b":")]
        self.events += added
        self.size += len(data)
        if self.size > MAX_EVENT_BYTES and self.interrupt():
            self.too_long = True
        if added:
            self._wake()

    def send_chunk(self, data: bytes, chunk: bytes) -> None:  # noqa: ARG002 — the port's names
        self.send(data)

    def way(self) -> None: ...

    def end(self) -> None: ...

    def break_off(self) -> None: ...

    @property
    def write_paused(self) -> bool:
        return False

    async def drained(self) -> None: ...

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


@final
class Runs:
    """Those of this process. `alone`: no other process runs any, so whatever was running before it started is lost.

    Without `signs` of some, here or elsewhere, nobody looks for any.
    """

    def __init__(self, shelf: Shelf, *, alone: bool, signs: Signs | None = None) -> None:
        self._shelf = shelf
        self._signs = signs
        self._wake = asyncio.Event()
        self._lost_before = time.time() if alone else 0.0
        self._telling = asyncio.Lock()  # one at a time says which events the database has
        self._runs: dict[str, Run] = {}

    def find(self, owner: str, id_: str) -> Run | None:
        run = self._runs.get(id_)
        return run if run is not None and run.stored.owner == owner else None

    def admit(self) -> None:
        """Raises Overloaded where there are too many."""
        if len(self._runs) >= MAX_RUNS or sum(run.size for run in self._runs.values()) > MAX_BYTES:
            raise errors.Overloaded(
                "This process has as many responses in the background as it may", code="too_many_in_background"
            )

    def add(self, run: Run) -> None:
        self._runs[run.stored.id] = run
        self._wake.set()

    async def keep_end(self, run: Run, stored: Stored, extra: Callable[[Connection], None]) -> None:
        """Writes the end of a run, and what follows from it if it is the end. A database that is away is asked again for a while."""

        def write(tx: Connection) -> None:
            status = store.end(tx, stored)
            if status is not None and len(run.events) > run.kept:
                store.add_events(tx, stored.id, len(run.events) - 1, b"".join(run.events[run.kept :]))
            if status == stored.status:
                extra(tx)

        try:
            for attempt in range(WRITES):
                try:
                    async with self._telling:
                        await self._shelf.change(write)
                except errors.Overloaded:
                    await asyncio.sleep(BEAT_S * 2**attempt)
                else:
                    return
        finally:
            self._runs.pop(stored.id, None)

    async def run(self) -> None:
        """Until cancelled."""
        sweep_at = 0.0
        if self._signs is not None:
            self._signs.follow(RUNS, self._wake.set)
        while True:
            await self._rest()
            try:
                if self._runs:
                    async with self._telling:
                        await self._beat()
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_S
                    await self.sweep()
            except errors.GatewayError:
                log.debug("responses.beat_missed")  # the shelf has said why
            except Exception:  # a task's border: one beat must not be the last
                log.exception("responses.beat_failed")

    async def _rest(self) -> None:
        if self._runs or self._signs is None or self._signs.there(RUNS):
            await asyncio.sleep(BEAT_S)
        else:
            self._wake.clear()
            await self._wake.wait()

    async def sweep(self) -> None:
        """Ends what nobody runs any longer."""
        since, mine = max(time.time() - LOST_S, self._lost_before), tuple(self._runs)
        if await self._shelf.ask(lambda tx: store.any_lost(tx, since, mine)):
            lost = await self._shelf.change(lambda tx: store.give_up(tx, since, mine))
            log.warning("responses.lost", count=lost, reason=LOST.message)

    def lost(self, stored: Stored) -> bool:
        """Whether `sweep` would end it."""
        unseen = (stored.seen_at or 0.0) < max(time.time() - LOST_S, self._lost_before)
        return stored.running and unseen and stored.id not in self._runs

    async def close(self) -> None:
        """Ends every run; each keeps what it has."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for run in tuple(self._runs.values()):
            run.interrupt()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        runs = tuple(
            self._runs.values()
        )  # also those whose end the database does not take yet: nobody shall give them up meanwhile
        parts = [(run, run.kept, len(run.events)) for run in runs if len(run.events) > run.kept and not run.ended]
        ids = [run.stored.id for run in runs]

        def tell(tx: Connection) -> set[str]:
            stops = store.seen(tx, ids, time.time())
            for run, start, end in parts:
                if run.stored.id not in stops:
                    store.add_events(tx, run.stored.id, end - 1, b"".join(run.events[start:end]))
            return stops

        stops = await self._shelf.change(tell)
        for run, _, end in parts:
            if run.stored.id not in stops:
                run.kept = end
        for run in runs:
            if run.stored.id in stops:
                run.stop()
