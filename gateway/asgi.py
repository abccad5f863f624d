"""Everything that is not hot: one ASGI application behind the same connections, with back-pressure both ways.

The application may be loaded late: until it is there, its requests wait, and nothing else does.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final
from urllib.parse import unquote

import structlog

from gateway import errors
from gateway.http_exchange import HttpExchange

log = structlog.stdlib.get_logger(__name__)

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

HOP_BY_HOP = frozenset((b"connection", b"transfer-encoding", b"keep-alive", b"date"))


class AsgiServer:
    """Runs one task per request; `close` ends them all."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, exchange: HttpExchange) -> None:
        call = _Call(exchange)
        task = asyncio.get_running_loop().create_task(call.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@final
class _Call:
    """One request as ASGI sees it (HTTP connection scope, version 2.3)."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self._arrived = asyncio.Event()
        self._disconnected = False
        self._status = 0
        self._head = b""
        self._length: int | None = None
        self._sent = 0
        exchange.on_body = self._arrived.set
        exchange.on_cancel = self._leave

    async def run(self, app: AsgiApp) -> None:
        exchange = self._exchange
        try:
            await app(self._scope(), self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("request.failed", path=exchange.url.decode("latin-1"))
        if not exchange.ended and not self._disconnected:
            if exchange.begun:
                exchange.break_off()
            else:
                exchange.fail(errors.Internal("Something went wrong on our side; the log has the details"))

    def _scope(self) -> MutableMapping[str, Any]:
        exchange = self._exchange
        raw_path, _, query = exchange.url.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": exchange.version,
            "method": exchange.method.decode("latin-1"),
            "scheme": "https" if exchange.tls else "http",
            "path": unquote(raw_path.decode("latin-1"), errors="replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": exchange.raw_headers,
            "client": exchange.client,
            "server": exchange.server,
            "state": {},
        }

    async def _receive(self) -> Message:
        exchange = self._exchange
        while not exchange.parts and not exchange.complete and not self._disconnected:
            self._arrived.clear()
            exchange.resume_reading()
            await self._arrived.wait()
        if self._disconnected:
            return {"type": "http.disconnect"}
        if exchange.parts or not exchange.body_told:
            body = b"".join(exchange.parts)
            exchange.parts = []
            exchange.body_told = exchange.complete
            return {"type": "http.request", "body": body, "more_body": not exchange.complete}
        while not self._disconnected and not exchange.ended:  # the body was told: only an end of the connection is left
            self._arrived.clear()
            await self._arrived.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        exchange = self._exchange
        if self._disconnected:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._head, self._length = _head(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if not exchange.begun and not more:
                exchange.respond(self._status, self._head, body)
                self._arrived.set()
                return
            if not exchange.begun:
                exchange.begin(self._status, self._head, self._length)
            exchange.send(body)
            self._sent += len(body)
            if more:
                await self._drained()
            elif self._length is not None and self._sent != self._length and exchange.method != b"HEAD":
                exchange.break_off()
            else:
                exchange.end()
                self._arrived.set()

    async def _drained(self) -> None:
        """`Exchange.drained` waits on a Signal, which only a driven coroutine may; here a Task waits by turns."""
        while self._exchange.write_paused and not self._disconnected:  # noqa: ASYNC110 — says the docstring
            await asyncio.sleep(0.01)

    def _leave(self) -> None:
        self._disconnected = True
        self._arrived.set()


def _head(headers: Any) -> tuple[bytes, int | None]:
    """Header lines for the exchange, and the length that the application declared."""
    lines, length = [], None
    for name, value in headers:
        lower = bytes(name).lower()
        if lower == b"content-length":
            length = int(value)
        elif lower not in HOP_BY_HOP:
            lines.append(b"%b: %b\r\n" % (lower, value))
    return b"".join(lines), length
