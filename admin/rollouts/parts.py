"""The rollout engine of this process and what it is connected to. Imported when there is a rollout, or somebody may begin one."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, final

from sqlalchemy import Connection, Engine

from admin.rollouts import events
from admin.rollouts.judging import Ask, Judging
from admin.rollouts.levers import FamilyLever
from admin.rollouts.records import RecordSource
from admin.rollouts.searches import Searches
from admin.rollouts.service import Levers, Rollouts
from gateway.database import appending, changing, reading
from gateway.refresh import Refresher
from gateway.snapshot import Current
from inference.rollouts import store
from inference.rollouts.engine import Engine as RolloutEngine
from inference.rollouts.engine import Work
from inference.rollouts.models import Live
from inference.rollouts.ports import Answers, Registry
from inference.rollouts.rollout import Kind
from inference.rollouts.store import Rollout
from retrieval import collection_store

if TYPE_CHECKING:  # the admin plane is loaded for whom it does something
    from admin.app import Steering


@final
class Parts:
    """One per process. `offer` gives a message to the webhooks, `owner` is the process's session.

    `live` is what serving asks and tells (`inference.ports.Split` and `Observer`); whoever follows the snapshots loads it.
    `registry` and `answers` come with classic models. `hidden`: their columns that are not kept, by model.
    `ask` is how judges are asked.
    """

    def __init__(
        self,
        engine: Engine,
        current: Current,
        refresher: Refresher,
        owner: str,
        offer: Callable[[str, bytes], None],
        registry: Registry | None,
        answers: Answers | None,
        hidden: Mapping[str, Collection[str]],
        ask: Ask,
    ) -> None:
        self._database = engine
        self._refresher = refresher
        self._offer = offer

        def known(_: Connection, model: str) -> bool:
            return current.snapshot.catalog.find(model) is not None

        def kept(tx: Connection, collection: str) -> bool:
            return collection_store.by_id(tx, collection) is not None

        families: dict[Kind, FamilyLever] = {
            "route": FamilyLever("route", known),
            "prompt": FamilyLever("prompt", known),
            "retriever": FamilyLever("retriever", kept),
        }
        self._levers = Levers(families, registry)
        self.live = Live(time.time, hidden)
        self.searches = Searches(self.live)
        self._source = source = RecordSource(engine)
        work = Work(partial(reading, engine), partial(appending, engine), partial(changing, engine), events.moved)
        self._engine = RolloutEngine(
            work, self._levers.all(), {"route": source, "prompt": source}, answers, owner, time.time
        )
        self._any = False
        self._judging = Judging(engine, owner, ask)
        self.judged = False  # a rollout has a judge

    def load(self, rollouts: Sequence[Rollout]) -> None:
        """Those of one revision that choose in this process."""
        self.live.load(rollouts)
        self.searches.load(rollouts)

    async def turn(self, *, changed: bool) -> bool:
        """Whether there is anything to look after. `changed`: the control state may say something new."""
        if changed:
            active = await asyncio.to_thread(self._engine.active)
            self._source.keep([one.id for one in active])
            self._any = bool(active)
            self.judged = any(one.plan.judges for one in active)
        if not self._any:
            return False
        observed = self.live.drain()
        if observed:
            await asyncio.to_thread(self._engine.observe, observed)
        moved = await asyncio.to_thread(self._engine.turn)
        if moved:
            await self._refresher.refresh_now()
        for rollout in moved:
            self._tell(rollout)
        return True

    async def judge(self) -> None:
        """Has some answers scored. Takes as long as the judge takes."""
        await self._judging.turn()

    def release(self) -> None:
        """Blocks. Another process may look after what this one did."""
        self._engine.release()

    def by_hand(self) -> "Steering":
        """For the admin plane."""
        from admin.app import Steering  # noqa: PLC0415 — see above

        return Steering(Rollouts(self._levers, time.time), self._announce)

    async def _announce(self, id_: str) -> None:
        rollout = await asyncio.to_thread(self._find, id_)
        if rollout is not None:
            self._tell(rollout)

    def _find(self, id_: str) -> Rollout | None:
        with reading(self._database) as tx:
            return store.find(tx, id_)

    def _tell(self, rollout: Rollout) -> None:
        self._offer("rollout", events.body(rollout))
