"""One request on a client's connection and its answer: the HTTP adapter of `gateway.exchange.Exchange`.

Framing lives here (RFC 9112 6): a length, chunks, or the end of the connection for HTTP/1.0; what the connection does is behind `Carrier`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, final

import structlog

from gateway import errors
from gateway.drive import Run, Signal
from gateway.exchange import Way
from gateway.faces import face
from gateway.route import Handler, Route
from gateway.switching import Switched
from gateway.trace_context import named

log = structlog.stdlib.get_logger(__name__)

MOST_BEHIND = 256 * 1024
JSON_HEAD = b"content-type: application/json\r\n"


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    peer: tuple[str, int] | None
    local: tuple[str, int] | None
    tls: bool
    paused: bool
    lost: bool
    closing: bool
    writable: Signal

    @property
    def status_line(self) -> Callable[[int], bytes]:
        """The first line of an answer with a status, and its date."""

    @property
    def way(self) -> Way | None:
        """Past `write`, for what is said often. None: there is no connection any more."""

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def resume(self) -> None: ...

    def finished(self, exchange: "HttpExchange") -> None: ...

    def switch(self, protocol: Switched, head: bytes) -> None: ...


@final
class HttpExchange:
    """One request on a connection and its answer. See `gateway.exchange.Exchange` for the part that the data plane uses."""

    __slots__ = (
        "_body",
        "_connection",
        "begun",
        "behind",
        "body_told",
        "chunked",
        "close_after",
        "complete",
        "ended",
        "event_stream",
        "expects",
        "headers",
        "held_bytes",
        "method",
        "on_body",
        "on_cancel",
        "parts",
        "raw_headers",
        "refusal",
        "route",
        "run",
        "size",
        "started_at",
        "url",
        "version",
    )

    def __init__(
        self,
        connection: Carrier,
        started_at: float,
        url: bytes = b"",
        method: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        route: Route | None = None,
        body: bytes | None = None,
    ) -> None:
        """With a body it is whole already, and was not parsed."""
        self._connection = connection
        self._body = body
        self.started_at = started_at
        self.url = url
        self.method = method
        self.version = "1.1"
        self.raw_headers: list[tuple[bytes, bytes]] = []
        # Names in lower case; of a repeated one the last value.
        self.headers: Mapping[bytes, bytes] = {} if headers is None else headers
        self.parts: list[bytes] = []
        self.size = 0
        self.held_bytes = 0
        self.route = route
        self.refusal: errors.GatewayError | None = None
        self.run: Run | None = None
        self.on_body: Callable[[], None] | None = None  # the ASGI side is told of new parts
        self.on_cancel: Callable[[], None] | None = None
        self.expects = False
        self.complete = body is not None
        self.body_told = False  # the ASGI side has seen the end of the body
        self.begun = False
        self.ended = False
        self.chunked = False
        self.event_stream = False
        self.close_after = False
        self.behind: bytes | None = None  # what came after a request for another protocol, which this one is

    @property
    def body(self) -> bytes:
        whole = self._body
        if whole is None:
            parts = self.parts
            whole = self._body = parts[0] if len(parts) == 1 else b"".join(parts)
            self.parts = []
        return whole

    @property
    def client(self) -> tuple[str, int] | None:
        return self._connection.peer

    @property
    def server(self) -> tuple[str, int] | None:
        return self._connection.local

    @property
    def write_paused(self) -> bool:
        return self._connection.paused and not self._connection.lost

    @property
    def tls(self) -> bool:
        return self._connection.tls

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """The whole answer at once."""
        if self.begun:
            return
        self.begun = True
        connection = self._connection
        start = connection.status_line(status) + head
        if not self.complete or self.close_after or connection.closing:
            self.close_after = True  # with the rest of a request unread, it could not be told from a new one
            start += b"connection: close\r\n"
        if status in (204, 304):
            connection.write(start + b"\r\n")
        elif self.method == b"HEAD":
            connection.write(b"%bcontent-length: %d\r\n\r\n" % (start, len(body)))
        elif len(body) < 65_536:
            connection.write(b"%bcontent-length: %d\r\n\r\n%b" % (start, len(body), body))
        else:
            connection.write(b"%bcontent-length: %d\r\n\r\n" % (start, len(body)))
            connection.write(body)
        self.ended = True
        connection.finished(self)

    def begin(self, status: int, head: bytes, length: int | None = None) -> None:
        """The head of an answer whose body follows by `send`; chunked unless its length is known."""
        if self.begun:
            return
        self.begun = True
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.version == "1.1":
            self.chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self.close_after = True  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
            framing = b""
        connection = self._connection
        if not self.complete or self.close_after or connection.closing:
            self.close_after = True
            framing += b"connection: close\r\n"
        connection.write(b"%b%b%b\r\n" % (connection.status_line(status), head, framing))

    def begin_events(self, status: int, head: bytes) -> None:
        """An event stream: a comment may be slipped in between its events (`Connection.probe`)."""
        self.event_stream = True
        self.begin(status, head)

    def send(self, data: bytes) -> None:
        if not data or self.ended or self.method == b"HEAD":
            return
        if self.chunked:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._connection.write(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        """As `send`, where `chunk` is `data` framed as a chunk already."""
        if self.chunked and not self.ended:
            self._connection.write(chunk)
        else:
            self.send(data)

    def way(self) -> Way | None:
        return self._connection.way if self.chunked and not self.ended else None

    def end(self) -> None:
        if self.ended:
            return
        if self.chunked and self.method != b"HEAD":
            self._connection.write(b"0\r\n\r\n")
        self.ended = True
        self._connection.finished(self)

    def break_off(self) -> None:
        """Ends an answer that cannot be finished so that no client takes it for whole: the connection breaks before the last chunk."""
        self.ended = True  # whatever is still said, nobody hears
        self._connection.abort()
        if self.on_cancel is not None:
            self.on_cancel()

    def switch(self, protocol: Switched, head: bytes) -> None:
        """Answers a request for another protocol with a 101 of these header lines; from here on the connection is `protocol`'s."""
        self.begun = self.ended = True
        self._connection.switch(protocol, b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % head)
        if self.behind:
            protocol.data_received(self.behind)

    def hear(self, data: bytes) -> bool:
        """What a client says in another protocol before it is taken over; False if that is too much."""
        self.behind = (self.behind or b"") + data
        return len(self.behind) <= MOST_BEHIND

    async def drained(self) -> None:
        connection = self._connection
        while connection.paused and not connection.lost:
            await connection.writable

    def start(self, handler: Handler) -> None:
        """Drives the handler up to its first wait."""
        self.run = Run(handler(self), self._done)
        self.run.step()

    def fail(self, error: errors.GatewayError) -> None:
        """Answers with an error, in the shape of the API that the path belongs to."""
        lines, body = face(self.url, error)
        self.respond(error.status, error_head(error) + lines, body)

    def cancel(self) -> None:
        """The client is gone."""
        if self.run is not None:
            self.run.cancel()
        elif self.on_cancel is not None:
            self.on_cancel()

    def take(self, body_part: bytes) -> None:
        self.parts.append(body_part)
        self.size += len(body_part)

    def resume_reading(self) -> None:
        """The ASGI side consumed what was buffered."""
        self._connection.resume()

    def _done(self, escaped: BaseException | None) -> None:
        """The handler ended: normally with a whole answer, and nothing is left to do."""
        self.run = None  # a cycle otherwise, and garbage that only the collector could find
        if escaped is not None and not isinstance(escaped, asyncio.CancelledError):
            log.error("request.failed", path=self.url.decode("latin-1"), exc_info=escaped, **named(self.headers))
            if not self.begun:
                self.fail(errors.Internal("Something went wrong on our side; the log has the details"))
        if not self.ended:
            self.break_off()


def error_head(error: errors.GatewayError) -> bytes:
    """The header lines of an error's answer."""
    lines = b"".join(
        b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in error.headers
    )
    return JSON_HEAD + lines
