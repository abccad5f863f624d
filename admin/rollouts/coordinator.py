"""Runs the rollout engine beside the event loop: awake while a rollout is active anywhere, asleep without a timer while none is."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.refresh import Refresher
from gateway.snapshot import Current, Snapshot
from inference.rollouts.engine import Engine
from inference.rollouts.models import Live
from inference.rollouts.store import Rollout

TURN_S: Final = 0.5
RETRY_S: Final = 2.0

log = structlog.stdlib.get_logger(__name__)


@final
class Coordinator:
    """One per process, on its event loop. A change of the control state wakes it: a rollout that begins is one.

    `tell` hears of each rollout that this process has moved. `live` is what requests for classic models ask.
    """

    def __init__(
        self,
        engine: Engine,
        live: Live,
        current: Current,
        refresher: Refresher,
        tell: Callable[[Rollout], None],
        keep: Callable[[Sequence[str]], None],
    ) -> None:
        self._engine = engine
        self._live = live
        self._refresher = refresher
        self._tell = tell
        self._keep = keep
        self._awake = asyncio.Event()
        self._awake.set()  # what ran when the last process ended goes on
        self._changed = True
        self._any = False
        current.on_change(self._wake)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._awake.wait()
                self._awake.clear()
                pause = TURN_S
                try:
                    if not await self._turn():
                        continue
                except SQLAlchemyError as error:
                    log.warning("rollouts.waiting", reason=str(error).splitlines()[0])
                    pause = RETRY_S
                try:
                    await asyncio.wait_for(self._awake.wait(), pause)
                except TimeoutError:
                    self._awake.set()
        finally:
            await asyncio.shield(asyncio.to_thread(self._release))

    def _wake(self, _: Snapshot) -> None:
        self._changed = True
        self._awake.set()

    async def _turn(self) -> bool:
        """Whether there is anything to look after."""
        if self._changed:
            self._changed = False
            active = await asyncio.to_thread(self._engine.active)
            self._live.load(active)
            self._keep([one.id for one in active])
            self._any = bool(active)
        if not self._any:
            return False
        observed = self._live.drain()
        if observed:
            await asyncio.to_thread(self._engine.observe, observed)
        moved = await asyncio.to_thread(self._engine.turn)
        if moved:
            await self._refresher.refresh_now()
        for rollout in moved:
            self._tell(rollout)
        return True

    def _release(self) -> None:
        try:
            self._engine.release()
        except SQLAlchemyError:  # the lease ends by itself
            log.info("rollouts.not_released")
