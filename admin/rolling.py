"""Rollouts in this process: awake while one is active anywhere, asleep without a timer while none is, and not even loaded before."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final, final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from admin import beside
from gateway.database import reading
from gateway.refresh import Refresher
from gateway.snapshot import Current, Snapshot
from inference.rollouts import retention

if TYPE_CHECKING:  # they are loaded for whom they do something
    from admin.rollouts.judging import Ask
    from admin.rollouts.parts import Parts

TURN_S: Final = 0.5
RETRY_S: Final = 2.0

log = structlog.stdlib.get_logger(__name__)


@final
class Rolling:
    """One per process, made on its event loop. See `admin.rollouts.parts.Parts` for the arguments."""

    def __init__(
        self,
        engine: Engine,
        current: Current,
        refresher: Refresher,
        owner: str,
        offer: Callable[[str, bytes], None],
        hidden: Mapping[str, Collection[str]],
        ask: "Ask",
    ) -> None:
        self._engine = engine
        self._current = current
        self._refresher = refresher
        self._owner = owner
        self._offer = offer
        self._hidden = hidden
        self._ask = ask
        self._parts: Parts | None = None
        self._changed = True
        self._judges = asyncio.Event()
        self._awake = asyncio.Event()
        self._awake.set()  # what ran when the last process ended goes on
        current.on_change(self._wake)

    @property
    def parts(self) -> "Parts":
        """Loaded with the first use."""
        if self._parts is None:
            from admin.rollouts.classic import CapturedAnswers, ClassicModels  # noqa: PLC0415 — see above
            from admin.rollouts.parts import Parts  # noqa: PLC0415 — see above

            self._parts = Parts(
                self._engine,
                self._current,
                self._refresher,
                self._owner,
                self._offer,
                ClassicModels(),
                CapturedAnswers(),
                self._hidden,
                self._ask,
            )
            self._parts.load(beside.of(self._current.snapshot.beside).rollouts)
        return self._parts

    async def run(self) -> None:
        """Until cancelled. A change of the control state wakes it: a rollout that begins is one."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            tasks.create_task(self._judge())

    async def _judge(self) -> None:
        """Beside the looks: a judge may take minutes, and a broken version goes back at once."""
        while True:
            await self._judges.wait()
            self._judges.clear()
            try:
                await self.parts.judge()
            except SQLAlchemyError as error:
                log.warning("judges.waiting", reason=str(error).splitlines()[0])
            await asyncio.sleep(TURN_S)

    async def _look(self) -> None:
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
                    self._changed = True
                    pause = RETRY_S
                try:
                    await asyncio.wait_for(self._awake.wait(), pause)
                except TimeoutError:
                    self._awake.set()
        finally:
            if self._parts is not None:
                await asyncio.shield(asyncio.to_thread(self._release))

    async def _turn(self) -> bool:
        changed, self._changed = self._changed, False
        if self._parts is None and not await asyncio.to_thread(self._any_active):
            return False
        found = await self.parts.turn(changed=changed)
        if found and self.parts.judged:
            self._judges.set()
        return found

    def _wake(self, snapshot: Snapshot) -> None:
        """In the turn of the event loop in which the snapshot comes into force."""
        rollouts = beside.of(snapshot.beside).rollouts
        if rollouts or self._parts is not None:
            self.parts.load(rollouts)
        self._changed = True
        self._awake.set()

    def _any_active(self) -> bool:
        with reading(self._engine) as tx:
            return retention.any_active(tx)

    def _release(self) -> None:
        try:
            self.parts.release()
        except SQLAlchemyError:  # the lease ends by itself
            log.info("rollouts.not_released")
