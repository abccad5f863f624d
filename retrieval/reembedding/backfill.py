"""The work of a re-embedding: documents are cut anew, if they are to be; what lacks a vector gets one, from the stored text; then its index
is made, and the gate asked.

Each call of the model is written down before the next one, so that whoever goes on after a `kill -9` repeats one call at most.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, final

import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import collection_store, cut_store, document_store, embedding_store, passage_store
from retrieval.access import EVERY, Caller
from retrieval.asking import Question, Result
from retrieval.collection_store import Collection
from retrieval.cutting import ANEW, EMBEDDED_AT_ONCE, passages_in
from retrieval.database import Database
from retrieval.embedding_store import Missing
from retrieval.errors import NotFound, Refused, RetrievalError
from retrieval.index.residents import Residents
from retrieval.ingestion import BACKOFF_S, MAX_WAIT_S
from retrieval.job_store import LeaseLost
from retrieval.ports import Embedder
from retrieval.reembedding import gate, moves, store
from retrieval.reembedding.record import Asked, Gate, Reembedding
from retrieval.reembedding.recut import Recut
from retrieval.search import Search

log = structlog.stdlib.get_logger(__name__)

READ_AT_ONCE: Final = 8 * EMBEDDED_AT_ONCE  # passages
SLICE_S: Final = 10.0  # then somebody else's is worked on, if there is one
POOL: Final = 50  # passages of which a question's files are taken

T = TypeVar("T")


@final
class Backfill:
    """One per process. `run` is for one re-embedding at a time."""

    def __init__(
        self, database: Database, embedder: Embedder, residents: Residents, search: Search, recut: Recut
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._residents = residents
        self._search = search
        self._recut = recut

    def require(self, model: str, payer: str) -> None:
        """Raises NotFound, Forbidden."""
        self._embedder.require(model, payer)

    def prompts(self, model: str) -> str | None:
        """How the model is told questions from passages now."""
        return self._embedder.prompts(model)

    def require_engine(self, engine: Any, *, apart: bool = False) -> None:
        """Raises BadRequest where a collection cannot have that engine here; `apart`: for each of its tenants."""
        self._residents.require(engine, apart=apart)

    async def run(self, mine: Reembedding) -> None:
        """For a while, or to its next state; then the lease is given back. Raises LeaseLost, SQLAlchemyError."""
        try:
            if await self._filled(mine, time.monotonic() + SLICE_S):
                await self._arrive(mine)
            else:
                await self._do(lambda tx: store.release(tx, mine))
        except Refused as refusal:
            await self._refused(mine, refusal)
        except NotFound:  # it fell behind, and is no more to be indexed; or it is gone, which this says
            await self._do(lambda tx: store.release(tx, mine))
        except RetrievalError as error:
            await self._do(partial(_failed, mine=mine, reason=error.message))

    def collect(self, over: Reembedding) -> None:
        """Blocks. Nothing is left of the version that nobody reads any more."""
        version = over.dropped.version
        while self._database.write(lambda tx: embedding_store.drop(tx, over.collection_id, version)):
            pass
        self._residents.drop_version(over.collection_id, version)
        if over.apart:
            self._collect_edition(over.collection_id, over.dropped.edition)
        self._database.write(lambda tx: store.put(tx, over.id, collected=True))
        log.info("reembedding.collected", reembedding=over.id, version=version)

    def _collect_edition(self, collection_id: str, edition: int) -> None:
        """Blocks."""
        for drop in (passage_store.drop, cut_store.drop):
            while self._database.write(lambda tx, drop=drop: drop(tx, collection_id, edition)):  # type: ignore[misc]
                pass
        self._residents.drop_edition(collection_id, edition)

    async def _filled(self, mine: Reembedding, until: float) -> bool:
        """Whether nothing is missing any more."""
        last = mine.cursor
        if not await self._recut.documents(mine, until):
            return False
        while True:
            some = await self._read(partial(_missing, mine=mine, after=last))
            for start in range(0, len(some), EMBEDDED_AT_ONCE):
                part = some[start : start + EMBEDDED_AT_ONCE]
                vectors = await self._embedded(mine, [each.text for each in part])
                await self._do(partial(_add, mine=mine, some=part, vectors=vectors))
                if time.monotonic() > until:
                    return False
            if some:
                last = some[-1].id
            elif await self._do(lambda tx: _whole(tx, mine)):
                return True
            else:  # what was published since, with ids that were given before, or is to be cut anew
                last = 0
                if not await self._recut.documents(mine, until):
                    return False

    async def _embedded(self, mine: Reembedding, texts: Sequence[str]) -> NDArray[Any]:
        return await passages_in(self._embedder, texts, mine.unread, mine.payer, ANEW)

    async def _arrive(self, mine: Reembedding) -> None:
        """All of it is there: its index is made, and before a swap the gate is asked."""
        now = await self._read(lambda tx: store.by_id(tx, mine.collection_id, mine.id))
        if now is None:
            raise LeaseLost
        await asyncio.to_thread(self._residents.maintain, now.collection_id, now.unread.version)
        verdict = now.verdict
        asked = now.terms.gate
        if now.state == "backfilling" and verdict is None and asked is not None:
            before, after = self._searches(now, asked, new=False), self._searches(now, asked, new=True)
            verdict = await gate.judged(asked, before, after, apart=now.apart)
        state = await self._do(lambda tx: _arrived(tx, mine, verdict))
        log.info("reembedding.arrived", reembedding=mine.id, state=state)

    def _searches(self, now: Reembedding, asked: Gate, *, new: bool) -> gate.Searches:
        """Searches in one of the versions, for somebody who may read everything, on the account of who pays."""
        caller = Caller(now.payer, labels=frozenset({EVERY}), granted=frozenset({now.collection_id}), account=ANEW)

        async def search(queries: Sequence[Asked]) -> Sequence[Sequence[Result]]:
            collection = await self._read(partial(_within, now=now, new=new))
            files = sorted({each.id for one in queries for each in one.relevant})
            whose = await self._read(lambda tx: document_store.tenants_of(tx, now.collection_id, files))
            found: list[Sequence[Result]] = []
            for start in range(0, len(queries), EMBEDDED_AT_ONCE):
                some = queries[start : start + EMBEDDED_AT_ONCE]
                whole = Question(tuple(each.query for each in some))
                vectors = await self._search.vectors(caller, collection, whole)
                lexical = 1.0 if asked.mode == "hybrid" else 0.0
                for number, each in enumerate(some):
                    # Asked of whoever has its answers: `moves` has seen to it that this is one tenant.
                    tenant = next((whose[one.id] for one in each.relevant if one.id in whose), None)
                    pool = max(POOL, asked.k) * (gate.DEEPER if now.apart else 1)
                    question = Question((each.query,), k=pool, lexical=lexical, tenant=tenant)
                    mine = vectors[number : number + 1]
                    found.append((await self._search.within(caller, collection, question, mine)).results)
            return found

        return search

    async def _refused(self, mine: Reembedding, refusal: Refused) -> None:
        """Limits and budgets are waited for; a model that fails, for a number of times; what stays as it is is the end."""
        counted = refusal.status >= 500
        attempts = mine.attempts + 1
        if not refusal.again or (counted and attempts >= mine.terms.max_attempts):
            await self._do(partial(_failed, mine=mine, reason=refusal.message))
            return
        wait_s = refusal.wait_s if refusal.wait_s is not None else BACKOFF_S * 2.0 ** (attempts - 1 if counted else 1)
        values = {"reason": refusal.message, **({"attempts": attempts} if counted else {})}
        await self._do(lambda tx: store.release(tx, mine, min(MAX_WAIT_S, wait_s), **values))
        log.info("reembedding.waits", reembedding=mine.id, wait_s=round(wait_s, 1))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.read, work)

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.write, work)


# Transactions. The collection is locked before its re-embedding: `store.hold` does it.


def _missing(tx: Connection, mine: Reembedding, after: int) -> Sequence[Missing]:
    unread = mine.unread
    return embedding_store.missing(tx, mine.collection_id, unread.version, after, READ_AT_ONCE, unread.edition)


def _add(tx: Connection, mine: Reembedding, some: Sequence[Missing], vectors: NDArray[Any]) -> None:
    now = store.hold(tx, mine)
    dimensions = store.learn(tx, now, vectors.shape[1])
    if dimensions != vectors.shape[1]:
        raise RetrievalError(
            f"The model '{now.unread.model}' gives {vectors.shape[1]} dimensions by now, and gave {dimensions}"
        )
    version, ids = now.unread.version, [each.id for each in some]
    left = set(embedding_store.still_missing(tx, now.collection_id, version, ids, now.unread.edition))
    made = {each.id: vector.tobytes() for each, vector in zip(some, vectors, strict=True) if each.id in left}
    embedding_store.add(tx, now.collection_id, version, made)
    store.put(tx, mine.id, cursor=some[-1].id, attempts=0, reason=None)


def _whole(tx: Connection, mine: Reembedding) -> bool:
    """Under the lock that publishing takes: if nothing is missing now, what is published later has both."""
    now = store.hold(tx, mine)
    id_, unread = now.collection_id, now.unread
    uncut = now.apart and cut_store.missing(tx, id_, unread.edition, 0, 1)
    if uncut or embedding_store.any_missing(tx, id_, unread.version, edition=unread.edition):
        store.put(tx, mine.id, cursor=0)
        return False
    store.put(tx, mine.id, behind=False, attempts=0)
    return True


def _arrived(tx: Connection, mine: Reembedding, verdict: Any) -> str:
    now = store.hold(tx, mine)
    if now.state != "backfilling" or now.behind:  # it fell behind again while its index was made
        store.release(tx, mine)
        return now.state
    passed = verdict is None or verdict.passed
    reason = None if passed else f"The quality gate failed: {verdict.reason}"
    store.release(tx, mine, state="ready", verdict=verdict, attempts=0, reason=reason)
    now = store.put(tx, mine.id)
    if passed and now.has_canary:
        collection_store.lend(tx, now.collection_id, now.canary)
        return store.put(tx, now.id, state="canary").state
    if passed and now.terms.auto:
        return moves.swap(tx, now).state
    return now.state


def _within(tx: Connection, now: Reembedding, *, new: bool) -> Collection:
    collection = collection_store.by_id(tx, now.collection_id)
    if collection is None:
        raise LeaseLost
    newest = store.by_id(tx, now.collection_id, now.id) or now
    return collection.within(newest.after) if new else collection


def _failed(tx: Connection, mine: Reembedding, reason: str) -> None:
    moves.fail(tx, store.hold(tx, mine), reason)
