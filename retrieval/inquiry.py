"""A search with what may stand before and behind it: expand → search → rerank → age → threshold → group → diversify → cut → show.

Only what is asked for costs anything. What other models do for it (queries, a cross-encoder) has a deadline and may fail: the search
answers without it, and says so.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, final

import msgspec
import numpy as np
from sqlalchemy import Connection

from retrieval import passage_store, refining
from retrieval.access import Caller
from retrieval.asking import Neighbours, Question, Rerank, Result, Results, Span, Stage
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import RetrievalError
from retrieval.expansion import expanded
from retrieval.index.ports import Vector
from retrieval.ports import Ranker, Writer
from retrieval.search import Search
from retrieval.shown import moment, shown
from retrieval.spaces import FIRST

MOST: Final = 4096  # passages that are looked at for enough documents
PER_DOCUMENT: Final = 4  # of a group's document, those that a cross-encoder sees


@final
class Inquiry:
    """One per process."""

    def __init__(
        self,
        database: Database,
        search: Search,
        ranker: Ranker | None,
        writer: Writer | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._search = search
        self._ranker = ranker
        self._writer = writer
        self._clock = clock

    async def run(self, caller: Caller, collection_id: str, question: Question) -> Results:
        """Raises NotFound, Expired, BadRequest, Forbidden, Refused."""
        asked = question.queries
        rerank = self.reranks(question.rerank, caller)
        collection = await self._search.begun(caller, collection_id, question)
        if _plain(question, rerank):
            found = await self._search.answered(caller, collection, question, partial(self._found, question.k))
            if not _children(found.results):
                return found
            caller = _within(caller, found)
            whole = await asyncio.to_thread(self._parents, caller, collection_id, list(found.results[: question.k]))
            return msgspec.structs.replace(found, results=whole)
        await self._search.require_tenant(caller, collection, question)
        made = await expanded(self._writer, question, caller)
        question, stages = made.question, list(made.stages)
        wide = msgspec.structs.replace(question, threshold=0.0)
        found = await self._search.answered(caller, collection, wide, partial(self._found, _pool(question, rerank)))
        caller, results = _within(caller, found), list(found.results)
        if rerank is not None and results:
            results, stage = await self._reranked(caller, asked, rerank, _candidates(question, rerank, results))
            stages.append(stage)
        if question.recency is not None:
            results = refining.by_age(results, question.recency, self._clock())
        results = [each for each in results if each.score >= question.threshold]
        if question.group is not None:
            results = refining.grouped(results, question.group)
        version = FIRST if found.embedded is None else found.embedded.version
        results = await asyncio.to_thread(self._last, caller, collection_id, version, question, results)
        return msgspec.structs.replace(
            found, results=results, queries=question.queries, stages=[*found.stages, *stages]
        )

    def reranks(self, rerank: Rerank | None, caller: Caller) -> Rerank | None:
        """What a cross-encoder is asked, if anything is: by the usual model only where there is one, unless somebody waits to be told.

        Raises BadRequest, Forbidden.
        """
        if rerank is None:
            return None
        if rerank.model is not None and self._ranker is not None:
            self._ranker.require(rerank.model, caller.key_id)
        usual = None if self._ranker is None else self._ranker.default()
        model = rerank.model or usual
        return msgspec.structs.replace(rerank, model=model) if model is not None or rerank.wanted else None

    async def _found(
        self, pool: int, caller: Caller, collection: Collection, question: Question, vectors: Sequence[Vector]
    ) -> Results:
        """Enough passages for what comes behind. Where documents are wanted, or parents shown, more until there are enough of them."""
        wanted = pool
        while True:
            wide = question if pool == question.k else msgspec.structs.replace(question, k=pool)
            found = await self._search.found(caller, collection, wide, vectors)
            few = len(found.results) < pool or pool >= MOST
            if _children(found.results):
                found = msgspec.structs.replace(found, results=refining.families(found.results))
            if few or _enough(question, found.results, wanted):
                return found
            pool = min(MOST, 4 * pool)

    async def _reranked(
        self, caller: Caller, queries: Sequence[str], rerank: Rerank, results: list[Result]
    ) -> tuple[list[Result], Stage]:
        began = time.monotonic()

        def skipped(reason: str) -> tuple[list[Result], Stage]:
            return results, Stage("rerank", "skipped", reason, rerank.model, _ms(began))

        if self._ranker is None or rerank.model is None:
            return skipped("no rerank model is named: set `ranking_options.ranker` or retrieval.rerank_model")
        texts = ["\n".join((*each.passage.heading, each.passage.text)) for each in results]
        priors = [each.score for each in results]
        try:
            async with asyncio.timeout(rerank.timeout_s):
                scores = await self._ranker.rank("\n".join(queries), texts, priors, rerank.model, caller)
        except TimeoutError:
            return skipped(f"no answer within {rerank.timeout_s:g} s")
        except RetrievalError as error:
            return skipped(error.message)
        return refining.reranked(results, scores), Stage("rerank", "done", None, rerank.model, _ms(began))

    def _parents(self, caller: Caller, collection_id: str, results: list[Result]) -> list[Result]:
        """Blocks. What is shown for what was found, of documents as they are now."""
        with self._database.reading() as tx:
            return _with_parents(tx, _still_there(tx, caller, collection_id, results))

    def _last(
        self, caller: Caller, collection_id: str, version: int, question: Question, results: list[Result]
    ) -> list[Result]:
        """Blocks. What was deleted or closed while others were asked is not shown."""
        with self._database.reading() as tx:
            results = _still_there(tx, caller, collection_id, results)
            if question.diversity is not None:
                ids = [each.passage.id for each in results]
                packed = passage_store.vectors(tx, ids, collection_id, version)
                vectors = {id_: np.frombuffer(each, "<f4") for id_, each in packed.items()}
                results = refining.diverse(results, vectors, question.diversity, question.k)
            results = results[: question.k]
            around = question.neighbours
            if around is not None:
                results = refining.every(results, lambda each: _with_context(tx, each, around))
            results = _with_parents(tx, results)
        if question.highlight:
            results = refining.every(results, lambda each: _highlighted(each, question.queries))
        return results


def _within(caller: Caller, found: Results) -> Caller:
    """As the search was made: what has become another tenant's since is not shown."""
    return caller if found.partition is None else msgspec.structs.replace(caller, tenant=found.partition.tenant)


def _plain(question: Question, rerank: Rerank | None) -> bool:
    """Whether the search alone answers."""
    asked = (question.expansion, question.diversity, question.recency, question.group, question.neighbours, rerank)
    return not question.highlight and all(each is None for each in asked)


def _pool(question: Question, rerank: Rerank | None) -> int:
    """How many passages are looked for, before some of them are shown."""
    pool = question.k
    if rerank is not None:
        pool = max(pool, rerank.candidates)
    if question.diversity is not None:
        pool = max(pool, question.diversity.candidates)
    if question.recency is not None or question.group is not None:
        pool = max(pool, 50, 4 * question.k)
    return pool


def _candidates(question: Question, rerank: Rerank, results: list[Result]) -> list[Result]:
    """Those that the cross-encoder sees: the first ones, and of no document so many that others have no place."""
    if question.group is None:
        return results[: max(question.k, rerank.candidates)]
    most = max(question.group, PER_DOCUMENT)
    seen: dict[int, int] = {}
    kept = []
    for each in results:
        seen[each.document.id] = seen.get(each.document.id, 0) + 1
        if seen[each.document.id] <= most:
            kept.append(each)
    return kept[: max(question.k * question.group, rerank.candidates)]


def _still_there(tx: Connection, caller: Caller, collection_id: str, results: list[Result]) -> list[Result]:
    now = moment(tx, caller, collection_id)
    ids = [part.passage.id for each in results for part in (each, *each.more)]
    there = shown(tx, caller, collection_id, ids, labelled=now.labelled)
    kept = []
    for each in results:
        parts = [
            msgspec.structs.replace(part, passage=there[id_][0], document=there[id_][1])
            for part in (each, *each.more)
            if (id_ := part.passage.id) in there
        ]
        if parts:  # what had a parent of its own when it was found may share one by now
            first, *more = refining.families(parts)
            kept.append(msgspec.structs.replace(first, more=tuple(more)))
    return refining.families(kept)


def _children(results: Sequence[Result]) -> bool:
    """Whether anything else is shown for one of them."""
    return any(each.passage.parent_start is not None for each in results)


def _enough(question: Question, results: Sequence[Result], wanted: int) -> bool:
    if question.group is None:
        return len(results) >= wanted
    return len({each.document.id for each in results}) >= question.k


def _with_parents(tx: Connection, results: list[Result]) -> list[Result]:
    parents = passage_store.parents(tx, [part.passage for each in results for part in (each, *each.more)])

    def shown_(result: Result) -> Result:
        child = result.passage
        parent = parents.get(child.id)
        if parent is None:
            return result
        return msgspec.structs.replace(result, passage=parent, matched=Span(child.start, child.end))

    return refining.every(results, shown_) if parents else results


def _with_context(tx: Connection, result: Result, wanted: Neighbours) -> Result:
    found = result.passage
    first, last = found.ordinal - wanted.before, found.ordinal + wanted.after
    passages = passage_store.around(tx, found.document_id, first, last, found.edition)
    return msgspec.structs.replace(result, context=refining.joined(passages))


def _highlighted(result: Result, queries: Sequence[str]) -> Result:
    return msgspec.structs.replace(result, highlights=refining.highlights(result.passage.text, queries))


def _ms(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 1)
