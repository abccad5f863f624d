"""Where everything meets: the one place that makes live things and hands them to each other."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import structlog

from admin import allocator, beside, discovery, documents, first_run, key_quotas, migrate
from admin.alerts import Alerts
from admin.caching import cache_terms
from admin.declared import Declared
from admin.first_run import Group
from admin.fleet.desk import Desk as FleetDesk
from admin.fleet.late import LateFleet
from admin.grounding import GroundingSearch
from admin.guarding import Poster
from admin.known_vectors import KnownVectors
from admin.leasing import lease_store, meets_others, uses
from admin.local_models import Distilled, EmbeddedModels, Quotes, Reranking
from admin.long_tail.bridge import LiteLlm
from admin.mcp.late import LateMcp
from admin.monitoring import Monitoring
from admin.predictions.desk import Desk
from admin.predictions.late import LatePredictions
from admin.retrievers import Retrievers
from admin.rolling import Rolling
from admin.scoring.home import Home
from admin.scoring.order import order_of
from admin.scoring.runner import ScoringRunner
from admin.sentence_models import SentenceModels
from admin.settings import Loaded, Settings
from admin.vitals import Vitals
from gateway import request_store
from gateway.asgi import AsgiApp
from gateway.batches.batches import Batches, host
from gateway.batches.room import Room
from gateway.batches.run import Handler, Tools
from gateway.batches.store import ANY_UNFINISHED
from gateway.books import Books
from gateway.contents import store as contents
from gateway.database import appending, changing, connect, reading, record_revision
from gateway.dialects.registry import DIALECTS
from gateway.files.keeper import Files, FileTerms
from gateway.files.shelf import Shelf
from gateway.http_limits import HttpLimits
from gateway.keys import digest
from gateway.listener import Listener
from gateway.metrics import Metrics, Searches
from gateway.plane import Plane
from gateway.pool_limits import PoolLimits
from gateway.price_map import PriceMap
from gateway.providers import (
    DISTILLED,
    EMBEDDED,
    QUOTES,
    QUOTES_MODEL,
    RERANKER,
    RERANKER_MODEL,
    SENTENCE_TRANSFORMERS,
)
from gateway.recorder import Recorder, Records
from gateway.refresh import Refresher
from gateway.responses import store as responses
from gateway.responses.agent import Agent
from gateway.secret_box import SecretBox, load_or_create_key
from gateway.signs import BATCHES, JOBS, REEMBEDDINGS, RUNS, Signs
from gateway.snapshot import Current
from gateway.snapshot_store import SnapshotStore
from gateway.stage_terms import ContentTerms, GuardTerms
from inference.registry import version_store
from inference.registry.artefacts import Artefacts
from inference.registry.catalogue import CurrentLibrary
from inference.rollouts import retention
from retrieval.collection_store import any_at_all
from retrieval.job_store import ANY as ANY_JOB
from retrieval.job_store import Owner
from retrieval.quotas import Bounds
from retrieval.reembedding.runner import ReembeddingRunner
from retrieval.reembedding.store import ANY as ANY_REEMBEDDING
from retrieval.removal import forget_sources
from retrieval.runner import Runner

if TYPE_CHECKING:  # logins of people are loaded for those who have them
    from pathlib import Path

    from admin.distil.student import DistilledModels
    from admin.oidc import Oidc
    from admin.telemetry.watch import Watch
    from inference.mlflow.tracking import Tracking
    from inference.registry.registrar import Registrar
    from retrieval.reembedding.backfill import Backfill
    from retrieval.service import Retrieval

log = structlog.stdlib.get_logger(__name__)

MEBI = 1024 * 1024
PRUNE_EVERY_S = 3600.0
DAY_S = 86_400
TELL_S = 5.0  # what telemetry may take at the end


@final
class House:
    """One process: `prepare` (blocking) → `open` on the event loop → `close` → `dispose`."""

    def __init__(self, loaded: Loaded, admin_key: str, version: str) -> None:
        self._loaded = loaded
        self._settings = settings = loaded.settings
        self._admin_digest = digest(admin_key.encode())
        self.version = version
        self._engine = connect(settings.database)
        self._artefacts = Artefacts(settings.registry_dir)
        self._box = SecretBox(lambda: _secret_key(settings))
        self._declared = Declared(self._engine, loaded, self._box)
        self._current = Current()
        self._prices = PriceMap()
        self._signs = Signs(
            self._engine,
            {BATCHES: ANY_UNFINISHED, RUNS: responses.ANY_RUNNING, JOBS: ANY_JOB, REEMBEDDINGS: ANY_REEMBEDDING},
        )
        self._store = SnapshotStore(
            self._engine,
            self._box,
            loaded.resolve,
            price_of=self._prices.find,
            pricing=settings.pricing,
            cache=settings.cache,
            searchable=any_at_all,
            beside=lambda tx, known: beside.load(tx, self._artefacts, known),
            newest=self._signs.look,
        )
        self.library = CurrentLibrary(lambda: beside.of(self._current.snapshot.beside).catalogue)
        self._refresher = Refresher(self._store, self._current)
        self._shelf = Shelf(settings.files_dir)
        self._known = KnownVectors(settings)
        self._local = EmbeddedModels(settings.data_dir / "models", self._known.of)
        self._sentences = SentenceModels()
        self._admin = LateApp(self._make_admin)

    def prepare(self) -> None:
        """Schema, folders, seeds, first snapshot. Raises SchemaError, SQLAlchemyError, OSError."""
        migrate.prepare(self._engine)
        self._shelf.prepare()
        self._artefacts.prepare()
        with self._box.apart():
            self._declared.put()
            self._refresher.load()

    def open(self) -> None:
        """Makes what belongs to the running event loop."""
        settings = self._settings
        metrics = Metrics()
        self._recorder: Records = Recorder(metrics)
        self._alerts = Alerts(self._engine, settings.alerts.compile(), time.time)
        self._books = Books(
            settings.data_dir,
            self._engine,
            lease_store(settings, self._engine),
            self._prices,
            self._alerts.seen,
            settings.limits.local_part,
        )
        self._watch = self._make_watch()
        if self._watch is not None:
            self._recorder = self._watch
        self._long_tail = LiteLlm()
        self._fleet = self._make_fleet()
        self._retrievers = Retrievers(
            lambda: beside.of(self._current.snapshot.beside).retrievers, lambda: self._rolling.parts.searches
        )
        self._searcher = GroundingSearch(
            documents.database_of(self._engine),
            self._plane_of_documents,
            self._retrievers,
            (lambda _: None) if self._watch is None else self._watch.entered,
        )
        self._students: DistilledModels | None = None
        self._poster = Poster(settings.upstream.user_agent)
        self._plane = Plane(
            current=self._current,
            admin_digest=self._admin_digest,
            meter=self._books.meter,
            recorder=self._recorder,
            local={
                EMBEDDED: self._local,
                SENTENCE_TRANSFORMERS: self._sentences,
                QUOTES: Quotes(self._local.similar),
                RERANKER: Reranking(self._local.similar),
                DISTILLED: Distilled(self._answer_distilled),
            },
            dialects=DIALECTS,
            prices=self._prices,
            bridge=self._long_tail,
            limits=PoolLimits(connections=settings.upstream.max_connections, idle_s=settings.upstream.idle_s),
            user_agent=settings.upstream.user_agent,
            ca_file=str(settings.upstream.ca_file) if settings.upstream.ca_file is not None else None,
            workers=settings.server.workers,
            till=self._books.till,
            shares=self._books.shares if meets_others(settings, self._engine) else None,
            declared=settings.passthrough.compile(),
            box=self._box,
            talks=settings.realtime.compile(),
            engine=self._engine,
            cache=cache_terms(settings, self._local.vectors),
            guards=GuardTerms(post=self._poster, classify=self._classify),
            agent=self._agent,
            searcher=self._searcher,
            contents=self._content_terms(),
            token_tables=(settings.data_dir / "tokenizers",),
            sampler=None if self._watch is None else settings.telemetry.sampling(),
            keeper=self._fleet.desk,
            signs=self._signs,
        )
        self._mcp = LateMcp(
            settings=settings.mcp,
            environ=self._loaded.environ,
            engine=self._engine,
            box=self._box,
            current=self._current,
            authenticator=self._plane.authenticator,
            meter=self._books.meter,
            recorder=self._recorder,
            secret=self._admin_digest,
            searcher=self._searcher,
            bills=self._plane.bills,
            parts=None if self._watch is None else self._watch.part,
        )
        self._searches = Searches()
        self._desk = Desk(
            current=self._current,
            authenticator=self._plane.authenticator,
            meter=self._books.meter,
            finished=self._recorder.finished,
            unix=time.time,
            now=time.monotonic,
        )
        self._predictions = self._make_predictions()
        self._files = Files(self._engine, self._shelf, _file_terms(settings), forget_sources)
        self._batches = self._make_batches()
        self._open_retrieval()
        self._home = Home(settings.data_dir)
        self._scoring = ScoringRunner(
            self._engine,
            self._home,
            lambda: order_of(settings),
            settings.predictions.scoring.concurrency,
            self._desk,
        )
        hidden = settings.predictions.capture.redact
        self._rolling = Rolling(
            self._engine,
            self._current,
            self._refresher,
            self._books.session,
            self._alerts.offer,
            hidden,
            self._ask_judge,
        )
        self._monitoring = Monitoring(self._engine, self._current, self._retrieval.get, self._alerts.offer)
        vitals = self._vitals = Vitals(
            metrics=metrics,
            plane=self._plane,
            refresher=self._refresher,
            books=self._books,
            alerts=self._alerts,
            servers=self._mcp.conditions,
            engines=lambda: self._fleet.conditions,
            listener=lambda: self.listener,
            searches=self._searches,
            known=self._known,
            documents=lambda: self._retrieval.made,
            watch=self._watch,
            shared=settings.data_dir if settings.server.workers > 1 else None,
        )
        routes = {**self._plane.routes, **self._mcp.routes, **self._predictions.routes, **vitals.routes}
        prefixes = {**self._plane.prefixes, **self._mcp.prefixes, **self._predictions.prefixes}
        self.listener = Listener(routes, prefixes, self._admin, _limits(settings))

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs as long as the server does."""
        return (
            self._refresher.run(),
            self._prune(),
            self._alerts.run(),
            *self._books.background(),
            *self._plane.background(),
            *self._files.background(),
            *self._batches.background(),
            *self._runner.background(),
            self._reembedding.background(),
            self._vitals.background(),
            self._predictions.background(),
            self._rolling.run(),
            self._monitoring.run(),
            self._fleet.run(),
            self._scoring.background(),
        )

    async def discover(self, own_port: int) -> tuple[Group, ...]:
        """Looks for servers on this machine, unless the configuration says what there is. The lines of the first-run screen."""
        environ = self._loaded.environ
        bare = not self._settings.models
        servers = await discovery.probe(discovery.candidates(environ, own_port), environ) if bare else ()
        for server in servers:
            await asyncio.to_thread(self._declared.models, server.source, discovery.local_seeds(server))
        if servers:
            await self._refresher.refresh_now()
        seeds = discovery.environment_seeds(environ) if bare else ()
        seeds += tuple(seed for server in servers for seed in discovery.local_seeds(server))
        here = (*discovery.EMBEDDED_MODELS, QUOTES_MODEL, RERANKER_MODEL)
        found = {seed.spec.name for seed in seeds}.union(here)
        catalog = self._current.snapshot.catalog
        names = sorted((*catalog.models, *(model.name for _, model in catalog.wildcards)))
        return first_run.groups(
            [name for name in names if name not in found],
            discovery.keyed_providers(environ) if bare else (),
            servers,
            [name for name in here if name in catalog.models],
        )

    def embedding_model(self) -> str | None:
        """The name of a model in this process that makes embeddings, if it is there."""
        models = self._current.snapshot.catalog.models
        return next((name for name in discovery.EMBEDDED_MODELS if name in models), None)

    def quoting_model(self) -> str | None:
        """The name of the model that answers by quoting, if it is there."""
        name = QUOTES_MODEL
        return name if name in self._current.snapshot.catalog.models else None

    def drain(self) -> None:
        """The server is about to end: what runs in the background begins nothing new."""
        self._batches.stop()
        self._runner.stop()
        self._reembedding.stop()
        self._scoring.stop()
        self._plane.drain(self._settings.server.limits.drain_s)
        self._mcp.drain()

    async def close(self) -> None:
        await self._fleet.close()
        await self._scoring.close()
        await self._runner.close()
        await self._reembedding.close()
        await self._retrieval.close()
        await self._plane.end_runs()
        await self._batches.close(self._settings.server.limits.drain_s)
        await self._plane.close()
        await self._mcp.close()
        await self._predictions.close()
        await self._long_tail.close()
        await self._poster.close()
        await self._local.close()
        await self._sentences.close()
        await self._known.close()
        self._vitals.keep()
        if self._watch is not None:
            await asyncio.to_thread(self._watch.close, TELL_S)
        await self._books.close()

    def dispose(self) -> None:
        self._signs.close()
        self._engine.dispose()

    async def _plane_of_documents(self) -> "Retrieval":
        """The same for who searches in them."""
        return await self._retrieval.get()

    async def _agent(self) -> Agent:
        """The plane is made before what calls tools for it."""
        return await self._mcp.agent()

    def _content_terms(self) -> ContentTerms:
        section = self._settings.records.content
        return ContentTerms(self._engine, _redact, section.enabled, int(section.max_kb * 1024))

    def _make_watch(self) -> "Watch | None":
        """Raises TelemetryError."""
        if not self._settings.telemetry.on:
            return None
        from admin.telemetry.make import watch  # noqa: PLC0415 — for those who have somebody to tell

        made = watch(self._settings.telemetry, self._recorder, self.version, self._books.session, _redact)
        made.start()
        return made

    async def _answer_distilled(self, endpoint: str, body: bytes, model: str, target: str) -> bytes:
        """For deployments of classic models that answer chats."""
        if self._students is None:
            from admin.distil.student import DistilledModels  # noqa: PLC0415 — for those who have any

            self._students = DistilledModels(lambda: self._predictions, self._local.vectors, _redact)
        return await self._students.answer(endpoint, body, model, target)

    async def _classify(self, model: str, texts: Sequence[str]) -> Sequence[Mapping[str, float]]:
        """For guards and routers, which ask a classic model."""
        from admin.predictions.classifying import classify  # noqa: PLC0415 — NumPy comes with it

        return await classify(self._predictions, model, texts, self._local.vectors, _redact)

    def _make_predictions(self) -> LatePredictions:
        """Classic models: the registry says which there are, the rollouts which of them answers."""
        settings = self._settings
        return LatePredictions(
            settings=settings.predictions,
            data_dir=settings.data_dir,
            engine=self._engine,
            desk=self._desk,
            library=lambda: self.library,
            rollouts=lambda: (self._rolling.parts.live, self._rolling.parts.live),
            loader=("inference.runtimes.loading:load", "inference.runtimes.loading:load"),
            version=self.version,
            draining=lambda: self.listener.draining,
            most_bytes=_limits(settings).body_bytes,
            host=settings.server.host,
            tell=partial(self._alerts.offer, "prediction") if self._alerts.wanted("prediction") else None,
            features=settings.features,
            views=lambda: self.library.catalogue.views,
            post=self._poster,
            elsewhere=settings.registry.elsewhere,
        )

    async def _ask_judge(self, payer: str, fields: Mapping[str, Any]) -> bytes:
        """On a key's account, behind calls that somebody waits for."""
        path = b"/v1/chat/completions"
        chat = cast("Handler", self._plane.routes[path].handler)
        return await self._calls.answer(chat, path, payer, fields, "Judging", aside=True)

    def _make_fleet(self) -> LateFleet:
        desk = FleetDesk(self._engine, self._box, self._loaded.resolve, self._refresher, self._books.session)
        return LateFleet(self._settings.data_dir / "engines", desk, self._loaded.environ, self._current)

    def _make_batches(self) -> Batches:
        terms, meter, gates = self._settings.batches.compile(), self._books.meter, self._plane.gates
        # A batch line is another carrier: what a handler of a call needs of its exchange, it has.
        handlers = {path.decode(): cast("Handler", self._plane.routes[path].handler) for path in self._plane.lined}
        tools = Tools(
            engine=self._engine,
            shelf=self._shelf,
            room=Room(terms.lines, terms.calls, lambda: meter.open_holds + gates.waiting),
            terms=terms,
            authenticator=self._plane.authenticator,
            handlers=handlers,
            unix=time.time,
            now=time.monotonic,
        )
        made = Batches(tools, self._books.session, partial(self._signs.there, BATCHES))
        self._signs.follow(BATCHES, made.notice)
        return made

    def _open_retrieval(self) -> None:
        settings, plane = self._settings, self._plane
        embed = cast("Handler", plane.routes[documents.PATH].handler)  # as for a line of a batch
        usual = settings.retrieval.embedding_model
        self._calls = documents.Calls(plane.authenticator, dict if self._watch is None else self._watch.carried)
        self._embedder = documents.GatewayEmbedder(
            self._current, self._calls, embed, lambda: usual or self.embedding_model(), self._known
        )
        folder, memory_bytes = settings.data_dir / "retrieval", int(settings.retrieval.memory_mb * MEBI)
        self._retrieval = documents.LateRetrieval(lambda: self._make_retrieval(folder, memory_bytes))
        self._runner = Runner(
            documents.database_of(self._engine),
            Owner(self._books.session, host()),
            folder,
            self._retrieval.get,
            concurrency=settings.retrieval.concurrency,
            any_work=partial(self._signs.there, JOBS),
        )
        self._signs.follow(JOBS, self._runner.notice)
        self._reembedding = ReembeddingRunner(
            documents.database_of(self._engine),
            Owner(self._books.session, host()),
            folder,
            self._backfill,
            partial(self._signs.there, REEMBEDDINGS),
        )
        self._signs.follow(REEMBEDDINGS, self._reembedding.notice)

    async def _backfill(self) -> "Backfill":
        return (await self._retrieval.get()).backfill

    def _searched(self, collection: str, seconds: float, outcome: str) -> None:
        self._searches.add(seconds, outcome)
        if self._watch is not None:
            self._watch.searched(collection, seconds, outcome)

    def _make_retrieval(self, folder: "Path", memory_bytes: int) -> "Retrieval":
        from admin.search_models import CHAT, RERANK, GatewayRanker, GatewayWriter  # noqa: PLC0415 — with the first document

        usual, routes = self._settings.retrieval, self._plane.routes
        rerank, chat = (cast("Handler", routes[path].handler) for path in (RERANK, CHAT))
        return documents.make(
            self._engine,
            folder,
            self._shelf,
            self._embedder,
            self._runner.changed,
            memory_bytes,
            self._searched,
            usual.engines(self._settings.database),
            Bounds(usual.quota, partial(key_quotas.of_key, self._current)),
            GatewayRanker(self._current, self._calls, rerank, usual.rerank_model),
            GatewayWriter(self._current, self._calls, chat, usual.chat_model),
            self._monitoring.asked,
        )

    def _make_admin(self) -> AsgiApp:
        from admin.api.gate import identity  # noqa: PLC0415 — as below
        from admin.app import Api, create_app  # noqa: PLC0415 — half a second of imports, off the way to the first answer
        from admin.feedback import Feedback, SearchIds, event  # noqa: PLC0415 — as below
        from admin.rest.scoring import Scoring  # noqa: PLC0415 — as below

        secret = self._settings.registry.mlflow.webhook_secret
        return create_app(
            engine=self._engine,
            box=self._box,
            refresher=self._refresher,
            admin_key_digest=self._admin_digest,
            version=self.version,
            oidc=self._logins(),
            uses=uses(self._books),
            shown=self._books.show,
            enforcing=True,
            conditions=self._plane.health.condition,
            servers=self._mcp.conditions,
            commands=self._settings.mcp.stdio_commands,
            rolling=self._rolling.parts.by_hand(),
            snapshots=self._settings.data_dir / "retrieval" / "snapshots",
            reembedding=self._reembedding.notice,
            programs=self._settings.engine_programs,
            api=Api(
                identity(self._current, self._plane.authenticator),
                self._files,
                self._batches,
                self._retrieval.get,
                self._searchable,
                self._searcher,
                Feedback(
                    self._engine,
                    SearchIds(self._admin_digest),
                    lambda said: self._alerts.offer("feedback", event(said)),
                ),
                self._retrievers,
                (lambda _: None) if self._watch is None else self._watch.entered,
                lambda: self.listener.draining,
            ),
            registrar=self._registrar(),
            vectors=self._local.vectors,
            webhook_secret=None if secret is None else secret.get_secret_value(),
            scoring_desk=Scoring(
                self._home,
                self.library,
                self._settings.predictions.scoring.folders,
                self._settings.predictions.scoring.databases,
                self._scoring.notice,
            ),
        )

    async def _searchable(self) -> None:
        """A vector store was made. With the first of them, every process learns that there is something to search in."""
        if self._current.snapshot.searchable:
            return
        await asyncio.to_thread(self._note_searchable)
        await self._refresher.refresh_now()

    def _note_searchable(self) -> None:
        with changing(self._engine) as tx:
            record_revision(tx, "there are vector stores")

    def _registrar(self) -> "Registrar":
        from inference.registry.registrar import Registrar  # noqa: PLC0415 — for the admin plane, which is loaded late
        from inference.runtimes.limits import Limits  # noqa: PLC0415 — as above
        from inference.runtimes.sandbox import Sandbox  # noqa: PLC0415 — as above

        said = self._settings.registry
        most = int(said.max_mb * MEBI)
        limits = Limits(int(said.memory_mb * MEBI), max(1, int(said.timeout_s)), said.timeout_s, 4 * most)
        return Registrar(
            self._artefacts, Sandbox(limits), frozenset(said.pickles), most, self._tracking(), said.elsewhere()
        )

    def _tracking(self) -> "Tracking | None":
        said = self._settings.registry
        if said.mlflow.tracking_uri is None:
            return None
        from inference.mlflow.tracking import Tracking  # noqa: PLC0415 — as above

        return Tracking(said.mlflow.tracking_uri, said.mlflow.python, said.mlflow.environ(), said.timeout_s)

    def _logins(self) -> "Oidc | None":
        login = self._settings.auth.oidc
        if login is None:
            return None
        from admin.oidc import Oidc, Provider  # noqa: PLC0415 — cryptography and an HTTP client, for those who have logins

        return Oidc(Provider(**login.model_dump()))

    async def _prune(self) -> None:
        """Forgets request records and responses that are older than the configuration wants to keep."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            await asyncio.to_thread(self._forget)

    def _known_artefacts(self, digests: Sequence[str]) -> frozenset[str]:
        with reading(self._engine) as tx:
            return version_store.known_digests(tx, digests)

    def _forget(self) -> None:
        settings, now = self._settings, time.time()
        with appending(self._engine) as tx:
            request_store.forget(tx, now - settings.records.retention_days * DAY_S)
        self._artefacts.sweep()
        self._artefacts.collect(self._known_artefacts)
        with appending(self._engine) as tx:
            contents.forget(tx, now - settings.records.content.retention_days * DAY_S)
        with appending(self._engine) as tx:
            retention.forget(tx, now - settings.records.retention_days * DAY_S)
        with appending(self._engine) as tx:
            responses.forget(tx, now - settings.responses.retention_days * DAY_S)
        if settings.features.history_days is not None:
            from inference.features.forgetting import forget  # noqa: PLC0415 — NumPy, for those who have features

            forget(partial(appending, self._engine), now - settings.features.history_days * DAY_S)


@final
class LateApp:
    """An ASGI application that is made in a thread when somebody first asks for it: half a second and 16 MB that a gateway which
    nobody administers does not need. Requests for models go on meanwhile."""

    def __init__(self, make: Callable[[], AsgiApp]) -> None:
        self._make = make
        self._made: asyncio.Task[AsgiApp] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self._made is None or (self._made.done() and (self._made.cancelled() or self._made.exception() is not None)):
            self._made = asyncio.get_running_loop().create_task(asyncio.to_thread(self._lasting))
        app = await asyncio.shield(self._made)  # who leaves early must not stop it for the others
        await app(scope, receive, send)

    def _lasting(self) -> AsgiApp:
        with allocator.lasting():
            return self._make()


def _limits(settings: Settings) -> HttpLimits:
    limits = settings.server.limits
    return HttpLimits(
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_bytes=int(limits.body_mb * MEBI),
        upload_bytes=int(limits.upload_mb * MEBI),
        buffered_bytes=int(limits.buffered_mb * MEBI),
        header_timeout_s=limits.header_timeout_s,
        body_timeout_s=limits.body_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
        write_timeout_s=limits.write_timeout_s,
        connections=limits.max_connections,
    )


def _redact(text: str) -> str:
    from gateway.contents.redaction import redact  # noqa: PLC0415 — patterns that only those need who keep what was said

    return redact(text)


def _file_terms(settings: Settings) -> FileTerms:
    return FileTerms(int(settings.files.max_mb * MEBI), int(settings.files.quota_mb * MEBI))


def _secret_key(settings: Settings) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    return load_or_create_key(settings.data_dir / "secret-key")
