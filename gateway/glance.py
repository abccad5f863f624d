"""An exchange around another one that keeps the beginning of an answer, for whoever wants to know who answered and how it ended.

What passes is not copied, and streams keep their short way: only what is said first is looked at, later and elsewhere.
"""

from collections.abc import Mapping
from typing import Final, final

from gateway.exchange import Exchange, Way

MOST: Final = 16 * 1024  # of a whole answer; of a larger one the beginning
BEGINNING: Final = 1024


@final
class Glance:
    """See `gateway.exchange.Exchange`."""

    __slots__ = ("_inner", "seen")

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self.seen = b""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._inner.headers

    @property
    def body(self) -> bytes:
        return self._inner.body

    @property
    def started_at(self) -> float:
        return self._inner.started_at

    @property
    def begun(self) -> bool:
        return self._inner.begun

    @property
    def write_paused(self) -> bool:
        return self._inner.write_paused

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self.seen = body if len(body) <= MOST else body[:BEGINNING]
        self._inner.respond(status, head, body)

    def begin(self, status: int, head: bytes) -> None:
        self._inner.begin(status, head)

    def begin_events(self, status: int, head: bytes) -> None:
        self._inner.begin_events(status, head)

    def send(self, data: bytes) -> None:
        if not self.seen:
            self.seen = data[:BEGINNING]
        self._inner.send(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        self._inner.send_chunk(data, chunk)

    def way(self) -> Way | None:
        return self._inner.way()

    def end(self) -> None:
        self._inner.end()

    def break_off(self) -> None:
        self._inner.break_off()

    async def drained(self) -> None:
        await self._inner.drained()
