"""`/health/live`, `/health/ready` and `/metrics`: what a load balancer and Prometheus ask, answered without the framework."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import msgspec

from admin.alerts import Alerts
from admin.known_vectors import KnownVectors
from gateway.books import Books
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.listener import Listener
from gateway.metrics import Metrics, Searches
from gateway.plane import Plane
from gateway.refresh import Refresher
from gateway.route import Route
from inference.fleet.states import Condition

if TYPE_CHECKING:  # for those who are asked
    from admin.exposition import Exposition
    from admin.telemetry.watch import Watch
    from retrieval.service import Retrieval

KEPT_EVERY_S: Final = 5.0
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
        refresher: Refresher,
        books: Books,
        alerts: Alerts,
        servers: Servers,
        engines: Callable[[], Mapping[str, Condition]],
        listener: Callable[[], Listener],
        searches: Searches,
        known: KnownVectors,
        documents: "Callable[[], Retrieval | None]",
        watch: "Watch | None" = None,
        shared: Path | None = None,
    ) -> None:
        """`shared`: where several workers leave their numbers for each other."""
        self._metrics = metrics
        self._plane = plane
        self._refresher = refresher
        self._books = books
        self._alerts = alerts
        self._servers = servers
        self._engines = engines
        self._listener = listener
        self._searches = searches
        self._known = known
        self._documents = documents
        self._watch = watch
        self._shared = shared
        self._exposition: Exposition | None = None
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
        exchange.respond(200, TEXT_HEAD, self._made().text())

    async def background(self) -> None:
        """Where there are several workers, each leaves its numbers now and then: whoever is asked adds them up."""
        while self._shared is not None:
            await asyncio.sleep(KEPT_EVERY_S)
            self.keep()

    def keep(self) -> None:
        if self._shared is not None:
            with contextlib.suppress(OSError):  # told with the next scrape
                self._made().keep()

    def _made(self) -> "Exposition":
        if self._exposition is None:
            from admin.exposition import Exposition  # noqa: PLC0415 — not needed before the first scrape
            from admin.worker_metrics import WorkerMetrics  # noqa: PLC0415 — as above

            self._exposition = Exposition(
                self._metrics,
                self._plane,
                self._refresher,
                self._listener(),
                self._books,
                self._alerts.counts,
                self._servers,
                self._searches,
                self._watch,
                None if self._shared is None else WorkerMetrics(self._shared, self._books.session),
                self._engines,
                self._known,
                self._documents,
            )
        return self._exposition
