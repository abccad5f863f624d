"""Predictions in a process that may never make one: a few routes, and all that is behind them loaded with the first request."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from admin import allocator
from admin.predictions.desk import Desk
from admin.predictions.settings import FeaturesSection, PredictionsSection
from gateway import errors
from gateway.database import appending, reading
from gateway.http_exchange import HttpExchange
from gateway.route import Route
from inference.ports import Library, Observer, Split

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from admin.predictions.made import Made
    from inference.features.joining import Views
    from inference.features.online import Post
    from inference.runtimes.peers import Peer

log = structlog.stdlib.get_logger(__name__)

CAPTURES: Final = "captures"
FEAST: Final = (b"/get-online-features", b"/push", b"/write-to-online-store")  # where Feast's clients look for them
PRUNE_EVERY_S: Final = 3600.0
DAY_S: Final = 86_400


@final
class LatePredictions:
    """`library` and `rollouts` are asked for when the first request comes. Lives on one event loop."""

    def __init__(
        self,
        *,
        settings: PredictionsSection,
        data_dir: Path,
        engine: "Engine",
        desk: Desk,
        library: Callable[[], Library],
        rollouts: Callable[[], tuple[Split | None, Observer | None]],
        loader: tuple[str, str],
        version: str,
        draining: Callable[[], bool],
        most_bytes: int,
        host: str,
        tell: Callable[[bytes], None] | None = None,
        features: FeaturesSection,
        views: "Views",
        post: "Post",
        elsewhere: "Callable[[], Mapping[str, Peer]]" = dict,
    ) -> None:
        """`loader`: where a bundle is loaded, as `module:function`: in this process, and in one of its own. `tell` hears of captures.

        `elsewhere`: servers whose models are served here as well.
        """
        self._settings = settings
        self._folder = data_dir / CAPTURES
        self._engine = engine
        self._desk = desk
        self._library = library
        self._rollouts = rollouts
        self._loader = loader
        self._version = version
        self._draining = draining
        self._most_bytes = most_bytes
        self._host = host
        self._tell = tell
        self._features = features
        self._views = views
        self._post = post
        self._elsewhere = elsewhere
        self._loading: asyncio.Task[None] | None = None
        self._made: Made | None = None
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.grpc_port: int | None = None
        predict, oip = Route(b"", self._predict), Route(b"", self._oip)
        features_ = Route(b"", self._feast)
        self.routes = {b"/v1/predict": predict, b"/v2": oip, **dict.fromkeys(FEAST, features_)}
        self.prefixes = {b"/v1/predict/": predict, b"/v2/": oip}

    async def ready(self) -> "Made":
        """Its modules are loaded in a thread: a quarter of a second in which others go on. Raises ImportError."""
        if self._made is None:
            if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
                self._loading = asyncio.get_running_loop().create_task(asyncio.to_thread(_load))
            await asyncio.shield(self._loading)
            if self._made is None:  # whoever waited first has made it
                self._made = self._make()
                self._ready.set()
        return self._made

    async def background(self) -> None:
        """Brings captures into the database and forgets old ones; also those that an earlier process left."""
        if self._settings.grpc_port is not None:
            await self._listen(self._settings.grpc_port)
        if self._folder.is_dir() and any(self._folder.iterdir()):
            await self.ready()
        await self._ready.wait()
        made = await self.ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(made.capture.run())
            group.create_task(self._prune())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    async def _predict(self, exchange: HttpExchange) -> None:
        made = self._made or await self._first(exchange)
        if made is not None:
            await made.rest.serve(exchange)

    async def _oip(self, exchange: HttpExchange) -> None:
        made = self._made or await self._first(exchange)
        if made is not None:
            await made.oip.serve(exchange)

    async def _feast(self, exchange: HttpExchange) -> None:
        made = self._made or await self._first(exchange)
        if made is not None:
            await made.features.serve(exchange)

    async def _first(self, exchange: HttpExchange) -> "Made | None":
        try:
            return await self.ready()
        except ImportError as error:
            why = f"Predictions need {error.name}: install the extra `embedded`"
            exchange.fail(errors.Overloaded(why, code="runtime_unavailable"))
            return None

    async def _listen(self, port: int) -> None:
        """Whatever is wrong with that port, the other one goes on."""
        try:
            from inference.oip.grpc import Server  # noqa: PLC0415 — for whoever named a port

            made = await self.ready()
            made.grpc = Server(
                made.predictions,
                self._desk,
                made.repository,
                most_rows=self._settings.max_rows,
                most_bytes=self._most_bytes,
            )
            self.grpc_port = await made.grpc.start(f"{self._host}:{port}", self._version)
        except ImportError as error:
            log.error("grpc.not_served", port=port, reason=f"{error.name} is missing: install the extra `grpc`")  # noqa: TRY400 — the reason says it all
        except RuntimeError as error:  # so gRPC says that it cannot have the port
            log.error("grpc.not_served", port=port, reason=str(error))  # noqa: TRY400 — as above
        else:
            log.info("grpc.listening", port=self.grpc_port)

    async def _prune(self) -> None:
        from inference.serving.capture_store import forget  # noqa: PLC0415 — loaded with the rest

        terms = self._settings.capture
        writing = partial(appending, self._engine)
        while True:
            before = time.time() - terms.retention_days * DAY_S
            try:
                await asyncio.to_thread(forget, writing, before, terms.max_rows)
            except SQLAlchemyError as error:
                log.warning("captures.not_pruned", reason=type(error).__name__)
            await asyncio.sleep(PRUNE_EVERY_S)

    def _make(self) -> "Made":
        from admin.predictions.made import make  # noqa: PLC0415 — NumPy, for those who predict

        split, observer = self._rollouts()
        return make(
            self._settings,
            folder=self._folder,
            writing=partial(appending, self._engine),
            reading=partial(reading, self._engine),
            features=self._features,
            views=self._views,
            post=self._post,
            desk=self._desk,
            library=self._library(),
            split=split,
            observer=observer,
            loader=self._loader,
            version=self._version,
            draining=self._draining,
            most_bytes=self._most_bytes,
            spawn=self._spawn,
            random=random.random,
            trim=allocator.trim,
            tell=self._tell,
            peers=self._elsewhere(),
        )

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> object:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _load() -> None:
    import admin.predictions.made  # noqa: F401, PLC0415 — as above
