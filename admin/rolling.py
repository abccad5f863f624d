"""Rollouts in this process: the engine, what it is connected to, and what runs it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, final

from sqlalchemy import Connection, Engine

from admin.rollouts import events
from admin.rollouts.coordinator import Coordinator
from admin.rollouts.levers import FamilyLever
from admin.rollouts.records import RecordSource
from admin.rollouts.service import Levers, Rollouts
from gateway.database import appending, changing, reading
from gateway.refresh import Refresher
from gateway.snapshot import Current
from inference.feedback import store as feedback
from inference.rollouts import store
from inference.rollouts.engine import Engine as RolloutEngine
from inference.rollouts.engine import Work
from inference.rollouts.models import Live
from inference.rollouts.ports import Answers, Registry
from inference.rollouts.store import Rollout

if TYPE_CHECKING:  # the admin plane is loaded for whom it does something
    from admin.app import Steering


@final
class Rolling:
    """One per process, made on its event loop. `owner` is the process's session; `offer` gives a message to the webhooks.

    `live` is what serving asks and tells (`inference.ports.Split` and `Observer`). `registry` and `answers` come with classic models.
    """

    def __init__(
        self,
        engine: Engine,
        current: Current,
        refresher: Refresher,
        owner: str,
        offer: Callable[[str, bytes], None],
        *,
        registry: Registry | None = None,
        answers: Answers | None = None,
    ) -> None:
        self._database = engine
        self._offer = offer

        def known(model: str) -> bool:
            return current.snapshot.catalog.find(model) is not None

        self._levers = Levers({"route": FamilyLever("route", known), "prompt": FamilyLever("prompt", known)}, registry)
        self.live = Live(time.time)
        source = RecordSource(engine)
        work = Work(partial(reading, engine), partial(appending, engine), partial(changing, engine), events.moved)
        self._engine = RolloutEngine(
            work, self._levers.all(), {"route": source, "prompt": source}, answers, owner, time.time
        )
        self._coordinator = Coordinator(self._engine, self.live, current, refresher, self._tell, source.keep)

    async def run(self) -> None:
        """Until cancelled."""
        await self._coordinator.run()

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


def forget(tx: Connection, before: float) -> None:
    """What rollouts that ended before then had counted, and what was last said before then, in Unix seconds."""
    store.forget(tx, before)
    feedback.forget(tx, before)
