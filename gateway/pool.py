"""Keep-alive connections to every upstream, with a limit per origin, bounded waiting and one watchdog for all deadlines.

Idle connections are reused last in, first out, so that a burst's extra ones age and close. They are dropped before the usual
server (uvicorn: 5 s) would drop them, which keeps the race between its close and our next request small.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, cast, final
from urllib.parse import urlsplit

import structlog

from gateway import errors
from gateway.chunked import StreamHead
from gateway.outlet import Outlets
from gateway.pool_limits import PoolLimits
from gateway.repeated_head import RepeatedHead
from gateway.upstream import UpstreamConnection

log = structlog.stdlib.get_logger(__name__)

WATCH_S = 0.1


class OriginKey(NamedTuple):
    """Connections are shared between whatever has all of this in common."""

    scheme: str
    host: str
    port: int
    verify_tls: bool
    ca_file: str | None


def origin_key(base_url: str, *, verify_tls: bool = True, ca_file: str | None = None) -> OriginKey:
    """The origin of a base URL such as `https://api.example.com/v1`."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{base_url!r} is not an http or https URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return OriginKey(parts.scheme, parts.hostname, port, verify_tls, ca_file)


class Pool:
    """Every origin of one event loop, and the watchdog of their deadlines."""

    def __init__(self, limits: PoolLimits, ca_file: str | None = None) -> None:
        self.limits = limits
        self.ca_file = (
            ca_file  # trusted beside the system's authorities, for every origin that names no file of its own
        )
        self.loop = asyncio.get_running_loop()
        self.outlets = Outlets(self.loop)
        self._origins: dict[OriginKey, Origin] = {}
        self._watcher: asyncio.TimerHandle | None = None
        self._swept_at = 0.0

    def origin(self, key: OriginKey) -> "Origin":
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(key, self)
        return origin

    @property
    def open_connections(self) -> Mapping[str, int]:
        """By `host:port`, for metrics."""
        return {f"{key.host}:{key.port}": origin.size for key, origin in self._origins.items() if origin.size}

    def wake(self) -> None:
        """Deadlines are looked at every 100 ms: a timer for each exchange would cost more than the requests' own work."""
        if self._watcher is None:
            self._watcher = self.loop.call_later(WATCH_S, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        sweeping = now - self._swept_at > 1.0
        if sweeping:
            self._swept_at = now
        busy = False
        for origin in self._origins.values():
            origin.check(now)
            if sweeping:
                origin.sweep(now)
            busy = busy or origin.size > 0
        self._watcher = self.loop.call_later(WATCH_S, self._look) if busy else None

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        for origin in self._origins.values():
            await origin.close()


@final
class Origin:
    """The connections to one origin."""

    def __init__(self, key: OriginKey, pool: Pool) -> None:
        self.key = key
        self._pool = pool
        self._limits = pool.limits
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._opening: set[asyncio.Task[UpstreamConnection]] = set()
        self._connections: set[UpstreamConnection] = set()
        self._tls: ssl.SSLContext | None = None
        self.known: RepeatedHead | None = None  # of its last plain answer
        self.known_stream: StreamHead | None = None  # of its last stream
        self.outlets = pool.outlets
        self.now = time.monotonic  # what the loop's own clock counts too, but not in whole milliseconds

    @property
    def size(self) -> int:
        return len(self._connections) + len(self._opening)

    def idle(self) -> UpstreamConnection | None:
        """A connection that is ready now, if there is one: the hot case, without an await."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                connection.busy = True
                return connection
        return None

    async def acquire(self, timeout_s: float) -> UpstreamConnection:
        """A connection, new if need be, within `timeout_s`.

        Raises UpstreamUnreachable (refused, no such host, bad certificate), UpstreamTimeout, or Overloaded when too many wait.
        """
        connection = self.idle()
        if connection is not None:
            return connection
        if self.size >= self._limits.connections:
            connection = await self._wait(timeout_s)
            if connection is not None:
                return connection
        connection = await self._open(timeout_s)
        connection.busy = True
        return connection

    def give_back(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        if not reusable:
            connection.abort()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                connection.busy = True
                waiter.set_result(connection)
                return
        connection.idle_since = self.now()
        self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        if not connection.busy and connection in self._idle:
            self._idle.remove(connection)
        while self._waiting:  # a place became free
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def check(self, now: float) -> None:
        """Fails what is past its deadline; idle connections have none."""
        late = []
        for connection in self._connections:
            if connection.moved:
                connection.note(now)
            elif connection.deadline <= now:
                late.append(connection)
        for connection in late:
            connection.time_out()

    def sweep(self, now: float) -> None:
        """Closes what has been idle too long: the oldest stand first."""
        limit = now - self._limits.idle_s
        while self._idle and self._idle[0].idle_since < limit:
            self._idle.pop(0).close()

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in tuple(self._connections):
            connection.abort()

    async def _wait(self, timeout_s: float) -> UpstreamConnection | None:
        """A connection that another request gives back, or None when one was closed and its place is free."""
        if len(self._waiting) >= self._limits.waiting:
            raise errors.Overloaded(f"Too many requests wait for {self.key.host}", code="overloaded")
        loop = self._pool.loop
        waiter: asyncio.Future[UpstreamConnection | None] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(timeout_s, _expire, waiter, self.key.host)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                given = waiter.result()
                if given is not None:  # given in the same moment as the client left
                    given.busy = False
                    self.give_back(given, reusable=True)
            raise
        finally:
            timer.cancel()

    async def _open(self, timeout_s: float) -> UpstreamConnection:
        task = self._pool.loop.create_task(self._connect(timeout_s))
        self._opening.add(task)
        task.add_done_callback(self._opened)
        return await task

    def _opened(self, task: "asyncio.Task[UpstreamConnection]") -> None:
        self._opening.discard(task)
        if task.cancelled() or task.exception() is not None:
            return
        self._connections.add(task.result())
        self._pool.wake()

    async def _connect(self, timeout_s: float) -> UpstreamConnection:
        key = self.key
        where = f"{key.host}:{key.port}"
        options: dict[str, Any] = {}
        if key.scheme == "https":
            options = {"ssl": self.context(), "server_hostname": key.host, "ssl_handshake_timeout": timeout_s}
        try:
            async with asyncio.timeout(timeout_s):
                _, protocol = await self._pool.loop.create_connection(
                    lambda: cast("asyncio.Protocol", UpstreamConnection(self)), key.host, key.port, **options
                )
        except TimeoutError:
            raise errors.UpstreamTimeout(
                f"No connection to {where} within {timeout_s:g} s", code="connect_timeout"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise errors.UpstreamUnreachable(
                f"The certificate of {where} is not trusted: {error.verify_message}", code="upstream_certificate"
            ) from None
        except OSError as error:  # refused, no route, no such host, broken TLS
            log.info("upstream.unreachable", upstream=where, reason=str(error))
            raise errors.UpstreamUnreachable(f"No connection to {where}: {_reason(error)}") from None
        return cast("UpstreamConnection", protocol)

    def context(self) -> ssl.SSLContext:
        """What its connections are protected with."""
        context = self._tls
        if context is None:
            context = ssl.create_default_context()
            own = self.key.ca_file or self._pool.ca_file
            if own is not None:
                context.load_verify_locations(own)
            if not self.key.verify_tls:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._tls = context
        return context


def _expire(waiter: "asyncio.Future[UpstreamConnection | None]", host: str) -> None:
    if not waiter.done():
        waiter.set_exception(errors.Overloaded(f"All connections to {host} are taken", code="overloaded"))


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
