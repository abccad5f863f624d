"""Ingestion jobs of one process: which it takes, that it is heard of while it works, and what is done when a job has ended.

Light to import: what reads and embeds is made with the first job.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, final

import structlog

from retrieval import job_store, removal
from retrieval.database import Database
from retrieval.job_store import Job, LeaseLost, Owner
from retrieval.sessions import Session, dead

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 1.0
BEAT_S: Final = 5.0
SWEEP_S: Final = 30.0


class Worker(Protocol):
    """What a job needs, made with the first of them."""

    async def run(self, job: Job) -> None:
        """Raises LeaseLost, SQLAlchemyError."""

    def maintain(self, collection_id: str) -> None:
        """Blocks. Brings indexes up to date after a change."""

    def drop(self, collection_id: str) -> None:
        """Blocks. Its indexes are wanted no more."""

    def sweep(self) -> None:
        """Blocks. Drops whatever indexes are left of collections that are not there any more."""


@final
class Runner:
    """One per process: `background` runs as long as the server does, then `stop`, then `close`."""

    def __init__(
        self,
        database: Database,
        owner: Owner,
        folder: Path,
        worker: Callable[[], Awaitable[Worker]],
        *,
        concurrency: int,
        any_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """`any_work`: whether there may be a job in the database at all. Once there is, `notice` says so."""
        self._database = database
        self._owner = owner
        self._sessions = folder / "sessions"
        self._worker = worker
        self._concurrency = concurrency
        self._any_work = any_work
        self._running: dict[str, asyncio.Task[None]] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._worn = asyncio.Event()
        self._session: Session | None = None
        self._stopped = False
        self._made = False

    def changed(self, collection_id: str) -> None:
        """Something in it is to be read, or was: its index is brought up to date when there is time."""
        self._dirty.add(collection_id)
        self._worn.set()
        self._wake.set()

    def notice(self) -> None:
        """There is a job, perhaps another process's."""
        self._wake.set()

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        return (self._look_on(), self._beat_on(), self._maintain_on(), self._sweep_on())

    def stop(self) -> None:
        """No more jobs begin."""
        self._stopped = True

    async def close(self) -> None:
        """What is at work is given up: whoever comes next goes on with it."""
        self.stop()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            self._session.close()

    async def _look_on(self) -> None:
        self._session = await asyncio.to_thread(Session.open, self._sessions, self._owner.id)
        while True:
            self._wake.clear()
            try:
                for job in await asyncio.to_thread(self._claim):
                    self._start(job)
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("ingestion.not_seen", reason=str(error).partition("\n")[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._any_work() else None):
                    await self._wake.wait()

    def _claim(self) -> list[Job]:
        """Blocks. As many as there is room for."""
        room = self._concurrency - len(self._running)
        if self._stopped or room <= 0:
            return []
        claimed = []
        for job in self._database.read(lambda tx: job_store.waiting(tx, self._owner, room)):
            if not self._free(job):
                continue
            mine = self._database.write(lambda tx, job=job: job_store.claim(tx, job, self._owner))  # type: ignore[misc]
            if mine is not None:
                claimed.append(mine)
        return claimed

    def _free(self, job: Job) -> bool:
        """Nobody has it, or its owner is silent, or was a process of this machine and is dead; or it is ours, and nobody works on it."""
        if job.owner is None or job.host != self._owner.host:
            return True
        if job.owner == self._owner.id:  # it was claimed or to be given back when the database failed
            return job.id not in self._running
        return dead(self._sessions, job.owner)

    def _start(self, job: Job) -> None:
        if self._stopped:
            return
        self._running[job.id] = asyncio.get_running_loop().create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            worker = await self._worker()
            self._made = True
            await worker.run(job)
            self.changed(job.collection_id)
        except LeaseLost:
            log.info("ingestion.lease_lost", job=job.id)
        except Exception as error:  # a task's border: it is tried again, and not for ever
            log.exception("ingestion.broke", job=job.id)
            try:
                await asyncio.to_thread(self._give_back, job, type(error).__name__)
            except Exception as worse:  # noqa: BLE001 a task's border: it is free again when its lease is over
                log.warning("ingestion.not_given_back", job=job.id, reason=str(worse).partition("\n")[0])
        finally:
            del self._running[job.id]
            self._wake.set()

    def _give_back(self, job: Job, reason: str) -> None:
        with contextlib.suppress(LeaseLost):
            self._database.write(
                lambda tx: job_store.later(tx, job, 2.0, f"The server failed at this file ({reason})", counted=True)
            )

    async def _maintain_on(self) -> None:
        """One after the other: however many documents of a collection change meanwhile, it is done once for all of them."""
        while True:
            await self._worn.wait()
            self._worn.clear()
            dirty, self._dirty = self._dirty, set()
            for collection_id in dirty:
                try:
                    worker = await self._worker()
                    await asyncio.to_thread(worker.maintain, collection_id)
                except Exception as error:  # noqa: BLE001 a task border: searches do it themselves
                    log.info("index.not_maintained", collection=collection_id, reason=str(error).partition("\n")[0])

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self._running:
                ids = tuple(self._running)
                try:
                    await asyncio.to_thread(
                        self._database.write, lambda tx, ids=ids: job_store.beat(tx, self._owner, ids)
                    )
                except Exception as error:  # noqa: BLE001 a task border: it is tried again
                    log.warning("ingestion.not_heard", reason=str(error).partition("\n")[0])

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                for id_ in await asyncio.to_thread(removal.sweep, self._database):
                    worker = await self._worker()
                    await asyncio.to_thread(worker.drop, id_)
                if self._made:  # who deleted a collection may have died before its indexes were gone
                    await asyncio.to_thread((await self._worker()).sweep)
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("retrieval.not_swept", reason=str(error).partition("\n")[0])
