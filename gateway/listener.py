"""The listening side: accepts connections, finds the handler for a path, keeps the clocks, and drains at the end.

Hot paths are an exact dictionary lookup; every other path falls through to one ASGI application on the same socket.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import structlog

from gateway import errors
from gateway.asgi import AsgiApp, AsgiServer
from gateway.connection import Connection
from gateway.http_exchange import HttpExchange
from gateway.http_limits import HttpLimits
from gateway.outlet import Outlets
from gateway.route import Route
from gateway.switching import Kept

log = structlog.stdlib.get_logger(__name__)

SWEEP_S = 0.5
STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Listener:
    """One event loop's server. `routes` has hot routes by exact path, `prefixes` by its beginning; `app` answers for every other path."""

    def __init__(
        self, routes: Mapping[bytes, Route], prefixes: Mapping[bytes, Route], app: AsgiApp, limits: HttpLimits
    ) -> None:
        self.limits = limits
        self.now = time.monotonic  # what the loop's own clock counts too, but not in whole milliseconds
        loop = asyncio.get_running_loop()
        self.call_later = loop.call_later
        self.outlets = Outlets(loop)
        self._status_lines: dict[int, bytes] = {}
        self._date = b""
        self.refused_connections = 0
        self._routes = dict(routes)
        self._prefixes = tuple(prefixes.items())
        self._asgi = AsgiServer(app)
        self._connections: set[Kept] = set()
        self._servers: list[asyncio.Server] = []
        self._buffered = 0
        self._draining = False
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def hot(self) -> tuple[Mapping[bytes, Route], tuple[bytes, ...]]:
        """Paths that never come to the ASGI side, and beginnings of paths."""
        return self._routes, tuple(prefix for prefix, _ in self._prefixes)

    async def start(
        self,
        host: str,
        port: int,
        *,
        reuse_port: bool = False,
        tls: ssl.SSLContext | None = None,
        backlog: int = 4096,
        sock: socket.socket | None = None,
    ) -> int:
        """Listens and returns the port, which matters for port 0. `sock` is bound already, and stands for host and port."""
        loop = asyncio.get_running_loop()
        patience_s = self.limits.header_timeout_s if tls else None
        if sock is None:
            server = await loop.create_server(
                lambda: cast("asyncio.Protocol", Connection(self)),
                host,
                port,
                ssl=tls,
                backlog=backlog,
                reuse_port=reuse_port or None,
                ssl_handshake_timeout=patience_s,
            )
        else:
            server = await loop.create_server(
                lambda: cast("asyncio.Protocol", Connection(self)),
                sock=sock,
                ssl=tls,
                backlog=backlog,
                ssl_handshake_timeout=patience_s,
            )
        self._servers.append(server)
        listening: Any = server  # whose sockets are a tuple of asyncio's, and a list of uvloop's
        return int(listening.sockets[0].getsockname()[1])

    async def drain(self, timeout_s: float) -> bool:
        """Accepts no more, lets what runs end, closes the rest after `timeout_s`. True if nothing had to be cut off."""
        self._draining = True
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.closing = True
            if connection.idle:
                connection.close()
        deadline = self.now() + timeout_s
        while self._connections and self.now() < deadline:
            await asyncio.sleep(0.02)
            self._leave_silent()
        left = tuple(self._connections)
        for connection in left:
            connection.abort()
        await self._asgi.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return not left

    def _leave_silent(self) -> None:
        """A transport under TLS waits for half a minute until its client says goodbye too: it may, but need not (RFC 8446 6.1)."""
        for connection in tuple(self._connections):
            if connection.idle and connection.delivered:
                connection.abort()

    # Called by connections

    def status_line(self, status: int) -> bytes:
        """The first line of an answer and its date, which is renewed twice a second."""
        line = self._status_lines.get(status)
        if line is None:
            line = self._status_lines[status] = (
                STATUS_LINES.get(status, b"HTTP/1.1 %d Unknown\r\n" % status) + self._date
            )
        return line

    def route(self, url: bytes, method: bytes) -> Route | None:
        """The hot route of a request target, None for the ASGI side. Raises MethodNotAllowed."""
        route = self._routes.get(url)
        if route is None:
            route = self._routes.get(url.partition(b"?")[0]) or self._by_prefix(url)
            if route is None:
                return None
        if route.method != method and route.method:
            allowed = route.method.decode()
            raise errors.MethodNotAllowed(
                f"{method.decode('latin-1')} is not allowed here; use {allowed}", headers=(("allow", allowed),)
            )
        return route

    def _by_prefix(self, url: bytes) -> Route | None:
        return next((route for prefix, route in self._prefixes if url.startswith(prefix)), None)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweep()
        if self._draining or len(self._connections) > self.limits.connections:
            self.refused_connections += 1
            connection.abort()

    def keep(self, connection: Kept) -> None:
        """One that speaks another protocol from here on; it says by itself when it is gone."""
        self._connections.add(connection)
        connection.closing = self._draining

    def lost(self, connection: Kept) -> None:
        self._connections.discard(connection)

    def hold(self, exchange: HttpExchange) -> bool:
        """Counts a large body against the memory that all of them may take together."""
        more = exchange.size - exchange.held_bytes
        if self._buffered + more > self.limits.buffered_bytes:
            return False
        exchange.held_bytes += more
        self._buffered += more
        return True

    def let_go(self, exchange: HttpExchange) -> None:
        self._buffered -= exchange.held_bytes
        exchange.held_bytes = 0

    def serve_asgi(self, exchange: HttpExchange) -> None:
        self._asgi.serve(exchange)

    # Clocks

    def _sweep(self) -> None:
        """Twice a second while there are clients: the date header, and those that are too slow."""
        loop = asyncio.get_running_loop()
        self._date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self._status_lines = {}
        now = self.now()
        for connection in tuple(self._connections):
            self._check(connection, now)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep) if self._connections else None

    def _check(self, connection: Kept, now: float) -> None:
        limits = self.limits
        if connection.paused and now - connection.paused_at > limits.write_timeout_s:
            connection.abort()
        elif connection.reading_head:
            if now - connection.head_since > limits.header_timeout_s:
                connection.time_out()
        elif connection.reading_body:
            if now - connection.since > limits.body_timeout_s:
                connection.time_out()
        elif connection.idle and now - connection.since > (
            limits.idle_timeout_s if connection.served else limits.header_timeout_s
        ):
            connection.close()
