"""Runs every declared engine, in exactly one of the processes that could: whoever holds the lock.

When its holder dies, however that happens, the next one takes the lock and finds the engines by their marks: they go on, or are ended
if nobody declares them any more.
"""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, final

import structlog

from inference.fleet import gpus
from inference.fleet.engine import Engine, Tools
from inference.fleet.settings import EngineSpec
from inference.fleet.states import Condition, Declared, Offer

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 0.25
MEASURE_S: Final = 2.0
LOCK_S: Final = 0.5


class Desk(Protocol):
    """Where the supervisor learns what is wanted, and says what is. Raises whatever a database does."""

    async def lead(self) -> bool:
        """Whether this machine is the one of the installation that runs engines."""

    async def declared(self) -> dict[str, Declared]: ...

    async def publish(self, name: str, offer: Offer | None) -> int: ...

    async def drained(self, name: str, slot: int, revision: int) -> bool: ...

    async def say(self, states: Mapping[str, Condition]) -> None: ...

    async def published(self) -> tuple[str, ...]:
        """Engines that the gateway knows deployments of."""


@final
class Supervisor:
    """`folder` has marks, logs and the lock. `tools` are made by the caller, for its process."""

    def __init__(self, folder: Path, desk: Desk, tools: Tools) -> None:
        self._folder = folder
        self._desk = desk
        self._tools = tools
        self._lock: int | None = None
        self._engines: dict[str, Engine] = {}
        self._said: dict[str, Condition] = {}

    async def run(self) -> None:
        """Until cancelled. Trouble with the database is logged, and what runs goes on."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            while not (self._take_lock() and await self._quietly(self._desk.lead, default=False)):
                self._drop_lock()
                await asyncio.sleep(LOCK_S)
            log.info("fleet.supervising", folder=str(self._folder))
            await self._supervise()
            await self._stand_down()

    async def close(self) -> None:
        """Ends the engines, if they are ours. `run` is over."""
        if self._lock is None:
            return
        await asyncio.gather(*(self._closed(engine) for engine in self._engines.values()))
        states = {name: engine.condition() for name, engine in self._engines.items()}
        await self._quietly(lambda: self._desk.say(states))
        await self._tools.probe.close()
        self._drop_lock()

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Of the engines that this process runs."""
        return {name: engine.condition() for name, engine in self._engines.items()}

    async def _supervise(self) -> None:
        """Until another machine has the lead. Who cannot ask goes on: nobody can have taken it then."""
        measured = 0.0
        while True:
            await self._quietly(self._look)
            if time.monotonic() - measured > MEASURE_S:
                measured = time.monotonic()
                await self._quietly(self._measure)
                if await self._quietly(self._desk.lead, default=True) is False:
                    return
            await asyncio.sleep(LOOK_S)

    async def _stand_down(self) -> None:
        """What runs here would run twice. The gateway is told of nothing: it hears from whoever leads."""
        log.warning("fleet.stood_down", engines=list(self._engines))
        await asyncio.gather(*(self._quietly(engine.forsake) for engine in self._engines.values()))
        self._engines, self._said = {}, {}
        self._drop_lock()

    async def _look(self) -> None:
        wanted = await self._desk.declared()
        if not self._engines:
            await self._sweep(wanted)
        for name, declared in wanted.items():
            engine = self._engines.get(name)
            if engine is None:
                engine = self._engines[name] = Engine(name, declared, self._tools)
                engine.adopt()
            await self._quietly(lambda engine=engine, declared=declared: engine.tick(declared))  # type: ignore[misc]  # mypy cannot infer it
        for name in [name for name in self._engines if name not in wanted]:
            if await self._engines[name].remove():
                del self._engines[name]
                await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)
        await self._say()

    async def _sweep(self, wanted: Mapping[str, Declared]) -> None:
        """What an earlier supervisor ran, or published, and nobody declares any more."""
        folders = [path.name for path in self._folder.iterdir() if path.is_dir()]
        for name in {*folders, *await self._desk.published()} - wanted.keys():
            engine = self._engines[name] = Engine(name, Declared(_forgotten(name)), self._tools)
            engine.adopt()

    async def _say(self) -> None:
        states = {name: engine.condition() for name, engine in self._engines.items()}
        news = {name: state for name, state in states.items() if state != self._said.get(name)}
        if news:
            await self._desk.say(news)
        self._said = states

    async def _measure(self) -> None:
        found = await asyncio.to_thread(gpus.look, self._tools.environ)
        for engine in list(self._engines.values()):
            await engine.measure(found)

    async def _closed(self, engine: Engine) -> None:
        try:
            await engine.close()
        except Exception:  # the border of one engine: the others have to be ended as well
            log.exception("engine.unclosed", engine=engine.name)

    async def _quietly(self, work: Callable[[], Awaitable[bool | None]], *, default: bool | None = None) -> bool | None:
        try:
            return await work()
        except Exception:  # a task's border: the next look is a quarter of a second away
            log.exception("fleet.trouble")
            return default

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        held = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return False
        self._lock = held
        return True

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _forgotten(name: str) -> EngineSpec:
    """Stands for a declaration that is gone, to end what it started."""
    return EngineSpec(name=name, kind="command", program=("false",), drain_s=0, enabled=False)
