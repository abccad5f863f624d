"""What stands before the dispatch of calls: who records, guards, looks up, remembers. Each is there while it has something to do."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from gateway.bills import Bills
from gateway.cache.ports import Store
from gateway.call import Call
from gateway.catalog import Model
from gateway.completion import Answers, Completions
from gateway.grounding.named import names_documents
from gateway.grounding.ports import Searcher
from gateway.metering import Meter
from gateway.record import Record
from gateway.snapshot import Snapshot
from gateway.stage_terms import CacheTerms, ContentTerms, GuardTerms

if TYPE_CHECKING:  # they are loaded for whom they do something
    from gateway.cache.precision import Precision
    from gateway.cache.stage import Caching
    from gateway.contents.keeper import Keeper
    from gateway.contents.stage import Listening
    from gateway.grounding.stage import Grounding
    from gateway.guards.stage import Guarding
    from gateway.routers.stage import Choosing
    from gateway.waking import Waking

MEBI: Final = 1024 * 1024
KEEP_S: Final = 5.0  # what writing down what was said may take at the end


@final
class Stages:
    """Of one plane. `answering` and `counted` are served by what is chosen here, at the end by `dispatch` and `counting`.

    From the outside in: routers, contents (as they came), guards, documents, the cache, engines that have to wake. `waking` makes the last.
    """

    def __init__(
        self,
        *,
        answering: Completions,
        dispatch: Answers,
        counted: Completions,
        counting: Answers,
        meter: Meter,
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
        attempted: Callable[[Record], None],
        cache: CacheTerms,
        searcher: Searcher | None,
        bills: Bills,
        contents: ContentTerms | None,
        guards: GuardTerms,
        waking: "Callable[[], Waking] | None",
    ) -> None:
        self._make_waking = waking
        self._waking: Waking | None = None
        self._answering = answering
        self._dispatch = dispatch
        self._counted = counted
        self._counting = counting
        self._meter = meter
        self._spawn = spawn
        self._attempted = attempted
        self._cache_terms = cache
        self._store: Store | None = None
        self._comparing = False
        self._caching: Caching | None = None
        self._searcher = searcher
        self._bills = bills
        self._grounding: Grounding | None = None
        self._named = False  # somebody asked for documents, whether there are any or not
        self._contents = contents
        self._listening: Listening | None = None
        self.keeper: Keeper | None = None
        self._guard_terms = guards
        self._guarding: tuple[Guarding, ...] = ()  # of answers, and of counts
        self._choosing: tuple[Choosing, ...] = ()  # as above
        self._expected: tuple[object, object] = (None, None)  # what there was when classifiers were last loaded

    @property
    def cache_outcomes(self) -> Mapping[tuple[str, str], int]:
        """Calls of models with a cache, by model and outcome."""
        return {} if self._caching is None else self._caching.outcomes

    @property
    def cache_precisions(self) -> "Mapping[str, Precision]":
        """Of the cache by meaning, by model."""
        return {} if self._caching is None else self._caching.precisions

    @property
    def cache_checked(self) -> Mapping[tuple[str, str], int]:
        """What cross-encoders said of answers by meaning, by model and verdict."""
        return {} if self._caching is None else self._caching.checked

    @property
    def cache_waiting(self) -> int:
        """Calls that wait for what an equal one brings."""
        return 0 if self._caching is None else self._caching.waiting

    @property
    def guard_outcomes(self) -> Mapping[tuple[str, str], int]:
        """What guards did, by name and outcome."""
        return _summed([stage.outcomes for stage in self._guarding])

    @property
    def guard_trials(self) -> Mapping[str, int]:
        """What guards on trial would have done, by name."""
        return _summed([stage.tried for stage in self._guarding])

    async def close(self) -> None:
        """Before the tasks that were spawned are over."""
        if self._caching is not None:
            await self._caching.close()

    async def end(self) -> None:
        """What was said is written down, once nothing more can be said."""
        if self.keeper is not None:
            await asyncio.to_thread(self.keeper.close, KEEP_S)

    def choose(self, snapshot: Snapshot) -> None:
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
        first = grounding or caching or last
        if grounding is None and self._searcher is not None:
            first = _Unsearched(first, partial(self._search_all_the_same, snapshot))
        if any(model.roles is not None for model in models):
            from gateway.embedding_roles import Telling  # noqa: PLC0415 — as for the others

            first = Telling(first)
        self._guard(snapshot, first)
        self._listen(snapshot)
        self._route(snapshot, models)

    def _guard(self, snapshot: Snapshot, stage: Answers) -> None:
        """Puts guards before everything else, as long as there is any."""
        if snapshot.guards is None:
            self._answering.dispatch, self._counted.dispatch = stage, self._counting
            return
        if not self._guarding:
            self._guarding = self._make_guarding(self._guard_terms)
        answers, counts = self._guarding
        answers.inner = stage
        self._answering.dispatch, self._counted.dispatch = answers, counts

    def _route(self, snapshot: Snapshot, models: Sequence[Model]) -> None:
        """Puts who chooses models before everything that is about what was chosen, as long as any model is a router."""
        classifiers = {model.router.classifier for model in models if model.router is not None}
        if not classifiers:
            return
        places = (self._answering, self._counted)
        if not self._choosing:
            from gateway.routers.stage import Choosing  # noqa: PLC0415 — an idle gateway without a router does without

            classify = self._guard_terms.classify or _nothing_served
            self._choosing = tuple(Choosing(one.dispatch, classify, self._spawn, one.shadow) for one in places)
        for place, stage in zip(places, self._choosing, strict=True):
            stage.inner, place.dispatch = place.dispatch, stage
        there = snapshot.catalog, snapshot.beside
        if there[0] is not self._expected[0] or there[1] is not self._expected[1]:
            self._expected = there
            self._choosing[0].expect(classifiers)

    def _wakes(self, models: Sequence[Model]) -> "Waking | None":
        """What waits for engines of this house. Once there, it stays: it tells their keeper when the last call has ended."""
        if self._waking is None and self._make_waking is not None:
            if not any(one.awaited or any(each.engine is not None for each in one.deployments) for one in models):
                return None
            self._waking = self._make_waking()
            self._spawn(self._waking.run())
        return self._waking

    def _search_all_the_same(self, snapshot: Snapshot) -> Answers:
        """From now on there is a stage that says which documents are not there."""
        self._named = True
        self.choose(snapshot)
        assert self._grounding is not None
        return self._grounding

    def _grounds(self, snapshot: Snapshot, models: Sequence[Model]) -> "Grounding | None":
        """What looks something up before it is answered."""
        if self._searcher is None:
            return None
        if not (self._named or snapshot.searchable or any(model.retrieval is not None for model in models)):
            return None
        if self._grounding is None:
            from gateway.grounding.stage import Grounding  # noqa: PLC0415 — an idle gateway without documents does without

            self._grounding = Grounding(self._dispatch, self._searcher, self._spawn, self._bills)
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

    def _make_guarding(self, terms: GuardTerms) -> "tuple[Guarding, ...]":
        from gateway.guards.judges import Judges  # noqa: PLC0415 — an idle gateway without a guard does without
        from gateway.guards.stage import Guarding  # noqa: PLC0415 — as above

        judges = Judges(
            serve=self._answering.serve,
            post=terms.post,
            embed=self._cache_terms.embed,
            classify=terms.classify,
            now=time.monotonic,
        )
        made = partial(
            Guarding, judges=judges, meter=self._meter, spawn=self._spawn, now=time.monotonic, attempted=self._attempted
        )
        return made(inner=self._dispatch), made(inner=self._counting)

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
        from gateway.cache.cross_encoder import CrossEncoders  # noqa: PLC0415 — as above
        from gateway.cache.meanings import Meanings  # noqa: PLC0415 — as above

        meanings = Meanings(
            store=self._store, log=terms.log(self._store), embed=terms.embed, spawn=self._spawn, unix=time.time
        )
        audit = Audit(
            meanings=meanings,
            serve=self._answering.serve,
            spawn=self._spawn,
            random=random.random,
            now=time.monotonic,
        )
        caching.compare(meanings, audit, CrossEncoders(self._answering.serve, self._spawn, time.monotonic))
        self._spawn(meanings.warm())

    def _listen(self, snapshot: Snapshot) -> None:
        """Puts who records before the others, as long as anybody's words are recorded: who has none pays nothing for it."""
        terms = self._contents
        wanted = terms is not None and (
            terms.everybody or any(key.metadata.get("record_content") is True for key in snapshot.keys.values())
        )
        if terms is None or not wanted:
            return
        if self._listening is None:
            self._listening = self._make_listening(terms)
        self._listening.dispatch = self._answering.dispatch
        self._answering.dispatch = self._listening

    def _make_listening(self, terms: ContentTerms) -> "Listening":
        from gateway.contents.keeper import Keeper  # noqa: PLC0415 — for who has something kept
        from gateway.contents.stage import Listening  # noqa: PLC0415 — as above

        self.keeper = Keeper(terms.engine, terms.redact)
        return Listening(self._dispatch, self.keeper, everybody=terms.everybody, max_bytes=terms.max_bytes)


def in_memory() -> CacheTerms:
    """For whoever says nothing of a cache and gives a model one."""

    def store(_: object) -> Store:
        from gateway.cache.local import LocalStore  # noqa: PLC0415 — an idle gateway without a cache does without

        return LocalStore(32 * MEBI, 0, None, time.time)

    return CacheTerms(store, MEBI)


async def _nothing_served(model: str, texts: Sequence[str]) -> Sequence[Mapping[str, float]]:  # noqa: ARG001 — the port's names
    """Where there are no classic models."""
    raise LookupError("no classifier is served here")


def _summed(counts: "Sequence[Mapping[Any, int]]") -> Mapping[Any, int]:
    total: dict[Any, int] = {}
    for each in counts:
        for place, count in each.items():
            total[place] = total.get(place, 0) + count
    return total


@final
class _Unsearched:
    """Before the rest while there are no documents: a chat that asks for some is not answered as if it had seen them."""

    def __init__(self, following: Answers, search: Callable[[], Answers]) -> None:
        self._following = following
        self._search = search

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        return (self._search() if names_documents(call) else self._following).answer(call)
