"""Re-embeddings of one process: which it works on, and what is done with those that are over. Light to import."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, final

import structlog
from sqlalchemy import Connection

from retrieval.database import Database, locked_for
from retrieval.job_store import LeaseLost, Owner
from retrieval.reembedding import moves, store
from retrieval.reembedding.record import Reembedding
from retrieval.sessions import dead

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 1.0
BEAT_S: Final = 5.0
BROKEN_S: Final = 5.0


class Worker(Protocol):
    """What one needs, made with the first of them."""

    async def run(self, mine: Reembedding) -> None:
        """Raises LeaseLost, SQLAlchemyError."""

    def collect(self, over: Reembedding) -> None:
        """Blocks. Takes away what one that is over has left."""


@final
class ReembeddingRunner:
    """One per process: `background` runs as long as the server does; then `close`. One is worked on at a time."""

    def __init__(
        self,
        database: Database,
        owner: Owner,
        folder: Path,
        worker: Callable[[], Awaitable[Worker]],
        any_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """`any_work`: whether there may be one in the database at all (`store.ANY`). Once there is, `notice` says so."""
        self._any_work = any_work
        self._database = database
        self._owner = owner
        self._sessions = folder / "sessions"
        self._worker = worker
        self._wake = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def notice(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stopped = True

    async def close(self) -> None:
        """What is at work is given up: whoever comes next goes on with it."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def background(self) -> None:
        while True:
            self._wake.clear()
            worked = False
            try:
                worked = self._any_work() and not self._stopped and await self._look()
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("reembedding.not_seen", reason=str(error).partition("\n")[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0 if worked else LOOK_S if self._any_work() else None):
                    await self._wake.wait()

    async def _look(self) -> bool:
        """Whether something was worked on."""
        await asyncio.to_thread(self._finish)
        for over in await asyncio.to_thread(self._database.read, lambda tx: store.uncollected(tx, 20)):
            worker = await self._worker()
            await asyncio.to_thread(worker.collect, over)
        mine = await asyncio.to_thread(self._claim)
        if mine is None or self._stopped:
            return False
        self._task = asyncio.get_running_loop().create_task(self._run(mine))
        await self._task
        return True

    def _finish(self) -> None:
        """Blocks. Nobody wants back from what was swapped long ago."""
        for each in self._database.read(store.outlived):
            self._database.write(lambda tx, each=each: _outlived(tx, each))  # type: ignore[misc]

    def _claim(self) -> Reembedding | None:
        """Blocks."""
        for found in self._database.read(lambda tx: store.waiting(tx, self._owner)):
            if self._free(found):
                mine = self._database.write(lambda tx, found=found: store.claim(tx, found, self._owner))  # type: ignore[misc]
                if mine is not None:
                    return mine
        return None

    def _free(self, found: Reembedding) -> bool:
        """As for ingestion: nobody has it, or its owner is silent, or was a process of this machine and is dead."""
        if found.owner is None or found.host != self._owner.host or found.owner == self._owner.id:
            return True
        return dead(self._sessions, found.owner)

    async def _run(self, mine: Reembedding) -> None:
        beat = asyncio.get_running_loop().create_task(self._beat_on(mine))
        try:
            await (await self._worker()).run(mine)
        except LeaseLost:
            log.info("reembedding.lease_lost", reembedding=mine.id)
        except Exception as error:  # a task's border: it is tried again, and not for ever
            log.exception("reembedding.broke", reembedding=mine.id)
            await asyncio.to_thread(self._give_back, mine, type(error).__name__)
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    def _give_back(self, mine: Reembedding, what: str) -> None:
        """Blocks."""

        def work(tx: Connection) -> None:
            reason = f"The server failed at it ({what})"
            if mine.attempts + 1 >= mine.terms.max_attempts:
                moves.fail(tx, store.hold(tx, mine), reason)
            else:
                store.release(tx, mine, BROKEN_S, reason=reason, attempts=mine.attempts + 1)

        with contextlib.suppress(LeaseLost):
            self._database.write(work)

    async def _beat_on(self, mine: Reembedding) -> None:
        """An index and a gate take longer than a lease."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await asyncio.to_thread(self._database.write, lambda tx: store.beat(tx, mine))
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("reembedding.not_heard", reason=str(error).partition("\n")[0])


def _outlived(tx: Connection, each: Reembedding) -> None:
    locked_for(tx, each.collection_id)
    found = store.by_id(tx, each.collection_id, each.id)
    if found is not None and found.state == "swapped":
        moves.finish(tx, found.collection_id, found.id, found.reason)
    elif found is not None and found.state == "failed":
        store.put(tx, found.id, state="cancelled")
