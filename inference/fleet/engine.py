"""One declared engine: how many processes of which kind there are and ought to be, and the next step from the one to the other.

`tick` is called a few times a second and only ever takes steps that are safe by themselves, so it does not matter where it was left.
A process that a change makes out of date serves until one of its successors is ready.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Literal, final

import msgspec
import structlog

from inference.fleet import command, process
from inference.fleet.instance import Instance, known, marks
from inference.fleet.probe import Probe
from inference.fleet.process import Mark
from inference.fleet.settings import EngineSpec, fingerprint
from inference.fleet.states import Condition, Declared, Gpu, Offer, Place, Replica, State

log = structlog.stdlib.get_logger(__name__)

Mode = Literal["up", "asleep", "down"]
ERROR_LINES: Final = 8
OUTGROWN: Final = "outgrown"  # stands for a declaration that is not its own any more


class Tools(msgspec.Struct, frozen=True):
    """`publish` tells the gateway and gives the revision; `drained`: whether nobody has calls at a slot who knows that revision.

    `clear` opens the values of variables; `unix` is the clock of `Declared`.
    """

    folder: Path
    probe: Probe
    publish: Callable[[str, Offer | None], Awaitable[int]]
    drained: Callable[[str, int, int], Awaitable[bool]]
    clear: Callable[[str], str]
    environ: Mapping[str, str]
    unix: Callable[[], float] = time.time


@final
class Engine:
    def __init__(self, name: str, declared: Declared, tools: Tools) -> None:
        self.name = name
        self.restarts = 0
        self._declared = declared
        self._tools = tools
        self._folder = tools.folder / name
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._live: dict[int, Instance] = {}
        self._failures = 0
        self._next_start = 0.0
        self._crashed = False
        self._last_error: str | None = None
        self._error_lines: tuple[str, ...] = ()
        self._dormant: float | None = None
        self._gpus: tuple[Gpu, ...] = ()
        self._offered: Offer | None = None
        self._revisions: dict[int, int] = {}  # by slot: since when it is not offered
        self._wanted = (fingerprint(declared.spec, declared.turn), declared.wish)

    def adopt(self) -> None:
        """Takes over what an earlier supervisor left running."""
        for slot, mark in marks(self._folder).items():
            running = known(mark)
            if running is None:
                (self._folder / f"{slot}.json").unlink(missing_ok=True)
                continue
            instance = self._instance(slot, running, mark)
            instance.adopted = True
            instance.start()
            log.info("engine.adopted", engine=self.name, slot=slot, pid=mark.pid)

    async def tick(self, declared: Declared) -> None:
        """One look and one step."""
        self._take(declared)
        self._bury()
        match self._mode():
            case "up":
                self._up()
            case "asleep":
                self._send_to_sleep()
            case "down":
                self._retire_all()
        await self._offer()

    async def remove(self) -> bool:
        """Ends it for good; False while that takes."""
        self._bury()
        self._retire_all()
        if self._live:
            await self._publish(Offer(self._declared.spec, (), comes=False))
            return False
        await self._publish(None)
        return True

    async def forsake(self) -> None:
        """Ends its processes and says nothing: another supervisor has engines of this name now."""
        await asyncio.gather(*(instance.end() for instance in self._live.values()))
        self._bury()

    async def close(self) -> None:
        """The server ends: so do its processes, unless they are to be kept. Calls may wait for them at the next start."""
        if self._declared.spec.on_exit == "keep":
            for instance in self._live.values():
                instance.leave()
            return
        await self._publish(Offer(self._declared.spec, (), comes=self._comes()))
        await asyncio.gather(*(instance.end() for instance in self._live.values()))
        self._bury()

    def leave(self) -> None:
        """Another supervises from now on."""
        for instance in self._live.values():
            instance.leave()

    async def measure(self, gpus: tuple[Gpu, ...]) -> None:
        """Memory, and the size of logs; `gpus` are all that the machine has. In a thread: it walks through every process of the machine."""
        spec = self._declared.spec
        named = {gpu for each in spec.gpus for gpu in each}
        self._gpus = tuple(gpu for gpu in gpus if not named or gpu.index in named or gpu.uuid in named)
        for instance in list(self._live.values()):
            instance.rss_mb = round(await asyncio.to_thread(instance.process.rss_mb), 1)
            await asyncio.to_thread(process.rotate, instance.log, int(spec.log_mb * (1 << 20)), spec.log_files)
            if spec.max_rss_mb is not None and instance.rss_mb > spec.max_rss_mb and instance.phase == "ready":
                if instance.print != OUTGROWN:
                    log.warning("engine.outgrown", engine=self.name, slot=instance.slot, rss_mb=instance.rss_mb)
                instance.print = OUTGROWN

    def condition(self) -> Condition:
        now, spec = time.monotonic(), self._declared.spec
        live = sorted(self._live.values(), key=lambda one: one.slot)
        waits = None if self._crashed or now >= self._next_start else round(self._next_start - now, 1)
        return Condition(
            state=self._state(),
            ready=sum(one.phase == "ready" for one in live),
            wanted=spec.replicas if self._mode() == "up" else 0,
            restarts=self.restarts,
            failures=self._failures,
            restart_in_s=waits,
            last_error=self._last_error,
            error_lines=self._error_lines,
            replicas=tuple(
                Replica(
                    slot=one.slot,
                    replica=one.seat,
                    phase=one.phase,
                    pid=one.process.pid,
                    port=one.port,
                    rss_mb=one.rss_mb,
                    ready_s=None if one.ready_at is None else float(round(now - one.ready_at)),
                    gpus=command.gpus_of(spec, min(one.seat, max(0, len(spec.gpus) - 1))),
                    adopted=one.adopted,
                    reason=one.reason or None,
                )
                for one in live
            ),
            rss_mb=round(sum(one.rss_mb for one in live), 1),
            gpus=self._gpus,
        )

    def _state(self) -> State:
        phases = {one.phase for one in self._live.values()}
        if "ready" in phases:
            return "ready"
        if self._crashed:
            return "crashed"
        if self._mode() == "up":
            return "starting"
        if "asleep" in phases or (self._dormant is not None and not phases):
            return "asleep"
        return "draining" if phases else "stopped"

    def _take(self, declared: Declared) -> None:
        wanted = (fingerprint(declared.spec, declared.turn), declared.wish)
        if wanted != self._wanted:  # somebody has done something about it
            self._wanted, self._failures, self._next_start, self._crashed = wanted, 0, 0.0, False
        self._declared = declared
        for instance in self._live.values():
            instance.tell(declared.spec)
        self._nod_off()

    def _nod_off(self) -> None:
        declared, idle, now = self._declared, self._declared.spec.idle, self._tools.unix()
        asked = max(declared.used_at, declared.called_at)
        if declared.wish == "sleep":
            self._dormant = self._dormant if self._dormant is not None else now
        elif self._dormant is not None:
            if idle is None or asked > self._dormant:
                self._dormant = None
        elif idle is not None:
            ready = [one.ready_at for one in self._live.values() if one.phase == "ready" and one.ready_at is not None]
            if ready and min(now - asked, time.monotonic() - max(ready)) > idle.after_s:
                self._dormant = now
                log.info("engine.idle", engine=self.name, action=idle.action)

    def _mode(self) -> Mode:
        declared = self._declared
        if declared.wish == "stop" or not declared.spec.enabled:
            return "down"
        if self._dormant is None:
            return "up"
        idle = declared.spec.idle
        action = "sleep" if declared.wish == "sleep" and declared.spec.sleeps else idle.action if idle else "stop"
        return "asleep" if action == "sleep" and declared.spec.sleeps else "down"

    def _comes(self) -> bool:
        """Whether a call that finds nothing may wait."""
        if self._declared.wish == "stop" or not self._declared.spec.enabled:
            return False
        return not self._crashed

    def _bury(self) -> None:
        for slot, instance in list(self._live.items()):
            if instance.process.alive():
                continue
            del self._live[slot]
            instance.forget()
            if not instance.ending:
                self._note_end(instance)

    def _note_end(self, instance: Instance) -> None:
        """It ended by itself, or was given up."""
        restart, now = self._declared.spec.restart, time.monotonic()
        how = _how(instance.process.status)
        early = "" if instance.ready_at is not None else " before it was ready"
        self._last_error = instance.given_up or f"{how}{early}"
        self._error_lines = process.tail(instance.log, ERROR_LINES)
        log.warning("engine.ended", engine=self.name, slot=instance.slot, reason=self._last_error)
        self.restarts += 1
        if instance.ready_at is not None and now - instance.ready_at >= restart.healthy_s:
            self._failures = 0
        self._fail(restart.attempts, restart.base_s, restart.max_s)

    def _fail(self, attempts: int, base_s: float, max_s: float) -> None:
        self._failures += 1
        self._next_start = time.monotonic() + min(base_s * 2.0 ** (self._failures - 1), max_s)
        if self._failures >= attempts:
            self._crashed = True
            log.error("engine.crashed", engine=self.name, failures=self._failures, reason=self._last_error)

    def _up(self) -> None:
        spec, wanted = self._declared.spec, self._wanted[0]
        live = [one for one in self._live.values() if not one.ending]
        for one in live:
            if one.phase == "asleep" and one.print == wanted:
                one.wake()
        current = [one for one in live if one.print == wanted]
        old = [one for one in live if one.print != wanted]
        for one in [one for one in old if one.phase != "ready"]:
            one.retire()
            old.remove(one)
        ready = [one for one in current if one.phase == "ready"]
        self._adapt(ready)
        self._retire_spare(spec.replicas, ready, current, old)
        self._start_missing(spec, current, [one for one in old if not one.ending])

    @staticmethod
    def _retire_spare(replicas: int, ready: list[Instance], current: list[Instance], old: list[Instance]) -> None:
        """The old ones first, as many as are not needed any more; then those of seats that are gone."""
        for one in old[: max(0, len(ready) + len(old) - replicas)]:
            one.retire()
        for one in sorted(current, key=lambda one: one.seat)[replicas:]:
            one.retire()

    def _start_missing(self, spec: EngineSpec, current: list[Instance], old: list[Instance]) -> None:
        missing = spec.replicas - len([one for one in current if not one.ending])
        if missing <= 0 or self._crashed or time.monotonic() < self._next_start:
            return
        if not old:
            # Who has room for so many only has none before the old ones are gone, however long their calls take.
            room = missing if spec.replace == "rolling" else min(missing, spec.replicas - len(self._live))
            for _ in range(room):
                self._start(spec)
        elif spec.replace == "rolling":
            if all(one.phase == "ready" for one in current):
                self._start(spec)
        elif len(old) + len(current) >= spec.replicas:
            if not any(one.ending for one in self._live.values()):
                old[0].retire()
        elif not any(one.ending for one in self._live.values()) and all(one.phase == "ready" for one in current):
            self._start(spec)

    def _start(self, spec: EngineSpec) -> None:
        slot = next(number for number in range(len(self._live) + 1) if number not in self._live)
        taken = {one.seat for one in self._live.values() if one.print == self._wanted[0] and not one.ending}
        seat = next(number for number in range(len(taken) + 1) if number not in taken)
        try:
            port = free_port(spec.host) if spec.port is None else spec.port + slot
            declared = {name: self._tools.clear(value) for name, value in spec.env.items()}
            env = command.variables(spec, port, seat, declared, self._tools.environ)
            running = process.begin(command.arguments(spec, port), env, self._folder, self._folder / f"{slot}.log")
        except (OSError, LookupError, ValueError) as error:
            self._last_error, self._error_lines = f"cannot be started: {error}", ()
            log.warning("engine.unstarted", engine=self.name, reason=str(error))
            self._fail(spec.restart.attempts, spec.restart.base_s, spec.restart.max_s)
            return
        loras = tuple((one.name, one.path) for one in spec.lora)
        mark = Mark(running.pid, running.ticks, process.boot(), port, seat, self._wanted[0], loras=loras)
        instance = self._instance(slot, running, mark)
        instance.keep()
        instance.start()
        log.info("engine.starting", engine=self.name, slot=slot, pid=running.pid, port=port)

    def _instance(self, slot: int, running: process.Process, mark: Mark) -> Instance:
        instance = self._live[slot] = Instance(
            self.name, slot, self._folder, running, mark, self._declared.spec, self._tools.probe, self._drained
        )
        self._revisions.pop(slot, None)
        return instance

    def _adapt(self, ready: list[Instance]) -> None:
        wanted = {one.name: one.path for one in self._declared.spec.lora}
        for one in ready:
            if one.loras != wanted and not one.reason.startswith("adapter"):
                one.adapt()

    def _send_to_sleep(self) -> None:
        for one in self._live.values():
            if one.phase == "ready":
                one.doze()
            elif one.phase == "starting":
                one.retire()

    def _retire_all(self) -> None:
        for one in self._live.values():
            if not one.ending:
                one.retire()

    async def _drained(self, slot: int) -> bool:
        revision = self._revisions.get(slot)
        return revision is not None and await self._tools.drained(self.name, slot, revision)

    async def _offer(self) -> None:
        adapters = {one.name for one in self._declared.spec.lora}
        places = tuple(
            Place(one.slot, one.url, tuple(sorted(adapters & one.loras.keys())))
            for one in sorted(self._live.values(), key=lambda one: one.slot)
            if one.phase == "ready"
        )
        await self._publish(Offer(self._declared.spec, places, comes=self._comes()))

    async def _publish(self, offer: Offer | None) -> None:
        if offer is not None and offer == self._offered:
            return
        revision = await self._tools.publish(self.name, offer)
        self._offered = offer
        offered = set() if offer is None else {place.slot for place in offer.places}
        for slot in self._live:
            if slot not in offered:
                self._revisions[slot] = revision
            else:
                self._revisions.pop(slot, None)


def _how(status: int | None) -> str:
    if status is None:  # adopted: it is nobody's child here
        return "ended"
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def free_port(host: str) -> int:
    """One that nobody listens on now. The kernel does not give it out again soon. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as bound:
        bound.bind((host, 0))
        return int(bound.getsockname()[1])
