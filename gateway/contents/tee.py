"""An exchange around another one that remembers the answer, up to a size."""

from collections.abc import Mapping
from typing import final

from gateway.exchange import Exchange


@final
class Tee:
    """See `gateway.exchange.Exchange`."""

    __slots__ = ("_inner", "_left", "_parts", "streamed")

    def __init__(self, inner: Exchange, max_bytes: int) -> None:
        self._inner = inner
        self._left = max_bytes
        self._parts: list[bytes] = []
        self.streamed = False

    @property
    def content(self) -> bytes:
        return b"".join(self._parts) if self._left >= 0 else b""

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
        self._keep(body)
        self._inner.respond(status, head, body)

    def begin(self, status: int, head: bytes) -> None:
        self._inner.begin(status, head)

    def begin_events(self, status: int, head: bytes) -> None:
        self.streamed = True
        self._inner.begin_events(status, head)

    def send(self, data: bytes) -> None:
        self._keep(data)
        self._inner.send(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        self._keep(data)
        self._inner.send_chunk(data, chunk)

    def way(self) -> None:
        """What passes is looked at."""

    def end(self) -> None:
        self._inner.end()

    def break_off(self) -> None:
        self._inner.break_off()

    async def drained(self) -> None:
        await self._inner.drained()

    def _keep(self, data: bytes) -> None:
        if self._left < 0:
            return
        self._left -= len(data)
        if self._left < 0:
            self._parts = []
        else:
            self._parts.append(bytes(data))
