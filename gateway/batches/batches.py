"""Batches of one process: what clients ask of them, and the runs of those that this process has the lease of."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, final

import structlog
from sqlalchemy import Connection

from gateway.batches import store
from gateway.batches.run import Run, Tools
from gateway.batches.store import Batch, NewBatch, Owner
from gateway.batches.worksheet import Claim, abandoned
from gateway.database import appending, reading
from gateway.errors import BadRequest
from gateway.keys import Key
from gateway.paging import Page

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 2.0
SWEEP_EVERY_S: Final = 600.0
RUNNING_AT_ONCE: Final = 64

T = TypeVar("T")


@final
class Batches:
    """One per process: `background` runs as long as the server does, then `stop`, then `close`."""

    def __init__(self, tools: Tools, session: str, any_work: Callable[[], bool]) -> None:
        """`any_work`: whether there may be a batch that has not ended at all. Once there is, `notice` says so."""
        self._tools = tools
        self._owner = Owner(session, host())
        self._any_work = any_work
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._stopped = False

    # What clients ask

    async def create(self, key: Key, new: NewBatch) -> Batch:
        """Raises NotFound, BadRequest."""
        if new.endpoint not in self._tools.handlers:
            known = ", ".join(sorted(self._tools.handlers))
            raise BadRequest(
                f"There are no batches for {new.endpoint!r}: {known}", param="endpoint", code="invalid_endpoint"
            )
        made = await asyncio.to_thread(self._write, lambda tx: store.create(tx, key, new))
        self._wake.set()
        return made

    async def get(self, key: Key, id_: str) -> Batch:
        """Raises NotFound."""
        return await asyncio.to_thread(self._read, lambda tx: store.get(tx, key, id_))

    async def listed(self, key: Key, limit: int, after: str | None) -> Page[Batch]:
        return await asyncio.to_thread(self._read, lambda tx: store.listed(tx, key, limit, after))

    async def cancel(self, key: Key, id_: str) -> Batch:
        """Raises NotFound, BadRequest."""
        batch = await asyncio.to_thread(self._write, lambda tx: store.cancel(tx, key, id_))
        if id_ in self._runs:
            self._runs[id_][0].look()
        self._wake.set()
        return batch

    # What this process works on

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        return (self._look_on(),)

    def notice(self) -> None:
        """There is a batch to work on, perhaps another process's."""
        self._wake.set()

    def stop(self) -> None:
        """No more lines begin; those in flight may end. For a server that drains."""
        self._stopped = True
        for run, _ in self._runs.values():
            run.stop()

    async def close(self, grace_s: float) -> None:
        """Waits for lines in flight, up to `grace_s`; whoever comes next begins again what did not end."""
        self.stop()
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _look_on(self) -> None:
        sweep_at = 0.0
        while True:
            self._wake.clear()
            try:
                self._start(await asyncio.to_thread(self._claim))
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_EVERY_S
                    await asyncio.to_thread(self._sweep)
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("batches.not_seen", reason=str(error).splitlines()[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._any_work() else SWEEP_EVERY_S):
                    await self._wake.wait()

    def _start(self, claimed: Sequence[tuple[Batch, Claim]]) -> None:
        loop = asyncio.get_running_loop()
        for batch, claim in claimed:
            if self._stopped:
                claim.let_go()
                continue
            run = Run(batch, claim, self._tools)
            task = loop.create_task(self._run(batch.id, run))
            self._runs[batch.id] = run, task

    async def _run(self, id_: str, run: Run) -> None:
        try:
            await run.run()
        except Exception:  # a task's border: the lease ends, and somebody else tries
            log.exception("batch.failed", batch=id_)
        finally:
            del self._runs[id_]

    def _claim(self) -> list[tuple[Batch, Claim]]:
        """Blocks. Batches that nobody works on, and those whose owner was on this machine and is dead."""
        taken: list[tuple[Batch, Claim]] = []
        if self._stopped or len(self._runs) >= RUNNING_AT_ONCE:
            return taken
        waiting = self._read(lambda tx: [(batch, store.silent(tx, batch)) for batch in store.waiting(tx, self._owner)])
        for batch, silent in waiting[: RUNNING_AT_ONCE - len(self._runs)]:
            folder = self._tools.shelf.folder / "batches" / batch.id
            if batch.id in self._runs or not (silent or batch.owner is None or abandoned(folder, batch.epoch)):
                continue
            claim = Claim.take(folder, batch.epoch + 1)
            if claim is None:
                continue
            claimed = self._claimed(batch)
            if claimed is None:
                claim.let_go()
            else:
                taken.append((claimed, claim))
        return taken

    def _claimed(self, batch: Batch) -> Batch | None:
        return self._write(lambda tx: store.claim(tx, batch, self._owner))

    def _sweep(self) -> None:
        """Folders of batches that have ended, whose process died before it could delete them."""
        for ids in self._tools.shelf.old("batches"):
            for id_ in self._read(lambda tx, ids=ids: store.unknown(tx, ids)):  # type: ignore[misc]
                self._tools.shelf.forget_batch(id_)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with reading(self._tools.engine) as tx:
            return work(tx)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with appending(self._tools.engine) as tx:
            return work(tx)


def window_s(text: str) -> float | None:
    """`24h`, `30m`, `90s`, `7d`: None for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    count, unit = text[:-1], text[-1:]
    if unit not in units or not count.isascii() or not count.isdigit() or len(count) > 6:
        return None
    return float(int(count) * units[unit]) or None


def host() -> str:
    """Which kernel this is: locks mean something among its processes, also in different containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}-{time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**12}"
