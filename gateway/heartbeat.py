"""Comments on a stream that has nothing to say yet, so that no proxy on the way takes it for dead. Opt-in: `heartbeat_s` on a model.

The first one sends the head of the answer. From then on the status is 200, whatever comes: fallbacks still run until the first content,
but an error can only be told inside the stream.
"""

import asyncio
from typing import Final, final

from gateway.exchange import Exchange
from gateway.record import Record
from gateway.targets import header_value

BEAT: Final = b": penstock heartbeat\n\n"


@final
class Heartbeat:
    """Beats from `start` until `stop`. A client that reads too slowly has enough to read already."""

    __slots__ = ("_every_s", "_exchange", "_record", "_timer")

    def __init__(self, exchange: Exchange, record: Record, every_s: float) -> None:
        self._exchange = exchange
        self._record = record
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> "Heartbeat":
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._beat)
        return self

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        exchange, record = self._exchange, self._record
        if not exchange.begun:
            record.status = 200
            exchange.begin_events(
                200,
                b"content-type: text/event-stream; charset=utf-8\r\nx-request-id: %b\r\nx-penstock-model: %b\r\n"
                % (record.id.encode(), header_value(record.model or "")),
            )
        if not exchange.write_paused:
            exchange.send(BEAT)
        self.start()
