"""The models in memory: loaded once however many ask, kept by use within a budget, drained before they go, replaced when they hang.

A version that an alias has left stays warm until its memory is needed. ONNX Runtime runs in a thread; what would hold the
interpreter's lock runs in processes, and so does, from then on, a model that did not return in a thread.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, final

import msgspec
import structlog

from inference.errors import InferenceError
from inference.ports import Bundle, Runnable
from inference.serving.errors import LoadFailed, ModelBusy
from inference.serving.frame import Frame
from inference.serving.lane import Job, Lane, Outputs
from inference.serving.remote import Remote
from inference.serving.warming import batches, warm

log = structlog.stdlib.get_logger(__name__)

THREADED: Final = frozenset({"onnx", "remote"})  # their runs give the lock away
ELSEWHERE: Final = frozenset({"remote"})  # a process of its own would be no safer
TICK_S: Final = 0.1
PAGE: Final = 4096
FAILED_FOR_S: Final = 5.0  # a model that cannot be loaded is not tried again for each request

State = Literal["loading", "ready", "unavailable"]
Key = tuple[str, int, str]


class Terms(msgspec.Struct, frozen=True):
    """`timeout_s`: of one run, and of the wait for it. `processes`: of one model that needs them. `memory`: bytes of all models."""

    memory: int = 1 << 30
    timeout_s: float = 10.0
    load_timeout_s: float = 120.0
    rows: int = 256
    nbytes: int = 8 << 20
    waiting: int = 1024
    processes: int = 1


class Place(msgspec.Struct, frozen=True):
    """What is in memory, for whoever asks. `nbytes` is what it took, as far as can be told."""

    model: str
    version: int
    state: State
    nbytes: int
    in_flight: int
    process: bool
    reason: str = ""


@final
class Loaded:
    """One bundle's lanes, and who uses them."""

    __slots__ = ("bundle", "draining", "failed", "in_flight", "isolated", "lanes", "loading", "nbytes", "used_at")

    def __init__(self, bundle: Bundle, *, isolated: bool) -> None:
        self.bundle = bundle
        self.isolated = isolated
        self.lanes: list[Lane] = []
        self.loading: asyncio.Task[None] | None = None
        self.failed: tuple[float, InferenceError] | None = None
        self.in_flight = 0
        self.nbytes = 0
        self.used_at = 0.0
        self.draining = False


@final
class Fleet:
    """One per process, on one event loop. `load` makes a model in this process; `loader` (`module:function`) in another one.

    `trim` gives freed memory back to the system.
    """

    def __init__(
        self,
        load: Callable[[Bundle], Runnable],
        loader: str,
        terms: Terms,
        trim: Callable[[], object] = lambda: None,
    ) -> None:
        self._load = load
        self._loader = loader
        self._terms = terms
        self._trim = trim
        self._loaded: dict[Key, Loaded] = {}
        self._isolated: set[tuple[str, int]] = set()
        self._withheld: set[tuple[str, int]] = set()  # unloaded by an admin, until loaded by one
        self._one_at_a_time = asyncio.Lock()
        self._ticking: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self.replaced = 0
        self.evicted = 0

    async def run(self, bundle: Bundle, frame: Frame) -> Outputs:
        """One call's outputs, as the model gave them. Raises InferenceError."""
        loaded = self._loaded.get(_key(bundle))
        if loaded is None or not loaded.lanes or loaded.draining:
            loaded = await self._ready(bundle)
        loaded.in_flight += 1
        loaded.used_at = time.monotonic()
        try:
            lanes = loaded.lanes
            lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda one: one.load)
            outputs = lane.at_once(frame)
            if outputs is not None:
                return outputs
            done = lane.submit(frame)
            if self._ticking is None:
                self._tick()
            return await done
        finally:
            loaded.in_flight -= 1
            if loaded.draining and not loaded.in_flight:
                self._let_go(loaded)

    async def load(self, bundle: Bundle) -> None:
        """Into memory, warmed up; also one that was unloaded by hand. Raises InferenceError."""
        self._withheld.discard((bundle.model, bundle.version))
        found = self._loaded.get(_key(bundle))
        if found is not None:
            found.failed = None
        await self._ready(bundle)

    async def unload(self, model: str, versions: Sequence[int]) -> None:
        """Calls under way are answered; then its memory is free. New ones are refused until it is loaded again."""
        self._withheld.update((model, version) for version in versions)
        for loaded in tuple(self._loaded.values()):
            if loaded.bundle.model == model and loaded.bundle.version in versions:
                self._drain(loaded)
        await self._settled()

    def withheld(self, model: str, version: int) -> bool:
        return (model, version) in self._withheld

    def state(self, bundle: Bundle) -> State:
        """Whether a call would be answered: a model that is not in memory yet is loaded for the first."""
        loaded = self._loaded.get(_key(bundle))
        if self.withheld(bundle.model, bundle.version) or (loaded is not None and loaded.failed is not None):
            return "unavailable"
        return "loading" if loaded is not None and not loaded.lanes else "ready"

    def places(self) -> list[Place]:
        made = []
        for loaded in self._loaded.values():
            state: State = "ready" if loaded.lanes else "loading" if loaded.failed is None else "unavailable"
            reason = loaded.failed[1].message if loaded.failed is not None else ""
            bundle = loaded.bundle
            made.append(
                Place(
                    bundle.model, bundle.version, state, self._size(loaded), loaded.in_flight, loaded.isolated, reason
                )
            )
        return made

    async def close(self) -> None:
        """Ends every model; what still waits is not answered."""
        if self._ticking is not None:
            self._ticking.cancel()
        loading = [loaded.loading for loaded in self._loaded.values() if loaded.loading is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        for loaded in tuple(self._loaded.values()):
            self._let_go(loaded)
        await self._settled()

    # Loading and unloading

    async def _ready(self, bundle: Bundle) -> Loaded:
        key = _key(bundle)
        if self.withheld(bundle.model, bundle.version):
            raise ModelBusy(
                f"Version {bundle.version} of '{bundle.model}' was unloaded; load it first", code="model_unloaded"
            )
        loaded = self._loaded.get(key)
        if loaded is not None and loaded.failed is not None:
            if time.monotonic() - loaded.failed[0] < FAILED_FOR_S:
                raise loaded.failed[1]
            loaded = None
        if loaded is None or loaded.draining:
            loaded = self._loaded[key] = Loaded(bundle, isolated=self._needs_process(bundle))
        if loaded.lanes:
            return loaded
        if loaded.loading is None:
            loaded.loading = asyncio.get_running_loop().create_task(self._bring(loaded))
        await asyncio.shield(loaded.loading)
        if loaded.failed is not None:
            raise loaded.failed[1]
        return loaded

    async def _bring(self, loaded: Loaded) -> None:
        """One at a time: what a model takes is told by what this process has more afterwards."""
        bundle = loaded.bundle
        began = time.monotonic()
        try:
            async with self._one_at_a_time:
                before = resident("self")
                count = self._terms.processes if loaded.isolated else 1
                lanes = [self._lane(loaded) for _ in range(count)]
                try:
                    async with asyncio.timeout(self._terms.load_timeout_s):
                        await asyncio.gather(*(lane.ready for lane in lanes))
                except TimeoutError:
                    for lane in lanes:
                        lane.dead = True
                    why = f"The model '{bundle.model}' was not loaded within {self._terms.load_timeout_s:g} s"
                    raise LoadFailed(why) from None
                loaded.nbytes = 0 if loaded.isolated else max(_file_size(bundle), resident("self") - before)
                loaded.used_at = time.monotonic()
                loaded.lanes = lanes
                self._make_room(loaded)
        except InferenceError as error:
            loaded.failed = (time.monotonic(), error)
            log.error("model.load_failed", model=bundle.model, version=bundle.version, reason=error.code)  # noqa: TRY400 — the reason says it all
            return
        finally:
            loaded.loading = None
        log.info(
            "model.loaded",
            model=bundle.model,
            version=bundle.version,
            process=loaded.isolated,
            seconds=round(time.monotonic() - began, 3),
        )

    def _lane(self, loaded: Loaded) -> Lane:
        terms, bundle = self._terms, loaded.bundle
        isolated = loaded.isolated

        def make() -> Runnable:
            runnable: Runnable = Remote(bundle, self._loader) if isolated else self._load(bundle)
            warm(runnable, bundle)
            return runnable

        return Lane(
            bundle,
            make,
            loop=asyncio.get_running_loop(),
            rows=terms.rows,
            nbytes=terms.nbytes,
            waiting=terms.waiting,
            batches=batches(bundle),
            lost=lambda lane, jobs: self._replace(loaded, lane, jobs),
        )

    def _needs_process(self, bundle: Bundle) -> bool:
        if bundle.runtime in ELSEWHERE:
            return False
        return bundle.runtime not in THREADED or (bundle.model, bundle.version) in self._isolated

    def _make_room(self, newest: Loaded) -> None:
        """The least used ones go until the rest fits; what a client waits for does not."""
        total = sum(self._size(loaded) for loaded in self._loaded.values() if loaded.lanes)
        for loaded in sorted(self._loaded.values(), key=lambda one: one.used_at):
            if total <= self._terms.memory:
                return
            if loaded is not newest and loaded.lanes and not loaded.in_flight:
                total -= self._size(loaded)
                self.evicted += 1
                log.info("model.evicted", model=loaded.bundle.model, version=loaded.bundle.version)
                self._drain(loaded)

    def _size(self, loaded: Loaded) -> int:
        if not loaded.isolated:
            return loaded.nbytes
        return sum(resident(str(lane.pid)) for lane in loaded.lanes if lane.pid is not None)

    def _drain(self, loaded: Loaded) -> None:
        key = _key(loaded.bundle)
        if self._loaded.get(key) is loaded:
            del self._loaded[key]
        loaded.draining = True
        if not loaded.in_flight:
            self._let_go(loaded)

    def _let_go(self, loaded: Loaded) -> None:
        lanes, loaded.lanes = loaded.lanes, []
        for lane in lanes:
            self._closing.add(lane.ended)
            lane.ended.add_done_callback(self._gone)
            lane.close()

    def _gone(self, ended: "asyncio.Future[None]") -> None:
        self._closing.discard(ended)
        self._trim()

    async def _settled(self) -> None:
        if self._closing:
            await asyncio.wait(tuple(self._closing), timeout=self._terms.timeout_s)

    # Watching

    def _tick(self) -> None:
        """Runs only while something does."""
        now, busy = time.monotonic(), False
        for loaded in tuple(self._loaded.values()):
            for lane in tuple(loaded.lanes):
                if lane.load:
                    busy = True
                    left = lane.check(now, self._terms.timeout_s)
                    if lane.dead:
                        self._isolated.add((loaded.bundle.model, loaded.bundle.version))
                        self._replace(loaded, lane, left)
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick) if busy else None

    def _replace(self, loaded: Loaded, lane: Lane, jobs: Sequence[Job]) -> None:
        """A lane died: its place is taken by a new one, which takes its calls."""
        self.replaced += 1
        loaded.isolated = self._needs_process(loaded.bundle)
        if lane in loaded.lanes:
            loaded.lanes.remove(lane)
        fresh = self._lane(loaded)
        loaded.lanes.append(fresh)
        fresh.ready.add_done_callback(lambda ready: self._replaced(loaded, fresh, ready))
        for job in jobs:
            fresh.take(job)

    def _replaced(self, loaded: Loaded, lane: Lane, ready: "asyncio.Future[None]") -> None:
        if ready.cancelled() or (error := ready.exception()) is None:
            return
        if lane in loaded.lanes:
            loaded.lanes.remove(lane)
        told = error if isinstance(error, InferenceError) else LoadFailed(str(error))
        lane.refuse(told)
        if not loaded.lanes:
            loaded.failed = (time.monotonic(), told)


def resident(pid: str) -> int:
    """Bytes of memory of a process, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _file_size(bundle: Bundle) -> int:
    """What a model takes at least, also where it found room that was free before."""
    try:
        return bundle.artifact.stat().st_size
    except OSError:
        return 0


def _key(bundle: Bundle) -> Key:
    return bundle.model, bundle.version, bundle.digest
