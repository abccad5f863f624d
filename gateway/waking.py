"""Calls for models that an engine of this house serves: they wait for one that is on its way, and are counted until they end.

A stage before the dispatch, put there by the snapshot: who runs no engines does not have it. Whoever runs the engines learns from the
counts when nobody needs a process any more, and when one is idle.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, final

import structlog

from gateway import errors
from gateway.call import Call
from gateway.catalog import Awaited, Model
from gateway.deadline import deadline
from gateway.snapshot import Current, Snapshot

log = structlog.stdlib.get_logger(__name__)

REPORT_S: Final = 0.5
ALIVE_S: Final = 10.0
ASK_AGAIN_S: Final = 5.0


class Answers(Protocol):
    def answer(self, call: Call) -> Coroutine[Any, Any, None]: ...


class Keeper(Protocol):
    """Who runs engines. Both raise whatever a database does."""

    async def call(self, engine: str) -> None:
        """A request waits for it."""

    async def report(self, revision: int, running: Mapping[str, int], used: Mapping[str, float]) -> None:
        """Calls by deployment as of a revision; last use by engine, in Unix seconds."""


@final
class Waking:
    """`now` is the event loop's clock, `unix` Unix seconds."""

    def __init__(
        self,
        following: Answers,
        current: Current,
        keeper: Keeper,
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
        unix: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._following = following
        self._current = current
        self._keeper = keeper
        self._spawn = spawn
        self._unix = unix
        self._now = now
        self._running: set[Call] = set()
        self._waiting: Counter[str] = Counter()
        self._used: dict[str, float] = {}
        self._engines: dict[str, str] = {}  # of deployments
        self._changed = asyncio.Event()
        current.on_change(self._follow)
        self._follow(current.snapshot)

    @property
    def waiting(self) -> Mapping[str, int]:
        """Calls that wait, by engine."""
        return self._waiting

    async def answer(self, call: Call) -> None:
        """As the dispatch. Raises Overloaded where nothing came in time, or too many wait already."""
        if call.model.awaited and not call.model.deployments:
            await self._await_engine(call)
        self._running.add(call)
        try:
            await self._following.answer(call)
        finally:
            self._running.discard(call)
            engine = self._engines.get(call.record.deployment or "")
            if engine is not None:
                self._used[engine] = self._unix()

    async def run(self) -> None:
        """Reports until cancelled."""
        told: tuple[int, dict[str, int], dict[str, float]] | None = None
        at = 0.0
        while True:
            said = self._current.snapshot.revision, self._counts(), dict(self._used)
            if said != told or self._now() - at > ALIVE_S:
                try:
                    await self._keeper.report(*said)
                    told, at = said, self._now()
                except Exception:  # a task's border: a database in trouble must not end the reports
                    log.exception("engines.unreported")
            await asyncio.sleep(REPORT_S)

    def _counts(self) -> dict[str, int]:
        """A call that has not been sent yet may go to any deployment of the model that it knows."""
        counts: Counter[str] = Counter()
        for call in self._running:
            at = call.record.deployment
            for id_ in (at,) if at is not None else [one.id for one in call.model.deployments]:
                engine = self._engines.get(id_)
                if engine is not None:
                    counts[id_] += 1
                    self._used[engine] = self._unix()
        return dict(counts)

    async def _await_engine(self, call: Call) -> None:
        awaited, name = call.model.awaited[0], call.model.name
        try:
            if self._waiting[awaited.engine] >= awaited.queue:
                raise _full(name, awaited)
            self._waiting[awaited.engine] += 1
            try:
                # A task of its own: this coroutine is driven, and what waits with a time limit cannot be.
                await self._spawn(self._come(call, awaited))
            finally:
                self._waiting[awaited.engine] -= 1
        except errors.Overloaded:
            if not call.model.fallbacks:
                raise
            return  # the dispatch has another model answer
        call.snapshot = snapshot = self._current.snapshot
        found = snapshot.catalog.find(call.request.model)
        if found is None:
            raise errors.NotFound(f"The model '{name}' does not exist any more", param="model", code="model_not_found")
        call.model, call.match = found

    async def _come(self, call: Call, awaited: Awaited) -> None:
        name = call.request.model
        wait_s = min(awaited.wait_s, call.deadline - self._now())
        try:
            async with deadline(max(0.0, wait_s)):
                while not self._there(name):
                    await self._ask(awaited.engine)
                    self._changed.clear()
                    if self._there(name):
                        return
                    try:
                        async with deadline(ASK_AGAIN_S):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            raise errors.Overloaded(
                f"The engine of '{name}' was not ready within {awaited.wait_s:g} s; it is still being started",
                code="engine_not_ready",
                headers=(("retry-after", "10"),),
            ) from None

    async def _ask(self, engine: str) -> None:
        try:
            await self._keeper.call(engine)
        except Exception:  # whatever a database raises: it is asked again, and the wait has its end
            log.exception("engine.uncalled", engine=engine)

    def _there(self, name: str) -> bool:
        """Raises Overloaded where nothing is on its way any more."""
        found = self._current.snapshot.catalog.find(name)
        if found is not None and found[0].deployments:
            return True
        if found is None or not found[0].awaited:
            raise errors.Overloaded(
                f"The engine of '{name}' has ended and is not started again",
                code="engine_stopped",
                headers=(("retry-after", "30"),),
            )
        return False

    def _follow(self, snapshot: Snapshot) -> None:
        for model in _models(snapshot):
            for one in model.deployments:
                if one.engine is not None:
                    self._engines[one.id] = one.engine
        self._changed.set()


def _models(snapshot: Snapshot) -> tuple[Model, ...]:
    catalog = snapshot.catalog
    return (*catalog.models.values(), *(model for _, model in catalog.wildcards))


def _full(name: str, awaited: Awaited) -> errors.Overloaded:
    return errors.Overloaded(
        f"The engine of '{name}' is being started and {awaited.queue} calls wait for it already",
        code="engine_queue_full",
        headers=(("retry-after", "10"),),
    )
