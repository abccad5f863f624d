"""`/health/live`, `/health/ready` and `/metrics`: what a load balancer and Prometheus ask, answered without the framework."""

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from admin.alerts import Alerts
from gateway.books import Books
from gateway.http_exchange import JSON_HEAD, HttpExchange, Route
from gateway.listener import Listener
from gateway.metrics import Metrics
from gateway.plane import Plane
from gateway.recorder import Recorder
from gateway.refresh import Refresher
from inference.fleet.states import Condition

Servers = Callable[[], Mapping[str, tuple[bool, str | None, int]]]  # of MCP, as `admin.mcp.late` tells of them
TEXT_HEAD = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


@final
class Vitals:
    """`listener` is asked for late, since it is made from these routes."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        plane: Plane,
        recorder: Recorder,
        refresher: Refresher,
        books: Books,
        alerts: Alerts,
        servers: Servers,
        engines: Callable[[], Mapping[str, Condition]],
        listener: Callable[[], Listener],
    ) -> None:
        self._metrics = metrics
        self._plane = plane
        self._recorder = recorder
        self._refresher = refresher
        self._books = books
        self._alerts = alerts
        self._servers = servers
        self._engines = engines
        self._listener = listener
        self._text: Callable[[], bytes] | None = None
        self.routes = {
            b"/health/live": Route(b"GET", self.live),
            b"/health/ready": Route(b"GET", self.ready),
            b"/metrics": Route(b"GET", self.metrics),
        }

    async def live(self, exchange: HttpExchange) -> None:
        exchange.respond(200, JSON_HEAD, b'{"status":"ok"}')

    async def ready(self, exchange: HttpExchange) -> None:
        """503 while draining. A database in trouble is reported, but the last snapshot still answers: that is ready."""
        draining = self._listener().draining
        state = {
            "status": "draining" if draining else "ok",
            "database": "ok" if self._refresher.healthy else "unreachable",
        }
        exchange.respond(503 if draining else 200, JSON_HEAD, msgspec.json.encode(state))

    async def metrics(self, exchange: HttpExchange) -> None:
        if self._text is None:
            from admin.exposition import Exposition  # noqa: PLC0415 — not needed before the first scrape

            listener = self._listener()
            self._text = Exposition(
                self._metrics,
                self._plane,
                self._refresher,
                listener,
                self._books,
                self._alerts.counts,
                self._servers,
                self._engines,
            ).text
        exchange.respond(200, TEXT_HEAD, self._text())
