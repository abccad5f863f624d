"""An exchange around another one that remembers what goes through it, up to a size, and says that it was not in the cache."""

from collections.abc import Mapping
from typing import Final, final

from gateway.exchange import Exchange

MISS: Final = b"x-penstock-cache: miss\r\n"


@final
class Recording:
    """See `gateway.exchange.Exchange`."""

    __slots__ = ("_left", "_parts", "inner", "streamed", "whole")

    def __init__(self, inner: Exchange, max_bytes: int) -> None:
        self.inner = inner
        self._left = max_bytes
        self._parts: list[bytes] = []
        self.streamed = False
        self.whole = False  # the answer came to its end, and all of it is here

    @property
    def content(self) -> bytes:
        return b"".join(self._parts)

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self.inner.headers

    @property
    def body(self) -> bytes:
        return self.inner.body

    @property
    def started_at(self) -> float:
        return self.inner.started_at

    @property
    def begun(self) -> bool:
        return self.inner.begun

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        if status == 200:
            self._keep(body)
            self.whole = self._left >= 0
        self.inner.respond(status, head + MISS, body)

    def begin(self, status: int, head: bytes) -> None:
        self._left = -1  # neither JSON nor events
        self.inner.begin(status, head + MISS)

    def begin_events(self, status: int, head: bytes) -> None:
        self.streamed = True
        self.inner.begin_events(status, head + MISS)

    def send(self, data: bytes) -> None:
        self._keep(data)
        self.inner.send(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        self._keep(data)
        self.inner.send_chunk(data, chunk)

    def way(self) -> None: ...

    def end(self) -> None:
        self.whole = self._left >= 0
        self.inner.end()

    def break_off(self) -> None:
        self._left = -1
        self.inner.break_off()

    @property
    def write_paused(self) -> bool:
        return self.inner.write_paused

    async def drained(self) -> None:
        await self.inner.drained()

    def _keep(self, data: bytes) -> None:
        if self._left < 0:
            return
        self._left -= len(data)
        if self._left < 0:
            self._parts = []
        else:
            self._parts.append(data)
