"""One running process of an engine, from its start to its end, and what is done to it meanwhile."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, final

import msgspec
import structlog

from inference.fleet import process
from inference.fleet.probe import Probe, ProbeError
from inference.fleet.process import Mark, Process
from inference.fleet.settings import EngineSpec
from inference.fleet.states import Phase

log = structlog.stdlib.get_logger(__name__)

LOOK_S: Final = 0.2
MISSES: Final = 3  # looks without an answer until a process is taken for hung

Drained = Callable[[int], Awaitable[bool]]  # by slot: whether nobody's call runs there any more


@final
class Instance:
    """`slot` names its files, its port's place and its deployment; `seat` is which replica it is. Its tasks end with it."""

    def __init__(
        self,
        engine: str,
        slot: int,
        folder: Path,
        running: Process,
        mark: Mark,
        spec: EngineSpec,
        probe: Probe,
        drained: Drained,
    ) -> None:
        self.engine = engine
        self.slot = slot
        self.seat = mark.seat
        self.port = mark.port
        self.print = mark.print
        self.loras = dict(mark.loras)
        self.process = running
        self.phase: Phase = "ready" if mark.ready else "starting"
        self.ready_at: float | None = time.monotonic() if mark.ready else None
        self.began = time.monotonic()
        self.rss_mb = 0.0
        self.reason = ""
        self.given_up = ""  # why we ended it
        self.adopted = False
        self._mark = mark
        self._folder = folder
        self._spec = spec
        self._probe = probe
        self._drained = drained
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._spec.host, self._spec.host)
        return f"http://{host}:{self.port}"

    @property
    def log(self) -> Path:
        return self._folder / f"{self.slot}.log"

    @property
    def ending(self) -> bool:
        return self.phase in ("draining", "stopping")

    def tell(self, spec: EngineSpec) -> None:
        """What concerns us and not the process may change while it runs."""
        if spec.lora != self._spec.lora:
            self.reason = ""  # an adapter that failed may be tried again
        if spec.nice != self._spec.nice and self.phase != "starting" and not self.ending:
            self.process.yields(spec.nice)
        self._spec = spec

    def start(self) -> None:
        if self.phase == "ready":
            self._do(self._watch())
        else:
            self._do(self._become_ready())

    def retire(self) -> None:
        """Lets running calls end, then ends the process. Who serves nobody is ended at once."""
        waits = self.phase in ("ready", "dozing")
        self.phase = "draining" if waits else "stopping"
        self.process.yields(0)  # what runs there is to end, whatever its successor does by now
        self._do(self._retire(waits=waits))

    def doze(self) -> None:
        self.phase = "dozing"
        self._do(self._doze())

    def wake(self) -> None:
        self.phase = "waking"
        self._do(self._wake())

    def adapt(self) -> None:
        """Loads and unloads adapters as declared now."""
        self._do(self._adapt())

    async def end(self) -> None:
        """At once, but asked first. Never raises."""
        self.phase = "stopping"
        self._cancel()
        await self._stop()

    def leave(self) -> None:
        """It goes on without us."""
        self._cancel()

    def forget(self) -> None:
        """The process has ended: nothing of its group and no mark may be left."""
        self._cancel()
        self.process.signal(signal.SIGKILL)
        (self._folder / f"{self.slot}.json").unlink(missing_ok=True)

    def keep(self) -> None:
        """Writes the mark: whole or not at all."""
        ready = self.phase == "ready"
        self._mark = msgspec.structs.replace(self._mark, ready=ready, loras=tuple(self.loras.items()))
        path = self._folder / f"{self.slot}.json"
        draft = path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(self._mark))
        draft.replace(path)

    async def _become_ready(self) -> None:
        deadline = time.monotonic() + self._spec.ready.within_s
        while not await self._generates():
            if time.monotonic() > deadline:
                self._give_up(f"not ready within {self._spec.ready.within_s:g} s: {self.reason}")
                return
            await asyncio.sleep(LOOK_S)
        await self._serve()

    async def _serve(self) -> None:
        self.phase, self.reason, self.ready_at = "ready", "", time.monotonic()
        # Only now: one that starts is not to be held up by those that spin for their next token.
        self.process.yields(self._spec.nice)
        self.keep()
        log.info(
            "engine.ready",
            engine=self.engine,
            slot=self.slot,
            port=self.port,
            after_s=round(time.monotonic() - self.began, 1),
        )
        await self._watch()

    async def _watch(self) -> None:
        misses = 0
        while True:
            await asyncio.sleep(self._spec.check_s)
            try:
                await self._probe.alive(self._spec, self.url)
            except ProbeError as error:
                misses += 1
                self.reason = str(error)
                if misses >= MISSES:
                    self._give_up(f"does not answer any more: {error}")
                    return
            else:
                misses = 0

    async def _retire(self, *, waits: bool) -> None:
        if waits:
            await self._idle(self._spec.drain_s)
        self.phase = "stopping"
        await self._stop()

    async def _doze(self) -> None:
        await self._idle(self._spec.drain_s)
        try:
            await self._probe.sleep(self.url)
        except ProbeError as error:
            self._give_up(f"cannot sleep: {error}")
            return
        self.phase = "asleep"
        self.keep()
        log.info("engine.asleep", engine=self.engine, slot=self.slot)

    async def _wake(self) -> None:
        try:
            if await self._probe.asleep(self.url):
                await self._probe.wake(self.url)
            await self._probe.generates(self._spec, self.url)
        except ProbeError as error:
            self._give_up(f"cannot wake: {error}")
            return
        await self._serve()

    async def _adapt(self) -> None:
        wanted = {one.name: one for one in self._spec.lora}
        for name, path in list(self.loras.items()):
            if name not in wanted or wanted[name].path != path:
                await self._changed(self._probe.unload(self.url, name))
                del self.loras[name]
        for name, one in wanted.items():
            if name not in self.loras and await self._changed(self._probe.load(self.url, one)):
                self.loras[name] = one.path
        self.keep()
        await self._watch()

    async def _changed(self, change: Coroutine[Any, Any, None]) -> bool:
        try:
            await change
        except ProbeError as error:
            self.reason = f"adapter: {error}"
            log.warning("engine.adapter", engine=self.engine, slot=self.slot, reason=str(error))
            return False
        return True

    async def _generates(self) -> bool:
        try:
            await self._probe.generates(self._spec, self.url)
        except ProbeError as error:
            self.reason = str(error)
            return False
        return True

    async def _idle(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and self.process.alive():
            if await self._drained(self.slot):
                return
            await asyncio.sleep(LOOK_S)

    async def _stop(self) -> None:
        self.process.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._spec.stop_s
        while self.process.alive() and time.monotonic() < deadline:  # noqa: ASYNC110 — an adopted process tells nobody that it ends
            await asyncio.sleep(LOOK_S / 4)
        self.process.signal(signal.SIGKILL)

    def _give_up(self, reason: str) -> None:
        """What hangs hears no SIGTERM. That it ended is noticed like any other end."""
        self.reason = self.given_up = reason
        log.warning("engine.given_up", engine=self.engine, slot=self.slot, reason=reason)
        self.process.signal(signal.SIGKILL)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._cancel()
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._told)

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _told(self, task: "asyncio.Task[None]") -> None:
        """A task's border: a bug in here ends this process, and it is begun anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine.failed", engine=self.engine, slot=self.slot, error=repr(error))
            self._give_up(repr(error))


def marks(folder: Path) -> dict[int, Mark]:
    """Those that an earlier supervisor left, by slot."""
    found: dict[int, Mark] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[int(path.stem)] = msgspec.json.decode(path.read_bytes(), type=Mark)
        except (OSError, ValueError, msgspec.MsgspecError):
            path.unlink(missing_ok=True)
    return found


def known(mark: Mark) -> Process | None:
    return process.adopted(mark)
