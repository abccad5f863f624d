"""One line of a batch on its way through a hot route: another carrier of `gateway.exchange.Exchange`. Nobody reads while it is written."""

from collections.abc import Callable, Mapping
from typing import Final, final

from gateway import errors
from gateway.admission.classes import HEADER

TAG: Final = b"batch"


@final
class LineExchange:
    """`answered` is given the whole answer once, before the call is settled: status, head, body. It must not raise.

    `aside`: nobody waits for it, so that it goes behind those whom somebody waits for.
    """

    def __init__(
        self,
        url: bytes,
        secret: bytes,
        body: bytes,
        started_at: float,
        answered: Callable[[int, bytes, bytes], None],
        tag: bytes = TAG,
        *,
        aside: bool = True,
    ) -> None:
        self.url = url
        self.method = b"POST"
        self.headers: Mapping[bytes, bytes] = {
            b"authorization": b"Bearer " + secret,
            b"content-type": b"application/json",
            b"x-penstock-tags": tag,
        }
        if aside:
            self.headers = {**self.headers, HEADER: b"batch"}
        self.body = body
        self.started_at = started_at
        self.begun = False
        self._answered = answered
        self._broken = False
        self._status = 0
        self._head = b""
        self._parts: list[bytes] = []

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        if not self.begun:
            self.begun = True
            self._answered(status, head, body)

    def begin(self, status: int, head: bytes) -> None:
        self.begun = True
        self._status, self._head = status, head

    def begin_events(self, status: int, head: bytes) -> None:
        self.begin(status, head)

    def send(self, data: bytes) -> None:
        self._parts.append(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:  # noqa: ARG002 — the port's names
        self.send(data)

    def way(self) -> None: ...

    def end(self) -> None:
        if self._broken:
            return
        self._answered(self._status, self._head, b"".join(self._parts))
        self._parts = []

    def break_off(self) -> None:
        """There is no answer then."""
        self._broken = True
        self._parts = []

    def fail(self, error: errors.GatewayError) -> None:
        """As an HTTP exchange answers with an error."""
        head = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in error.headers)
        self.respond(error.status, head, error.body())

    @property
    def write_paused(self) -> bool:
        return False

    async def drained(self) -> None: ...


def header(head: bytes, name: bytes) -> str | None:
    """The value of a line in a finished head."""
    for line in head.split(b"\r\n"):
        found, _, value = line.partition(b": ")
        if found == name:
            return value.decode("latin-1")
    return None
