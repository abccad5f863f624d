"""Scoring jobs of one server process: it looks for those that nobody works on, and gives each a process of its own.

A table with a million rows costs whoever waits for an answer nothing but the processor's time that it leaves.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
from sqlalchemy import Engine

from admin.predictions.desk import Desk
from admin.scoring.account import Account
from admin.scoring.home import Home
from admin.scoring.order import Order
from gateway.batches.batches import host
from gateway.database import reading
from inference.scoring import job_store
from inference.scoring.worksheet import sweep

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 5.0
AGAIN_S: Final = 1.0  # after a process that ended badly
ENDS_IN_S: Final = 15.0


@final
class ScoringRunner:
    """One per process: `background` runs as long as the server does, then `stop`, then `close`."""

    def __init__(self, engine: Engine, home: Home, order: Callable[[], Order], concurrency: int, desk: Desk) -> None:
        self._engine = engine
        self._desk = desk
        self._released: set[str] = set()  # holds that came to nothing, one for each process that was killed
        self._home = home
        self._order = order
        self._concurrency = concurrency
        self._running: dict[str, asyncio.Task[None]] = {}
        self._children: set[asyncio.subprocess.Process] = set()
        self._wake = asyncio.Event()
        self._stopped = False

    def notice(self) -> None:
        """There may be a new job."""
        self._wake.set()

    def stop(self) -> None:
        """No more jobs begin."""
        self._stopped = True

    async def background(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                for job in await asyncio.to_thread(self._waiting) if self._home.known is not None else ():
                    self._start(job)
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("scoring.not_seen", reason=str(error).partition("\n")[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def close(self) -> None:
        """What was scored is kept, and whoever comes next goes on with it."""
        self.stop()
        self._wake.set()
        for child in self._children:
            _end(child.terminate)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=ENDS_IN_S)
        for child in self._children:
            _end(child.kill)
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _waiting(self) -> list[str]:
        """Blocks. As many as there is room for; and worksheets that nobody needs go."""
        home = self._home.known
        room = self._concurrency - len(self._running)
        if home is None or room <= 0:
            return []
        with reading(self._engine) as tx:
            found = [job.id for job in job_store.waiting(tx, home, host())]
            wanted = job_store.kept_ids(tx, home)
        sweep(self._home.folder, wanted)
        free = [id_ for id_ in found if id_ not in self._running and not self._home.busy(id_)]
        return free[:room]

    def _start(self, job: str) -> None:
        if not self._stopped:
            self._running[job] = asyncio.get_running_loop().create_task(self._run(job))

    async def _run(self, job: str) -> None:
        try:
            if await self._worked(job) != 0 and not self._stopped:
                log.warning("scoring.process_ended", job=job)
                await asyncio.sleep(AGAIN_S)
        except Exception as error:  # noqa: BLE001 a task's border: it is tried again
            log.warning("scoring.not_started", job=job, reason=str(error).partition("\n")[0])
            await asyncio.sleep(AGAIN_S)
        finally:
            del self._running[job]
            self._wake.set()

    async def _worked(self, job: str) -> int:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "admin.scoring.process",
            job,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._children.add(child)
        try:
            assert child.stdin is not None, "it was asked for"
            assert child.stdout is not None, "as above"
            child.stdin.write(msgspec.json.encode(self._order()) + b"\n")  # it stays open: its end is ours
            if self._stopped:
                _end(child.terminate)
            account = await asyncio.to_thread(self._account, job)
            serving = asyncio.ensure_future(account.serve(child.stdout, child.stdin))
            code = await child.wait()
            account.gone = True
            await serving
            return code
        finally:
            self._children.discard(child)

    def _account(self, id_: str) -> Account:
        """Blocks."""
        with reading(self._engine) as tx:
            job = job_store.find(tx, id_)
        return Account(self._desk, self._engine, job, self._home.folder / id_, self._released)


def _end(signal: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal()
