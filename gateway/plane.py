"""The data plane of one process, put together: which hot path has which handler, on which pool, with which clocks."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sqlalchemy import Engine

from gateway import errors
from gateway.admission.gates import Gates
from gateway.attempts import Attempts
from gateway.authentication import Authenticator
from gateway.bills import Bills
from gateway.completion import Answers, Completions
from gateway.counting import Counting
from gateway.dialect import Dialect
from gateway.dispatch import Dispatch
from gateway.endpoint import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from gateway.engines import Engines
from gateway.faces import face_of
from gateway.fronts.registry import COUNT_TOKENS, MESSAGES
from gateway.grounding.ports import Searcher
from gateway.http_exchange import HttpExchange
from gateway.in_process import InProcess, Local
from gateway.listing import PREFIX as LISTED
from gateway.listing import Listing
from gateway.metering import Meter
from gateway.native.terms import MOUNTS, NONE, Declared
from gateway.planner import Planner
from gateway.pool import Pool
from gateway.pool_limits import PoolLimits
from gateway.price_map import PriceMap
from gateway.probes import Probes
from gateway.realtime.limits import BELOW, TALKS
from gateway.realtime.limits import Limits as TalkLimits
from gateway.record import Record
from gateway.recorder import Records
from gateway.relay import Relay
from gateway.resilience.health import Health
from gateway.responses import conversations as conversing
from gateway.responses import service
from gateway.responses.agent import Agent
from gateway.responses.conversations import Conversations
from gateway.responses.dialects import between as responses_between
from gateway.responses.service import Responses
from gateway.responses.shelf import Shelf
from gateway.route import Route
from gateway.routing.loads import Loads
from gateway.secret_box import SecretBox
from gateway.shadow import Shadows
from gateway.shares import Shares
from gateway.signs import Signs
from gateway.snapshot import Current, Snapshot
from gateway.stage_terms import CacheTerms, ContentTerms, GuardTerms
from gateway.stages import Stages, in_memory
from gateway.targets import Bridge, Targets
from gateway.till import Till
from gateway.token_count import TokenCounter
from gateway.trace_context import Sampler
from gateway.units.endpoints import ENDPOINTS, FILES
from gateway.units.relay import UnitRelay
from gateway.unreported import Unreported
from gateway.watching import WatchedRelay, own_lines, traced_lines, watched_records

if TYPE_CHECKING:  # they are loaded for whom they do something
    from gateway.native.passing import PassThrough
    from gateway.realtime.service import Realtime
    from gateway.waking import Keeper, Waking


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
        recorder: Records,
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
        guards: GuardTerms = GuardTerms(),  # noqa: B008 — frozen
        agent: Callable[[], Coroutine[Any, Any, Agent]] | None = None,
        searcher: Searcher | None = None,
        sampler: Sampler | None = None,
        contents: ContentTerms | None = None,
        keeper: "Keeper | None" = None,
        signs: Signs | None = None,
        token_tables: Sequence[Path] = (),
    ) -> None:
        """`sampler`: of traces, where somebody watches. `contents`: how what is said is kept, for keys that want it.
        `signs`: of responses in the background. `token_tables`: folders of `TokenCounter`'s."""
        traced = own_lines if sampler is None else traced_lines
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
        counter = TokenCounter(token_tables)
        self._unreported = Unreported(counter)
        in_process = InProcess(local, self._targets, time.monotonic, self._spawn)
        relay = Relay(
            targets=self._targets,
            meter=meter,
            health=self.health,
            local=in_process,
            now=time.monotonic,
            units=UnitRelay(
                targets=self._targets,
                meter=meter,
                health=self.health,
                local=in_process,
                now=time.monotonic,
                own_lines=traced,
            ),
            unreported=self._unreported,
            own_lines=traced,
        )
        planner = Planner(self.health, self.loads, random.random, None if shares is None else till.fetch)
        self.gates = Gates(planner, time.monotonic)
        attempts = Attempts(
            relay=relay if sampler is None else WatchedRelay(relay, time.monotonic),
            meter=meter,
            health=self.health,
            planner=planner,
            gates=self.gates,
            now=time.monotonic,
            failed=recorder.failed,
            attempted=recorder.attempted,
        )
        self.bills = bills = Bills()
        self._dispatch = dispatch = Dispatch(attempts, self.gates, self.health, random.random, time.monotonic)
        counting = Counting(dispatch, meter, counter, time.monotonic)

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
                begin=Record if sampler is None else watched_records(sampler),
                bills=bills,
            )

        completions, counted = through(dispatch), through(counting)
        self.stages = Stages(
            answering=completions,
            dispatch=dispatch,
            counted=counted,
            counting=counting,
            meter=meter,
            spawn=self._spawn,
            attempted=recorder.attempted,
            cache=cache or in_memory(),
            searcher=searcher,
            bills=bills,
            contents=contents,
            guards=guards,
            waking=None if keeper is None else partial(_waking, dispatch, current, keeper, self._spawn),
        )
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
            signs=signs,
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
        current.on_change(self.stages.choose)
        self.stages.choose(current.snapshot)

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
        await self.stages.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.stages.end()
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
        self._unreported.forget(alive.__contains__)
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


def _waking(
    dispatch: Answers,
    current: Current,
    keeper: "Keeper",
    spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
) -> "Waking":
    from gateway.waking import Waking  # noqa: PLC0415 — for those who run engines

    return Waking(dispatch, current, keeper, spawn, time.time, time.monotonic)


def _realtime(**parts: Any) -> "Realtime":
    from gateway.realtime.service import Realtime  # noqa: PLC0415 — and a library that only they need

    return Realtime(**parts, unix=time.time, now=time.monotonic)


def _fits_a_line(path: bytes, route: Route) -> bool:
    """Whether a batch may ask for it: JSON in and out, with errors in OpenAI's shape."""
    posted = route.method == b"POST" or path == service.PATH
    return posted and path not in FILES and face_of(path) is None


async def _nothing_here(exchange: HttpExchange) -> None:
    """A path below one of Anthropic's that is not served: its clients read their own shape there as well."""
    path = exchange.url.partition(b"?")[0].decode("latin-1")
    exchange.fail(errors.NotFound(f"There is nothing at {path}"))
