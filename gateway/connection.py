"""One client connection: HTTP/1.1 in, answers out, in order, within limits.

httptools (llhttp) parses; this protocol owns what a parser does not: pipelining, back-pressure, `Expect`, the framing of answers,
half-closed sockets, refusals that the client still gets to read, and the limits of RFC 9112's "robust" parts that an
attacker would use. A request on a hot route is collected whole and handed to its handler as an `Exchange`; anything else is
handed on at its header, body following, to the ASGI side.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, final

import httptools
import structlog

from gateway import errors
from gateway.drive import Signal
from gateway.framing import declared_length
from gateway.http_exchange import HttpExchange
from gateway.http_limits import body_too_large, header_size, headers_too_large
from gateway.known_request import KnownRequest, learned
from gateway.outlet import Outlet, reset_by_peer, unacknowledged
from gateway.switching import Switched

if TYPE_CHECKING:  # the listener makes connections; the name is needed for types alone
    from gateway.listener import Listener

log = structlog.stdlib.get_logger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
READ_AHEAD = 8  # pipelined requests that wait before reading is paused
LESSONS = 4  # a client whose heads all differ (a trace id in each) is left to the parser
PROBE_DELAYS_S = (0.005, 0.02, 0.05)  # then once a second: a reset from this network arrives within a round trip


@final
class Connection:
    """The protocol (asyncio.Protocol's, without being one: see `gateway.compiled`) of one accepted socket."""

    __slots__ = (
        "_active",
        "_building",
        "_fed",
        "_headers",
        "_known",
        "_lessons",
        "_limits",
        "_linger_left",
        "_lingering",
        "_listener",
        "_outlet",
        "_parser",
        "_paused_reading",
        "_pending",
        "_probes",
        "_refused",
        "_starting",
        "_switching",
        "_transport",
        "closing",
        "half_closed",
        "head_since",
        "local",
        "lost",
        "paused",
        "paused_at",
        "peer",
        "reading_head",
        "served",
        "since",
        "status_line",
        "tls",
        "writable",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self.status_line = listener.status_line
        self._limits = listener.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._outlet: Outlet | None = None
        self._building: HttpExchange | None = None
        self._active: HttpExchange | None = None
        self._pending: deque[HttpExchange] = deque()
        self._headers: list[tuple[bytes, bytes]] = []
        self._fed = 0  # bytes since the last header ended
        self._known: KnownRequest | None = None
        self._lessons = LESSONS
        self._refused = False
        self._lingering = False
        self._linger_left = 0
        self._paused_reading = False
        self._starting = False
        self._switching: HttpExchange | None = None
        self._probes = 0
        self.reading_head = False
        self.half_closed = False
        self.closing = False
        self.lost = False
        self.paused = False
        self.paused_at = 0.0
        self.served = False
        self.since = listener.now()
        self.head_since = self.since
        self.writable = Signal()
        self.peer: tuple[str, int] | None = None
        self.local: tuple[str, int] | None = None
        self.tls = False

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream: asyncio.Transport = transport  # type: ignore[assignment]  # the listener makes no other
        self._transport = stream
        self._outlet = Outlet(self._listener.outlets, stream)
        self.tls = transport.get_extra_info("sslcontext") is not None
        self.peer = _address(transport.get_extra_info("peername"))
        self.local = _address(transport.get_extra_info("sockname"))
        self._listener.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True
        self.paused = False
        if self._outlet is not None:
            self._outlet.drop()
        self._listener.lost(self)
        active, self._active = self._active, None
        building, self._building = self._building, None
        for exchange in (active, building, *self._pending):
            if exchange is not None:
                self._listener.let_go(exchange)
                if not exchange.ended:
                    exchange.cancel()
        self._pending.clear()
        self.writable.fire()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._discard(data)
            return
        self.since = self._listener.now()
        fresh = self._active is None and self._building is None and not self._pending
        if fresh and self._known is not None and self._again(self._known, data):
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._hand_over(data[stop.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._refuse(_cause(error))
        except httptools.HttpParserError as error:
            self._refuse(errors.BadRequest(f"This is not HTTP/1.1: {error}", code="bad_request"))
        else:
            if self.reading_head and self._fed > self._limits.header_bytes:
                self._refuse(headers_too_large(self._limits))
            elif fresh and self._lessons:
                self._learn(data)
        if self._pending or self._building is not None:
            self._start_next()

    def eof_received(self) -> bool:
        """The client will send no more. That is a half-closed socket or a client that left: see `_probe`."""
        active = self._active
        if active is None or active.ended or self.tls or not active.complete:
            self._flush()  # the transport closes itself, and an answer of this very turn is due
            return False
        self.half_closed = True
        last = self._pending[-1] if self._pending else active
        last.close_after = True
        self._probe()
        return True

    def pause_writing(self) -> None:
        self.paused = True
        self.paused_at = self._listener.now()

    def resume_writing(self) -> None:
        self.paused = False
        self.writable.fire()

    # Called by the parser

    def on_message_begin(self) -> None:
        exchange = self._building = HttpExchange(self, self.since)
        self._headers = exchange.raw_headers
        self.reading_head = True
        self.head_since = self.since

    def on_url(self, url: bytes) -> None:
        exchange = self._building
        assert exchange is not None
        exchange.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        exchange = self._building
        assert exchange is not None
        parser = self._parser
        limits = self._limits
        headers = exchange.raw_headers
        fields = exchange.headers = dict(headers)
        self._headers = []  # trailers: nothing here needs one, and among the headers they could smuggle
        self.reading_head = False
        exchange.method = parser.get_method()
        exchange.version = parser.get_http_version()
        exchange.close_after = not parser.should_keep_alive()
        if len(headers) > limits.header_count or (
            self._fed > limits.header_bytes and header_size(exchange.url, headers) > limits.header_bytes
        ):
            raise headers_too_large(self._limits)
        self._fed = 0
        length = declared_length(headers, fields, exchange.version)
        if b"expect" in fields:
            exchange.expects = exchange.version == "1.1" and fields[b"expect"].lower() == b"100-continue"
        route = exchange.route = self._listener.route(exchange.url, exchange.method)
        limit = limits.upload_bytes if route is None else limits.body_bytes
        if length > limit:
            raise body_too_large(limit)
        if route is None:  # the ASGI side reads the body as it comes
            self._pending.append(exchange)

    def on_body(self, part: bytes) -> None:
        exchange = self._building
        assert exchange is not None
        exchange.take(part)
        if exchange.route is None:
            if exchange.size > self._limits.upload_bytes:
                raise body_too_large(self._limits.upload_bytes)
            if exchange.on_body is not None:
                exchange.on_body()
            self._pause_reading()  # until the application asked for more
            return
        if exchange.size > self._limits.body_bytes:
            raise body_too_large(self._limits.body_bytes)
        if exchange.size > 65_536 and not self._listener.hold(exchange):
            raise errors.Overloaded("Too many large requests at the same time; try again", code="overloaded")

    def on_message_complete(self) -> None:
        exchange = self._building
        assert exchange is not None
        self._building = None
        exchange.complete = True
        if exchange.route is not None:
            self._pending.append(exchange)
        elif exchange.on_body is not None:
            exchange.on_body()

    # Called by exchanges and the listener

    @property
    def idle(self) -> bool:
        return self._active is None and self._building is None and not self._pending

    @property
    def reading_body(self) -> bool:
        return self._building is not None and not self.reading_head and not self._paused_reading

    @property
    def delivered(self) -> bool:
        """Whether the client's system has everything that was written."""
        transport = self._transport
        return transport is None or (transport.get_write_buffer_size() == 0 and unacknowledged(transport) == 0)

    def write(self, data: bytes) -> None:
        outlet = self._outlet
        if outlet is not None and not self.lost:
            outlet.write(data)

    @property
    def way(self) -> Outlet | None:
        return None if self._outlet is None or self.lost or self.tls else self._outlet

    def abort(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def resume(self) -> None:
        if self._paused_reading and not self._pending and not self.lost and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()

    def switch(self, protocol: Switched, head: bytes) -> None:
        """Leaves the socket to another protocol, after a last word."""
        transport = self._transport
        if self.lost or transport is None or transport.is_closing():
            protocol.connection_lost(None)
            return
        self._flush()
        self._active = None
        self.lost = True  # whatever is still said here goes nowhere
        self._listener.lost(self)
        transport.write(head)
        transport.set_protocol(protocol)  # type: ignore[arg-type]  # it has what asyncio wants of one, and more
        protocol.gone = lambda: self._listener.lost(protocol)
        self._listener.keep(protocol)
        protocol.connection_made(transport)
        if self._paused_reading:
            transport.resume_reading()

    def finished(self, exchange: HttpExchange) -> None:
        """The answer to the active request was written whole."""
        if exchange.held_bytes:
            self._listener.let_go(exchange)
        self._active = None
        self.served = True
        self.since = self._listener.now()
        if self.lost:
            return
        if not exchange.complete:
            self._linger()
        elif exchange.close_after or self.closing:
            self.close()
        elif self._pending or self._paused_reading or self._building is not None:
            self._start_next()

    def time_out(self) -> None:
        """The client took too long over its request."""
        if self._building is None:
            self.close()
            return
        self._refuse(errors.RequestTimeout("The request did not arrive in time"))
        self._start_next()

    # Private

    def _flush(self) -> None:
        if self._outlet is not None and not self.lost:
            self._outlet.flush()

    def _again(self, known: KnownRequest, data: bytes) -> bool:
        """Starts a request that needs no parser; False if this is none."""
        if self.closing:
            return False
        exchange = known.again(self, data, self.since, self._limits.body_bytes)
        if exchange is None:
            return False
        self._active = exchange
        exchange.start(known.route.handler)
        return True

    def _learn(self, data: bytes) -> None:
        """Remembers the head of a request on a hot route that arrived whole and alone."""
        if self._building is not None or len(self._pending) != 1:
            return
        known = learned(self._pending[0], data)
        if known is not None:
            self._lessons -= 1
            self._known = known

    def _hand_over(self, behind: bytes) -> None:
        """A request for another protocol: its handler's business where the route says so, and nothing after it is ours to read."""
        exchange = self._pending[-1] if self._pending and not self._refused else None
        if exchange is None or exchange.route is None or not exchange.route.switches:
            self._refuse(
                errors.BadRequest("This server does not switch protocols on this path", code="unsupported_upgrade")
            )
            return
        exchange.behind = behind
        exchange.close_after = True
        self._switching = exchange
        self._lingering = True  # what comes now is for the next protocol
        self._known = None

    def _refuse(self, error: errors.GatewayError) -> None:
        """Queues an error as the answer to the request being read; nothing after it is read any more."""
        if self._refused or self.lost:
            return
        self._refused = True
        self._known = None
        exchange = self._building or HttpExchange(self, self.since)
        self._building = None
        self.reading_head = False
        exchange.complete = False
        exchange.refusal = error
        if exchange is self._active or exchange in self._pending:  # an upload that the ASGI side is reading already
            exchange.cancel()
            if exchange.begun:
                self.abort()
            elif exchange is self._active:
                self._answer_refusal(exchange)
            return
        self._pending.append(exchange)

    def _start_next(self) -> None:
        """Starts requests in order, one at a time, while each ends at once; later ones wait. Reading goes on for a few of them,
        since only who reads learns that a client left."""
        if self._starting:
            return
        self._starting = True
        while self._active is None and not self.lost:
            if self._pending:
                self._start(self._pending.popleft())
                continue
            building = self._building
            if building is not None and building.expects and not self.reading_head:
                building.expects = False
                self.write(CONTINUE)
            break
        self._starting = False
        if len(self._pending) >= READ_AHEAD:
            self._pause_reading()
        elif self._paused_reading and (self._active is None or self._active.complete):
            self.resume()

    def _start(self, exchange: HttpExchange) -> None:
        self._active = exchange
        route = exchange.route
        if exchange.refusal is not None:
            self._answer_refusal(exchange)
        elif route is not None:
            exchange.start(route.handler)
        else:
            if exchange.expects and not exchange.complete:
                exchange.expects = False
                self.write(CONTINUE)
            self._listener.serve_asgi(exchange)

    def _answer_refusal(self, exchange: HttpExchange) -> None:
        error = exchange.refusal
        assert error is not None
        exchange.close_after = True
        exchange.fail(error)

    def _pause_reading(self) -> None:
        if not self._paused_reading and self._transport is not None and not self.lost:
            self._paused_reading = True
            self._transport.pause_reading()

    def _linger(self) -> None:
        """Answers before the end of a request: says that no more will be written, then reads on for a while and forgets it,
        since a close with unread data resets the connection and takes the answer from the client (RFC 9112 9.6)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._lingering = True
        self._linger_left = self._limits.linger_bytes
        if transport.can_write_eof():
            self._flush()
            transport.write_eof()
        if self._paused_reading:
            self._paused_reading = False
            transport.resume_reading()
        self._listener.call_later(self._limits.linger_s, self.close)

    def _discard(self, data: bytes) -> None:
        if self._switching is not None:
            if not self._switching.hear(data):
                self.abort()
            return
        self._linger_left -= len(data)
        if self._linger_left < 0:
            self.abort()

    def _probe(self) -> None:
        """Tells a half-closed client from one that left: both look like an end of input, but only the second answers a write with
        a reset. The probe is an interim response (RFC 9110 15.2: any number of them is legal), on an event stream a comment."""
        active = self._active
        if self.lost or active is None or active.ended or self._transport is None:
            return
        if self._probes == 0:
            if not active.begun and active.version == "1.1":
                self.write(CONTINUE)
            elif active.event_stream and active.chunked:
                active.send(b":\n\n")
        elif reset_by_peer(self._transport):
            self.abort()
            return
        delay = PROBE_DELAYS_S[self._probes] if self._probes < len(PROBE_DELAYS_S) else 1.0
        self._probes += 1
        self._listener.call_later(delay, self._probe)


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def _cause(error: BaseException) -> errors.GatewayError:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, errors.GatewayError):
        return cause
    log.error("request.unparsable", exc_info=error)
    return errors.BadRequest("The request could not be read", code="bad_request")
