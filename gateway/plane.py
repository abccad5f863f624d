"""The data plane of one process, put together: which hot path has which handler, on which pool, with which clocks."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from sqlalchemy import Engine

from gateway import errors
from gateway.admission.gates import Gates
from gateway.attempts import Attempts
from gateway.authentication import Authenticator
from gateway.cache.ports import Store
from gateway.call import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from gateway.catalog import Model
from gateway.completion import Answers, Completions
from gateway.counting import Counting
from gateway.dialect import Dialect
from gateway.dispatch import Dispatch
from gateway.engines import Engines
from gateway.faces import face_of
from gateway.fronts.registry import COUNT_TOKENS, MESSAGES
from gateway.grounding.ports import Searcher
from gateway.http_exchange import HttpExchange, Route
from gateway.in_process import InProcess, Local
from gateway.listing import PREFIX as LISTED
from gateway.listing import Listing
from gateway.metering import Meter
from gateway.native.terms import MOUNTS, NONE, Declared
from gateway.planner import Planner
from gateway.pool import Pool, PoolLimits
from gateway.price_map import PriceMap
from gateway.probes import Probes
from gateway.realtime.limits import BELOW, TALKS
from gateway.realtime.limits import Limits as TalkLimits
from gateway.recorder import Recorder
from gateway.relay import Relay
from gateway.resilience.health import Health
from gateway.responses import conversations as conversing
from gateway.responses import service
from gateway.responses.agent import Agent
from gateway.responses.conversations import Conversations
from gateway.responses.dialects import between as responses_between
from gateway.responses.service import Responses
from gateway.responses.shelf import Shelf
from gateway.routing.loads import Loads
from gateway.secret_box import SecretBox
from gateway.shadow import Shadows
from gateway.shares import Shares
from gateway.snapshot import Current, Snapshot
from gateway.targets import Bridge, Targets
from gateway.till import Till
from gateway.token_count import TokenCounter
from gateway.units.endpoints import ENDPOINTS, FILES
from gateway.units.relay import UnitRelay

if TYPE_CHECKING:  # they are loaded for whom they do something
    from gateway.cache.meanings import Log
    from gateway.cache.precision import Precision
    from gateway.cache.stage import Caching
    from gateway.grounding.stage import Grounding
    from gateway.native.passing import PassThrough
    from gateway.realtime.service import Realtime
    from gateway.waking import Keeper, Waking

MEBI: Final = 1024 * 1024


class CacheTerms(msgspec.Struct, frozen=True):
    """Where answers are kept, made when the first model wants a cache; `max_bytes` of one of them.

    `embed` gives vectors of texts, as rows; `log` is where many processes tell each other of questions, for a store of many.
    """

    store: Callable[[Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]], Store]
    max_bytes: int
    embed: Callable[[Sequence[str]], Awaitable[Any]] | None = None
    log: Callable[[Store], "Log | None"] = lambda _: None


@final
class Plane:
    """Lives on one event loop. `routes` are exact paths, `prefixes` beginnings of paths.

    `shares`: where limits of deployments are shared with other processes, through the `till`; None where there are none.
    """

    def __init__(
        self,
        *,
        current: Current,
        admin_digest: bytes,
        meter: Meter,
        recorder: Recorder,
        local: Mapping[str, Local],
        dialects: Mapping[str, Dialect],
        prices: PriceMap,
        bridge: Bridge | None = None,
        limits: PoolLimits,
        user_agent: str,
        ca_file: str | None = None,
        workers: int = 1,
        till: Till,
        shares: Shares | None = None,
        declared: Sequence[Declared] = NONE,
        box: SecretBox,
        talks: TalkLimits,
        engine: Engine,
        cache: CacheTerms | None = None,
        agent: Callable[[], Coroutine[Any, Any, Agent]] | None = None,
        searcher: Searcher | None = None,
        keeper: "Keeper | None" = None,
    ) -> None:
        self.pool = pool = Pool(limits, ca_file)
        fronts = {one.path: one.front for one in (MESSAGES, COUNT_TOKENS) if one.front is not None}
        between = {RESPONSES.path: responses_between}
        self._targets = Targets(self.pool, user_agent, dialects, bridge, fronts, between=between)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.authenticator = authenticator = Authenticator(admin_digest, time.time)
        self.health = Health(time.monotonic, random.random)
        self.loads = Loads(time.monotonic, meter.price, shares)
        till.before_report = self.loads.refresh
        self.shadows = Shadows(self._spawn, random.random, time.monotonic)
        relay = Relay(
            targets=self._targets,
            meter=meter,
            health=self.health,
            local=InProcess(local, self._targets, time.monotonic, self._spawn),
            now=time.monotonic,
            units=UnitRelay(targets=self._targets, meter=meter, health=self.health, now=time.monotonic),
        )
        planner = Planner(self.health, self.loads, random.random, None if shares is None else till.fetch)
        self.gates = Gates(planner, time.monotonic)
        attempts = Attempts(
            relay=relay,
            meter=meter,
            health=self.health,
            planner=planner,
            gates=self.gates,
            now=time.monotonic,
            failed=recorder.failed,
            attempted=recorder.attempted,
        )
        self._dispatch = dispatch = Dispatch(attempts, self.gates, self.health, random.random, time.monotonic)
        self._meter = meter
        self._current = current
        self._keeper = keeper
        self._waking: Waking | None = None
        self._cache_terms = cache or _in_memory()
        self._store: Store | None = None
        self._comparing = False
        self._caching: Caching | None = None
        self._searcher = searcher
        self._grounding: Grounding | None = None
        counting = Counting(dispatch, meter, TokenCounter(), time.monotonic)

        def through(stage: Answers) -> Completions:
            return Completions(
                current=current,
                authenticator=authenticator,
                dispatch=stage,
                meter=meter,
                unix=time.time,
                now=time.monotonic,
                shadows=self.shadows,
                finished=recorder.finished,
            )

        completions, counted = through(dispatch), through(counting)
        self._completions = completions
        listing = Listing(current, authenticator, prices)
        shelf = Shelf(engine)
        self._responses = Responses(
            completions=completions,
            authenticator=authenticator,
            current=current,
            shelf=shelf,
            unix=time.time,
            alone=workers == 1 and engine.dialect.name == "sqlite",
            agent=agent,
        )
        self._passing: PassThrough | None = None
        self._make_passing = partial(
            _passing,
            completions=completions,
            counting=counted,
            authenticator=authenticator,
            current=current,
            declared=declared,
        )
        self._realtime: Realtime | None = None
        self._make_realtime = partial(
            _realtime,
            current=current,
            authenticator=authenticator,
            planner=planner,
            health=self.health,
            meter=meter,
            finished=recorder.finished,
            context=lambda key: pool.origin(key).context(),
            box=box,
            limits=talks,
            user_agent=user_agent,
        )
        conversations = Conversations(shelf, self._responses.caller)
        self.routes = {
            b"/v1/chat/completions": Route(b"POST", completions.handler(CHAT)),
            b"/v1/completions": Route(b"POST", completions.handler(COMPLETIONS)),
            b"/v1/embeddings": Route(b"POST", completions.handler(EMBEDDINGS)),
            b"/v1/messages": Route(b"POST", completions.handler(MESSAGES)),
            b"/v1/messages/count_tokens": Route(b"POST", counted.handler(COUNT_TOKENS)),
            b"/v1/models": Route(b"GET", listing.every),
            service.PATH: Route(b"", self._responses.every),
            **dict.fromkeys(TALKS, Route(b"GET", self._talk, switches=True)),
            conversing.PATH: Route(b"", conversations.every),
            **{path: Route(b"POST", completions.handler(endpoint)) for path, endpoint in ENDPOINTS.items()},
        }
        self.prefixes = {
            LISTED: Route(b"GET", listing.one),
            service.PREFIX: Route(b"", self._responses.one),
            conversing.PREFIX: Route(b"", conversations.one),
            b"/v1/messages/": Route(b"POST", _nothing_here),
            **dict.fromkeys(BELOW, Route(b"", self._below_talks)),
            **dict.fromkeys(MOUNTS, Route(b"", self._pass_through)),
        }
        self.lined = tuple(path for path, route in self.routes.items() if _fits_a_line(path, route))
        self._probes = Probes(current, self._targets, self.health, time.monotonic)
        self._engines = Engines(current, self._targets, self.loads, time.monotonic)
        current.on_change(self._forget)
        current.on_change(self._choose)
        self._choose(current.snapshot)

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs as long as the server does."""
        return (self._probes.run(), self._engines.run(), self._responses.background())

    def drain(self, grace_s: float) -> None:
        """The process ends in so many seconds: calls that wait and cannot be answered by then are told."""
        self.gates.drain(grace_s)

    async def end_runs(self) -> None:
        """Ends responses in the background: once `background` is over, nobody tells the database that they are alive."""
        await self._responses.end_runs()

    async def close(self) -> None:
        if self._realtime is not None:
            await self._realtime.close()
        await self._responses.close()
        if self._caching is not None:
            await self._caching.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()

    async def _pass_through(self, exchange: HttpExchange) -> None:
        """What is below the name of a provider whose own API is passed through."""
        if self._passing is None:
            self._passing = self._make_passing()
        await self._passing.serve(exchange)

    async def _talk(self, exchange: HttpExchange) -> None:
        """A conversation over a WebSocket, in a task of its own from here on."""
        await self._spawn(self._talks().open(exchange))

    async def _below_talks(self, exchange: HttpExchange) -> None:
        await self._talks().below(exchange)

    def _talks(self) -> "Realtime":
        if self._realtime is None:
            self._realtime = self._make_realtime()
        return self._realtime

    @property
    def cache_outcomes(self) -> Mapping[tuple[str, str], int]:
        """Calls of models with a cache, by model and outcome."""
        return {} if self._caching is None else self._caching.outcomes

    @property
    def cache_precisions(self) -> "Mapping[str, Precision]":
        """Of the cache by meaning, by model."""
        return {} if self._caching is None else self._caching.precisions

    @property
    def cache_waiting(self) -> int:
        """Calls that wait for what an equal one brings."""
        return 0 if self._caching is None else self._caching.waiting

    def _choose(self, snapshot: Snapshot) -> None:
        """Puts stages before the dispatch as long as there is something for them to do: who has no use for one pays nothing for it."""
        catalog = snapshot.catalog
        models = (*catalog.models.values(), *(model for _, model in catalog.wildcards))
        last: Answers = self._wakes(models) or self._dispatch
        grounding = self._grounds(snapshot, models)
        caching = self._caches(models)
        if caching is not None:
            caching.dispatch = last if grounding is None else grounding.behind
        if grounding is not None:
            grounding.behind.dispatch = last
            grounding.following = grounding.behind if caching is None else caching
        self._completions.dispatch = grounding or caching or last

    def _wakes(self, models: Sequence[Model]) -> "Waking | None":
        """What waits for engines of this house. Once there, it stays: it tells their keeper when the last call has ended."""
        if self._waking is None and self._keeper is not None:
            if not any(one.awaited or any(each.engine is not None for each in one.deployments) for one in models):
                return None
            from gateway.waking import Waking  # noqa: PLC0415 — for those who run engines

            self._waking = Waking(self._dispatch, self._current, self._keeper, self._spawn, time.time, time.monotonic)
            self._spawn(self._waking.run())
        return self._waking

    def _grounds(self, snapshot: Snapshot, models: Sequence[Model]) -> "Grounding | None":
        """What looks something up before it is answered."""
        if self._searcher is None or not (snapshot.searchable or any(model.retrieval is not None for model in models)):
            return None
        if self._grounding is None:
            from gateway.grounding.stage import Grounding  # noqa: PLC0415 — an idle gateway without documents does without

            self._grounding = Grounding(self._dispatch, self._searcher, self._spawn)
        return self._grounding

    def _caches(self, models: Sequence[Model]) -> "Caching | None":
        if not any(model.cache is not None for model in models):
            return None
        if self._caching is None:
            self._caching = self._make_caching(self._cache_terms)
        if not self._comparing and any(
            model.cache is not None and model.cache.semantic is not None for model in models
        ):
            self._compare(self._caching, self._cache_terms)
        return self._caching

    def _make_caching(self, terms: CacheTerms) -> "Caching":
        from gateway.cache.stage import Caching  # noqa: PLC0415 — an idle gateway without a cache does without

        self._store = terms.store(self._spawn)
        return Caching(
            dispatch=self._dispatch,
            store=self._store,
            meter=self._meter,
            unix=time.time,
            now=time.monotonic,
            max_bytes=terms.max_bytes,
        )

    def _compare(self, caching: "Caching", terms: CacheTerms) -> None:
        """Adds the cache by meaning, where there is something that makes vectors."""
        self._comparing = True
        if terms.embed is None or self._store is None:
            return
        from gateway.cache.audit import Audit  # noqa: PLC0415 — NumPy comes with it
        from gateway.cache.meanings import Meanings  # noqa: PLC0415 — as above

        meanings = Meanings(
            store=self._store, log=terms.log(self._store), embed=terms.embed, spawn=self._spawn, unix=time.time
        )
        audit = Audit(
            meanings=meanings,
            serve=self._completions.serve,
            spawn=self._spawn,
            random=random.random,
            now=time.monotonic,
        )
        caching.compare(meanings, audit)
        self._spawn(meanings.warm())

    def _spawn(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Code that was not written for a driven coroutine runs in a task of its own."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, snapshot: Snapshot) -> None:
        catalog = snapshot.catalog
        models = (*catalog.models.values(), *(model for _, model in catalog.wildcards))
        alive = {deployment.id: deployment for model in models for deployment in model.deployments}
        self._targets.forget(alive.__contains__)
        self.health.keep(alive)
        self.loads.keep(alive)
        self.gates.keep({model.name: model for model in models})
        if self._passing is not None:
            self._passing.signer.keep(alive)


def _passing(
    *,
    completions: Completions,
    counting: Completions,
    authenticator: Authenticator,
    current: Current,
    declared: Sequence[Declared],
) -> "PassThrough":
    from gateway.native.passing import PassThrough  # noqa: PLC0415 — memory that only those need who have such clients

    return PassThrough(
        completions=completions,
        counting=counting,
        authenticator=authenticator,
        current=current,
        declared=declared,
    )


def _realtime(**parts: Any) -> "Realtime":
    from gateway.realtime.service import Realtime  # noqa: PLC0415 — and a library that only they need

    return Realtime(**parts, unix=time.time, now=time.monotonic)


def _in_memory() -> CacheTerms:
    """For whoever says nothing of a cache and gives a model one."""

    def store(_: object) -> Store:
        from gateway.cache.local import LocalStore  # noqa: PLC0415 — an idle gateway without a cache does without

        return LocalStore(32 * MEBI, 0, None, time.time)

    return CacheTerms(store, MEBI)


def _fits_a_line(path: bytes, route: Route) -> bool:
    """Whether a batch may ask for it: JSON in and out, with errors in OpenAI's shape."""
    posted = route.method == b"POST" or path == service.PATH
    return posted and path not in FILES and face_of(path) is None


async def _nothing_here(exchange: HttpExchange) -> None:
    """A path below one of Anthropic's that is not served: its clients read their own shape there as well."""
    path = exchange.url.partition(b"?")[0].decode("latin-1")
    exchange.fail(errors.NotFound(f"There is nothing at {path}"))
