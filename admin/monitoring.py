"""Monitors in this process: awake while there is one, asleep without a timer while there is none, and not even loaded before.

Here the planes meet: searches offer their questions, the retrieval plane samples its collections, the inference plane judges.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from admin import beside
from gateway.database import appending, reading
from gateway.snapshot import Current, Snapshot
from retrieval.errors import RetrievalError

if TYPE_CHECKING:  # NumPy comes with them, for who watches something
    import numpy as np
    from numpy.typing import NDArray

    from inference.monitors.monitor import Monitor, Window
    from inference.monitors.watcher import Watcher
    from retrieval.sampling import Sampled
    from retrieval.service import Retrieval

TURN_S: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


@final
class Monitoring:
    """One per process, made on its event loop. `offer` is `admin.alerts.Alerts.offer`."""

    def __init__(
        self,
        engine: Engine,
        current: Current,
        retrieval: "Callable[[], Awaitable[Retrieval]]",
        offer: Callable[[str, bytes], None],
    ) -> None:
        self._engine = engine
        self._current = current
        self._retrieval = retrieval
        self._offer = offer
        self._watcher: Watcher | None = None
        self._awake = asyncio.Event()
        self._awake.set()
        current.on_change(self._wake)

    def asked(self, collection_id: str, version: int, vector: "NDArray[np.float32]") -> None:
        """On the event loop, for every search by meaning."""
        watching = beside.of(self._current.snapshot.beside).monitors
        if watching:
            for monitor in watching:
                if monitor.subject == collection_id:
                    self._loaded().offer(monitor, version, vector)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            watching = beside.of(self._current.snapshot.beside).monitors
            if not watching:
                continue
            try:
                await self._loaded().turn(watching)
            except (SQLAlchemyError, RetrievalError) as error:
                log.warning("monitors.waiting", reason=str(error).splitlines()[0])
            try:
                await asyncio.wait_for(self._awake.wait(), TURN_S)
            except TimeoutError:
                self._awake.set()

    def _wake(self, _snapshot: Snapshot) -> None:
        self._awake.set()

    def _loaded(self) -> "Watcher":
        if self._watcher is None:
            from inference.monitors.watcher import Watcher  # noqa: PLC0415 — see above

            transactions = partial(reading, self._engine), partial(appending, self._engine)
            self._watcher = Watcher(*transactions, self._draw, self._tell)
        return self._watcher

    async def _draw(self, collection_id: str, after: int, most: int) -> "Sampled | None":
        return await (await self._retrieval()).sample(collection_id, after, most)

    def _tell(self, monitor: "Monitor", window: "Window") -> None:
        from inference.monitors.watcher import drift_of  # noqa: PLC0415 — see above

        log.warning("monitor.drift", monitor=monitor.id, stream=window.stream, window=window.number)
        if monitor.terms.alert:
            self._offer("drift", msgspec.json.encode(drift_of(monitor, window)))
