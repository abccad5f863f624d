"""One session's money from its first call to its last: journal, shares, lease store and ledger, made and ended in the right order."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, final

import structlog
from sqlalchemy import Engine

from gateway.ids import new_id
from gateway.journal import Journal
from gateway.leases.errors import LeaseError
from gateway.leases.ports import LeaseStore
from gateway.metering import Meter
from gateway.price_map import PriceMap
from gateway.recovery import recover
from gateway.shares import Share, Shares
from gateway.shipping import Shipper
from gateway.till import Till

log = structlog.stdlib.get_logger(__name__)

RECOVER_EVERY_S = 5.0
LOOK_S = 0.25
SHOWN_S = 1.0  # for which somebody who asks for records waits until they are all there


@final
class Books:
    """Lives on one event loop: made there, `background` runs there, `close` ends it there."""

    def __init__(
        self,
        data_dir: Path,
        engine: Engine,
        store: LeaseStore,
        prices: PriceMap,
        spent: Callable[[Share, int], None],
        local_part: float | None = None,
    ) -> None:
        """`local_part` as in Till. Raises OSError if the journal cannot be made."""
        self._data_dir = data_dir
        self._engine = engine
        self.store = store
        self.session = new_id("ses")
        self.shares = Shares()
        self.journal = Journal.create(data_dir, self.session, at=time.time())
        self.shipper = Shipper(engine, self.journal, told=True)
        self.till = Till(
            store,
            self.session,
            self.shares,
            unix=time.time,
            now=time.monotonic,
            spent=spent,
            local_part=local_part,
        )
        self.meter = Meter(self.shares, self.till, self.journal, prices, time.time)
        self.shipper.start()

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs as long as the server does."""
        return (self.till.run(), self._look_on(), self._recover())

    async def show(self) -> None:
        """Before records are read: what ended until now is in the database, unless that takes longer than `SHOWN_S`."""
        if self.shipper.lag_records:
            await asyncio.to_thread(self.shipper.catch_up, SHOWN_S)

    async def close(self) -> None:
        """After the last call: everything settled, shipped and given back."""
        await self.till.close()
        shipped = await asyncio.to_thread(self.shipper.close, time.time())
        if not shipped:
            log.warning("ledger.unshipped", session=self.session, records=self.shipper.lag_records)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.shipper.look()

    async def _recover(self) -> None:
        """Ends sessions whose process is gone: this machine's dead workers, and those of an earlier start."""
        while True:
            try:
                for dead in await asyncio.to_thread(recover, self._data_dir, self._engine):
                    try:
                        await self.store.close(dead.session, dead.charges)
                    except LeaseError as error:
                        dead.leave()
                        log.warning("session.not_recovered", session=dead.session, reason=str(error))
                    else:
                        dead.done()
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("recovery.failed", reason=str(error).splitlines()[0])
            await asyncio.sleep(RECOVER_EVERY_S)
