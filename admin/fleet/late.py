"""The fleet in a process that may never need it: loaded when the first engine is declared."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

import structlog

from admin.fleet.desk import Desk
from gateway.snapshot import Current, Snapshot

if TYPE_CHECKING:
    from inference.fleet.states import Condition
    from inference.fleet.supervisor import Supervisor

log = structlog.stdlib.get_logger(__name__)


@final
class LateFleet:
    """`folder` is for marks and logs. Lives on one event loop."""

    def __init__(self, folder: Path, desk: Desk, environ: Mapping[str, str], current: Current) -> None:
        self._folder = folder
        self._environ = environ
        self._news = asyncio.Event()
        self._supervisor: Supervisor | None = None
        self.desk = desk
        current.on_change(self._changed)

    async def run(self) -> None:
        """Until cancelled. Without an engine it asks the database once, and then after each change of the configuration."""
        while not await self._any():
            await self._news.wait()
            self._news.clear()
        await asyncio.to_thread(_load)
        self._supervisor = self._make()
        await self._supervisor.run()

    @property
    def conditions(self) -> "Mapping[str, Condition]":
        """Of the engines that this process runs."""
        return {} if self._supervisor is None else self._supervisor.conditions

    async def close(self) -> None:
        """After the last call. Ends engines that this process runs."""
        if self._supervisor is not None:
            await self._supervisor.close()
            try:
                await self.desk.leave()
            except Exception:  # the process ends: what a database in trouble does not hear, it learns by silence
                log.exception("fleet.unleft")
        await self.desk.close()

    async def _any(self) -> bool:
        try:
            return await self.desk.any_at_all()
        except Exception:  # a task's border: asked again with the next change
            log.exception("fleet.trouble")
            return False

    def _changed(self, _: Snapshot) -> None:
        self._news.set()

    def _make(self) -> "Supervisor":
        from inference.fleet.engine import Tools  # noqa: PLC0415 — for those who run engines
        from inference.fleet.probe import Probe  # noqa: PLC0415 — as above
        from inference.fleet.supervisor import Supervisor  # noqa: PLC0415 — as above

        folder = self._folder.resolve()
        tools = Tools(folder, Probe(), self.desk.publish, self.desk.drained, self.desk.clear, self._environ)
        return Supervisor(folder, self.desk, tools)


def _load() -> None:
    """In a thread: an HTTP client takes a fifth of a second."""
    import inference.fleet.probe  # noqa: PLC0415 — as above
    import inference.fleet.supervisor  # noqa: F401, PLC0415 — as above
