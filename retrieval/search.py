"""A search: embed → what may be found at all → dense and lexical → fuse → threshold → cite.

What is shown comes from the truth, never from an index; an index only says in which order.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from retrieval import collection_store
from retrieval.access import Caller, sees
from retrieval.asking import Embedded, Question, Result, Results, Stage, Trace, Within
from retrieval.collection_store import TOUCHED_EVERY_S, Collection
from retrieval.cutting import normalised
from retrieval.database import Database
from retrieval.errors import BadRequest, NotFound, Refused, RetrievalError, Unavailable
from retrieval.fusion import Ranking, Voice, blended, fused, meant, worded
from retrieval.glance import Glance, Shown
from retrieval.index.admitted import Allowed
from retrieval.index.audit import Audit, Checks, Recall
from retrieval.index.planner import Plan, RecallMode
from retrieval.index.ports import Vector
from retrieval.index.residents import Residents
from retrieval.index.state import Answer, State
from retrieval.ports import Embedder, Role
from retrieval.sampling import Asked, nobody
from retrieval.shown import moment, shown
from retrieval.spaces import FIRST, place_of
from retrieval.tenancy import narrowed

log = structlog.stdlib.get_logger(__name__)

MIN_CANDIDATES: Final = 50  # of each ranking, before they are fused
WORDED: Final = 1000  # passages whose words are compared for a blend: what comes behind them counts like the last one
TRIES: Final = 3  # when what was found is being replaced at the same moment

Finding = Callable[[Caller, Collection, Question, Sequence[Vector]], Awaitable[Results]]


class Moved(Exception):
    """The caller reads another version of the collection's vectors by now: the question has to be embedded for that one."""


@final
class Search:
    """One per process."""

    def __init__(
        self,
        database: Database,
        residents: Residents,
        embedder: Embedder,
        clock: Callable[[], float] = time.monotonic,
        asked: Asked = nobody,
    ) -> None:
        self._database = database
        self._residents = residents
        self._embedder = embedder
        self._asked = asked
        self._audit = Audit(clock, residents.recall)
        self._auditor = ThreadPoolExecutor(1, thread_name_prefix="recall")
        self._checking: Future[None] | None = None
        self._glance = Glance(database.bare)

    def close(self) -> None:
        """Blocks for a check that is under way."""
        self._glance.close()
        self._auditor.shutdown(cancel_futures=True)

    @property
    def checking(self) -> bool:
        """Whether a search is being done again, exactly."""
        return self._checking is not None and not self._checking.done()

    def recall(self, collection_id: str, tenant: str | None = None) -> Mapping[str, Recall]:
        """As far as searches of this process were checked, by kind of filter, in the version that is read, of a tenant if it has any."""
        seen = self._residents.seen(collection_id)
        return self._audit.of(place_of(collection_id, FIRST if seen is None else seen.version, tenant))

    @property
    def checks(self) -> Checks:
        """What came of searches that were done again exactly."""
        return self._audit.checks

    async def run(self, caller: Caller, collection_id: str, question: Question) -> Results:
        """Raises NotFound, Expired, BadRequest, Refused."""
        collection = await self.begun(caller, collection_id, question)
        return await self.answered(caller, collection, question, self.found)

    async def begun(self, caller: Caller, collection_id: str, question: Question) -> Collection:
        """As the caller reads it, before anything is paid for. Raises NotFound, Expired, BadRequest."""
        if question.dense <= 0 and question.lexical <= 0:
            raise BadRequest("One of embedding_weight and text_weight must be above 0", param="ranking_options")
        known = self._known(caller, collection_id)
        if known is not None and known.read_by(caller.key_id).dimensions is None:  # it had no vectors then
            known = None
        if known is None:
            known = await asyncio.to_thread(self._begun, caller, collection_id)
        return known.read_by(caller.key_id)

    async def require_tenant(self, caller: Caller, collection: Collection, question: Question) -> None:
        """What `answered` asks first, for who pays for something before. Raises BadRequest, Forbidden, NotFound, Expired."""
        with suppress(RetrievalError):
            _narrowed(caller, collection, question)
            return
        _narrowed(caller, await asyncio.to_thread(self._begun, caller, collection.id), question)  # as it is by now

    async def answered(
        self, caller: Caller, collection: Collection, question: Question, find: Finding, tries: int = TRIES
    ) -> Results:
        """What `find` finds in the version that the caller reads at the end, whatever is swapped meanwhile: within one tenant, where
        the collection declares tenancy.

        Raises NotFound, Expired, BadRequest, Refused.
        """
        try:
            asks, narrow = _narrowed(caller, collection, question)
            try:
                vectors = await self.vectors(caller, collection, question)
            except Refused as away:
                if away.status < 500 or not away.again or question.lexical <= 0:
                    raise
                return await self._worded(asks, collection, narrow, find, away)
            if vectors:
                self._asked(collection.id, collection.version, vectors[0])
            return await find(asks, collection, narrow, vectors)
        except (Moved, RetrievalError) as error:
            now = await asyncio.to_thread(self._begun, caller, collection.id)
            now = now.read_by(caller.key_id)
            same = (now.version, now.tenancy) == (collection.version, collection.tenancy)
            if same and not isinstance(error, Moved):
                raise
            if tries <= 1:
                raise Unavailable("The vector store is embedded anew at this moment: try again") from error
        return await self.answered(caller, now, question, find, tries - 1)

    async def _worded(
        self, caller: Caller, collection: Collection, question: Question, find: Finding, away: Refused
    ) -> Results:
        """What words alone find, where the model does not answer that would say what is meant; the answer says so."""
        log.warning("search.words_alone", collection=collection.id, model=collection.model, reason=away.message)
        found = await find(caller, collection, msgspec.structs.replace(question, dense=0.0), ())
        skipped = Stage("embedding", "skipped", away.message, collection.model)
        return msgspec.structs.replace(found, stages=(*found.stages, skipped))

    def _known(self, caller: Caller, collection_id: str) -> Collection | None:
        """From memory, where that is enough to begin with: what is answered is asked of the truth in the end."""
        collection = self._residents.seen(collection_id)
        if collection is None:
            return None
        ends = collection.expires_at is not None or time.time() - collection.last_active_at > TOUCHED_EVERY_S
        return collection if not ends and sees(caller, collection.id, collection.key_id, collection.team_id) else None

    def _begun(self, caller: Caller, collection_id: str) -> Collection:
        """Blocks. The collection, which is in use. Seldom a write: one a minute is as good as a thousand."""
        with self._database.reading() as tx:
            collection = collection_store.alive(tx, caller, collection_id)
            due = collection_store.due(tx, collection)
        if due:
            self._database.write(lambda tx: collection_store.touch(tx, collection))
        self._residents.saw(msgspec.structs.replace(collection, last_active_at=time.time()) if due else collection)
        return collection

    async def vectors(self, caller: Caller, collection: Collection, question: Question) -> Sequence[Vector]:
        """One for each text that is searched for; none where none is needed. Raises BadRequest, Refused."""
        if question.dense <= 0 or collection.dimensions is None:
            return ()
        queries, meanings = question.queries, question.meanings
        if not meanings:
            vectors = await self._embedded(caller, collection, queries, "query")
        elif collection.prompts is None:
            vectors = await self._embedded(caller, collection, (*queries, *meanings), "query")
        else:  # an answer that was made up is near answers, as a passage is
            asked = self._embedded(caller, collection, queries, "query")
            told = self._embedded(caller, collection, meanings, "passage")
            vectors = np.concatenate(await asyncio.gather(asked, told))
        if vectors.shape[1] != collection.dimensions:
            raise BadRequest(
                f"The model '{collection.model}' gives {vectors.shape[1]} dimensions by now, and the vector store has "
                f"{collection.dimensions}: it has to be embedded anew",
                code="dimension_mismatch",
            )
        return list(vectors)

    async def _embedded(
        self, caller: Caller, collection: Collection, texts: Sequence[str], role: Role
    ) -> NDArray[np.float32]:
        made = await self._embedder.embed(
            texts,
            collection.model,
            caller.key_id,
            aside=False,
            account=caller.account,
            dimensions=collection.cut,
            role=role,
            prompts=collection.prompts,
        )
        return normalised(made, len(texts))

    async def found(
        self, caller: Caller, collection: Collection, question: Question, vectors: Sequence[Vector]
    ) -> Results:
        """`vectors` are of the collection's version, the caller and the question of one tenant (`answered`). Raises NotFound, Moved."""
        short = self._short(caller, collection, question, vectors)
        if short is not None:
            return short
        return await asyncio.to_thread(self._search, caller, collection, question, vectors)

    async def within(
        self, caller: Caller, collection: Collection, question: Question, vectors: Sequence[Vector]
    ) -> Results:
        """As `found`, whichever version the caller reads. Raises BadRequest."""
        caller, question = _narrowed(caller, collection, question)
        return await asyncio.to_thread(self._search, caller, collection, question, vectors, pinned=True)

    def _short(
        self, caller: Caller, asked: Collection, question: Question, vectors: Sequence[Vector]
    ) -> Results | None:
        """On the event loop, where all of it takes less time than to ask a thread; None where it would not, or something changed."""
        if question.lexical > 0 or len(vectors) != 1 or not self._glance.there:
            return None
        tenant = _tenant(caller, asked)
        latest = self._residents.latest(asked.id, asked.version, tenant)
        if latest is None:
            return None
        collection, state = latest
        allowed = state.known(caller, question.wanted, labelled=collection.labelled)
        if allowed is None or (planned := state.short(question.k, allowed)) is None:
            return None
        answer = state.search(vectors[0], question.k, allowed, planned=planned)
        if self._audit.due(answer):
            self._check(collection, tenant, state, vectors[0], question.k, question, allowed, answer)
        slots, scores = answer.hits.slots.tolist(), answer.hits.scores.tolist()
        ids = state.ids.take(answer.hits.slots).tolist()
        there = self._glance.shown(caller, state, asked, ids, slots)
        if state.told.damaged:
            self._mend(collection, tenant)
        if there is None:
            return None
        results = [
            Result(known[0], known[1], said, (Trace("dense", rank, score),))
            for rank, (known, said, score) in enumerate(zip(there, _cosines(scores), scores, strict=True), 1)
            if known is not None and said >= question.threshold
        ]
        mode, made = answer.plan.recall_mode, _embedded(collection)
        within = _within(tenant, state)
        return Results(
            results, [answer.plan], mode, state.generation, question.queries, embedded=made, partition=within
        )

    def _search(
        self,
        caller: Caller,
        asked: Collection,
        question: Question,
        vectors: Sequence[Vector],
        *,
        pinned: bool = False,
    ) -> Results:
        """Blocks."""
        latest = self._residents.latest(asked.id, asked.version, _tenant(caller, asked))
        if latest is not None:  # nothing has changed, as a rule
            results, whole = self._once(caller, *latest, question, vectors, pinned=pinned)
            if whole:
                return results
        results, whole = self._once(caller, *self._current(caller, asked), question, vectors, pinned=pinned)
        for _ in range(TRIES - 1):
            if whole:
                break
            results, whole = self._once(caller, *self._current(caller, asked), question, vectors, pinned=pinned)
        return results

    def _current(self, caller: Caller, asked: Collection) -> tuple[Collection, State]:
        """Blocks. Raises NotFound, and Moved where only that version is gone, or it is a partition by now, or none any more."""
        try:
            return self._residents.current(asked.id, asked.version, _tenant(caller, asked))
        except NotFound:
            with self._database.reading() as tx:
                now = collection_store.get(tx, caller, asked.id).read_by(caller.key_id)
            if (now.version, now.tenancy) != (asked.version, asked.tenancy):
                raise Moved from None
            raise

    def _once(
        self,
        caller: Caller,
        collection: Collection,
        state: State,
        question: Question,
        vectors: Sequence[Vector],
        *,
        pinned: bool,
    ) -> tuple[Results, bool]:
        """Blocks. And whether nothing of it was changed meanwhile. Raises Moved."""
        allowed = state.allowed(caller, question.wanted, labelled=collection.labelled)
        rankings, plans = self._ranked(caller, collection, state, allowed, question, vectors)
        ranked = _ordered(state, rankings, question, vectors)[: question.k]
        shown = [(slot, score) for slot, score in ranked if score >= question.threshold]
        results, whole = self._shown(caller, collection, state, shown, _traces(rankings, shown), pinned=pinned)
        exact = all(each.recall_mode == "exact" for each in plans)
        mode: RecallMode = "exact" if exact else "estimated"
        made, within = _embedded(collection), _within(_tenant(caller, collection), state)
        answer = Results(results, plans, mode, state.generation, question.queries, embedded=made, partition=within)
        return answer, whole

    def _ranked(
        self,
        caller: Caller,
        collection: Collection,
        state: State,
        allowed: Allowed,
        question: Question,
        vectors: Sequence[Vector],
    ) -> tuple[Sequence[Ranking], Sequence[Plan]]:
        tenant = _tenant(caller, collection)
        hybrid = question.dense > 0 and question.lexical > 0
        several = len(question.queries) + len(question.meanings) > 1
        wanted = _candidates(question) if hybrid or several else question.k
        rankings: list[Ranking] = []
        plans: list[Plan] = []
        for vector in vectors:
            answer = state.search(vector, wanted, allowed)
            plans.append(answer.plan)
            if self._audit.due(answer):
                self._check(collection, tenant, state, vector, wanted, question, allowed, answer)
            hits = answer.hits
            rankings.append(Ranking("dense", question.dense, hits.slots.tolist(), hits.scores.tolist()))
        if question.lexical > 0 and allowed.count:
            words = self._residents.words(collection, tenant)
            for query in question.queries:
                deep = max(WORDED, wanted) if vectors and question.fusion == "blend" else wanted
                found = words.search(query, lambda ids: state.found(ids, allowed), deep)
                slots, scores = [slot for slot, _ in found], [score for _, score in found]
                rankings.append(Ranking("lexical", question.lexical, slots, scores))
        return rankings, plans

    def _check(
        self,
        collection: Collection,
        tenant: str | None,
        state: State,
        vector: Vector,
        k: int,
        question: Question,
        allowed: Allowed,
        answer: Answer,
    ) -> None:
        """Beside the search, which does not wait for it."""

        def work() -> None:
            place = place_of(collection.id, collection.version, tenant)
            repair = self._audit.check(place, state, vector, k, question.wanted, allowed, answer)
            if repair.verdict in ("raised", "lowered"):
                self._residents.repair(collection.id, repair.effort, collection.version, tenant)
            elif repair.verdict == "given_up":
                self._residents.repair(collection.id, None, collection.version, tenant)
                self._residents.maintain(collection.id, collection.version, tenant)

        if not self.checking:
            self._checking = self._auditor.submit(work)

    def _mend(self, collection: Collection, tenant: str | None) -> None:
        """Files that were damaged under a search, beside it; what they do not say any more is asked of the truth meanwhile."""

        def work() -> None:
            try:
                self._residents.maintain(collection.id, collection.version, tenant)
            except (OSError, NotFound) as error:
                log.warning("index.not_mended", collection=collection.id, reason=str(error))

        if not self.checking:
            log.warning("index.damaged", folder=collection.id, reason="the checksum of a text")
            self._checking = self._auditor.submit(work)

    def _shown(
        self,
        caller: Caller,
        collection: Collection,
        state: State,
        ranked: Sequence[tuple[int, float]],
        traces: Mapping[int, Sequence[Trace]],
        *,
        pinned: bool,
    ) -> tuple[Sequence[Result], bool]:
        """What the truth has of these, and whether it still is what the index was made from. Raises Moved."""
        slots = [slot for slot, _ in ranked]
        ids = state.ids[slots].tolist() if slots else []
        glanced = self._glance.shown(caller, state, collection, ids, slots, pinned=pinned)
        if state.told.damaged:
            self._mend(collection, _tenant(caller, collection))
        if glanced is not None:
            return _results(glanced, ranked, traces), True
        with self._database.reading() as tx:
            now = moment(tx, caller, collection.id)
            if now.version != collection.version and not pinned:
                raise Moved
            if now.generation != state.generation or now.labelled or state.columns.labelled:
                asked = shown(tx, caller, collection.id, ids, labelled=now.labelled)
                there = [asked.get(id_) for id_ in ids]
            else:  # what was shown of this generation is as it was, and who may read it was asked of it
                there = state.told.of(ids, slots)
                missing = [id_ for id_, known in zip(ids, there, strict=True) if known is None]
                found = shown(tx, caller, collection.id, missing, labelled=now.labelled)
                state.told.remember(found)
                there = [known or found.get(id_) for id_, known in zip(ids, there, strict=True)]
        return _results(there, ranked, traces), now.generation == state.generation


def _narrowed(caller: Caller, collection: Collection, question: Question) -> tuple[Caller, Question]:
    """Both within one tenant, where the collection declares tenancy. Raises TenantRequired, Forbidden."""
    if collection.tenancy is None and question.tenant is None:
        return caller, question
    caller, wanted = narrowed(collection.tenancy, caller, question.tenant, question.wanted)
    if wanted is question.wanted and question.tenant == caller.tenant:
        return caller, question
    return caller, msgspec.structs.replace(question, wanted=wanted, tenant=caller.tenant)


def _tenant(caller: Caller, collection: Collection) -> str | None:
    """Whose partition is searched; None where there are none. There is no index that a search without one would find."""
    return None if collection.tenancy is None else caller.tenant


def _within(tenant: str | None, state: State) -> Within | None:
    return None if tenant is None else Within(tenant, state.graph is not None)


def _candidates(question: Question) -> int:
    """How many of each ranking are looked at."""
    return max(MIN_CANDIDATES, 2 * question.k)


def _ordered(
    state: State, rankings: Sequence[Ranking], question: Question, vectors: Sequence[Vector]
) -> Sequence[tuple[int, float]]:
    """By what is said to clients: of dense alone the cosine, as far as it is above 0; else what all rankings say together."""
    if len(rankings) == 1 and rankings[0].name == "dense":
        return [(slot, _cosine(score)) for slot, score in zip(rankings[0].slots, rankings[0].scores, strict=True)]
    if question.fusion == "blend" and len({each.name for each in rankings}) > 1:
        return _blended(state, rankings, question, vectors)
    return fused(rankings)


def _blended(
    state: State, rankings: Sequence[Ranking], question: Question, vectors: Sequence[Vector]
) -> Sequence[tuple[int, float]]:
    """Several queries share what meaning counts, and what words count."""
    slots = np.unique(np.array([slot for each in rankings for slot in each.slots[: _candidates(question)]], np.int64))
    words = [each for each in rankings if each.name == "lexical" and each.slots]
    voices = [
        Voice(question.meaning / len(vectors), meant(state.nearness(vector, slots), state.usual(vector)))
        for vector in vectors
    ]
    for each in words:
        absent = each.scores[-1] if len(each.slots) >= WORDED else 0.0
        voices.append(Voice((1 - question.meaning) / len(words), worded(each, slots, absent)))
    return blended(slots, voices)


def _traces(rankings: Sequence[Ranking], shown: Sequence[tuple[int, float]]) -> Mapping[int, Sequence[Trace]]:
    """Where each of those that are shown stands in every ranking, and then in all of them together."""
    traces: dict[int, list[Trace]] = {slot: [] for slot, _ in shown}
    for each in rankings:
        for rank, (slot, score) in enumerate(zip(each.slots, each.scores, strict=True), 1):
            if slot in traces:
                traces[slot].append(Trace(each.name, rank, score))
    if len(rankings) > 1:
        for rank, (slot, score) in enumerate(shown, 1):
            traces[slot].append(Trace("fused", rank, score))
    return traces


def _results(
    there: Shown, ranked: Sequence[tuple[int, float]], traces: Mapping[int, Sequence[Trace]]
) -> Sequence[Result]:
    pairs = zip(there, ranked, strict=True)
    return [Result(*known, score, tuple(traces[slot])) for known, (slot, score) in pairs if known is not None]


def _embedded(collection: Collection) -> Embedded:
    return Embedded(collection.version, collection.model, collection.dimensions)


def _cosines(scores: Sequence[float]) -> Sequence[float]:
    """Of scores that fall."""
    sound = not scores or (scores[0] <= 1.0 and scores[-1] >= 0.0)
    return scores if sound else [_cosine(score) for score in scores]


def _cosine(score: float) -> float:
    return 0.0 if score < 0.0 else min(score, 1.0)
