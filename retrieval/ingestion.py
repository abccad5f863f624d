"""One document from its file to its passages: read → tell what changed → embed that → publish, by the process that has the job's lease.

Vectors are kept beside the document as they come, unpublished. A process that is killed leaves them to whoever goes on, who embeds only
what is still missing; then all of the document changes in one transaction.

A collection that is embedded anew gets vectors of both its versions, and where these are of two editions, passages of both. Where the one
that is not read cannot be had just now, the document does not wait for it: whoever works on the re-embedding makes up for it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar, final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import collection_store, cut_store, document_store, embedding_store, job_store, passage_store, quotas
from retrieval.changes import Changes, Fresh, changes
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection
from retrieval.cutting import ANEW, EMBEDDED_AT_ONCE, Cut, Cutter, Failure
from retrieval.database import Database, locked_for
from retrieval.document_store import Document
from retrieval.errors import QuotaExceeded, Refused, RetrievalError
from retrieval.job_store import Job, LeaseLost
from retrieval.passage_store import New
from retrieval.ports import Reading
from retrieval.quotas import Bounds, text_bytes
from retrieval.reembedding import store as reembeddings
from retrieval.reembedding.record import Reembedding
from retrieval.spaces import FIRST, Space

log = structlog.stdlib.get_logger(__name__)

MAX_ATTEMPTS: Final = 5
BACKOFF_S: Final = 2.0
MAX_WAIT_S: Final = 60.0

T = TypeVar("T")


class _Swapped(Exception):
    """The collection is read in another version by now."""


class _Work(msgspec.Struct, frozen=True):
    job: Job
    collection: Collection
    document: Document
    beside: Reembedding | None

    @property
    def cut(self) -> Cut:
        """In the version that is read."""
        return Cut(self.document, self.document.chunking, self.collection.space, self.job.payer, self.held)

    @property
    def apart(self) -> Reembedding | None:
        """What the document is cut for in another way, if it is."""
        there = self.beside
        return there if there is not None and there.unread.edition != self.collection.edition else None

    def held(self, tx: Connection) -> None:
        """With something of it done. Raises LeaseLost."""
        locked_for(tx, self.collection.id)
        job_store.went_on(tx, self.job)


class _Other(msgspec.Struct, frozen=True):
    """The document in the edition that is not read: all of it is prepared."""

    beside: Reembedding
    chunking: Chunking
    reading: Reading


@final
class Ingestion:
    """One per process. `run` may run for many jobs at a time."""

    def __init__(self, database: Database, cutter: Cutter, bounds: Bounds | None = None) -> None:
        self._database = database
        self._cutter = cutter
        self._bounds = bounds or Bounds()

    async def run(self, job: Job) -> None:
        """To its end, or to the next attempt. Raises LeaseLost, SQLAlchemyError."""
        work = await self._do(lambda tx: _found(tx, job))
        try:
            _require_attempts(job)
            await self._ingest(work)
        except Failure as failure:
            await self._do(partial(_failed, work=work, failure=failure))
            log.info("document.failed", document=work.document.id, code=failure.code)
        except Refused as refusal:
            await self._refused(work, refusal)
        except _Swapped:
            await self._later(work, 0.0, "The vector store was embedded anew meanwhile", counted=False)
        except RetrievalError as error:
            await self._do(partial(_failed, work=work, failure=Failure("server_error", error.message)))
        except OSError as error:
            reason = f"The file cannot be read: {error.strerror or error}"
            await self._later(work, BACKOFF_S * 2**job.attempts, reason, counted=True)

    async def _ingest(self, work: _Work) -> None:
        cut = work.cut
        reading, fingerprint = await self._cutter.read(cut)
        found = await self._do(lambda tx: _changes(tx, work, reading))
        dimensions = work.collection.dimensions
        await self._fits(work, reading, dimensions)  # before anything is paid for
        beside = None if work.apart is not None else work.beside
        for start in range(0, len(found.fresh), EMBEDDED_AT_ONCE):
            some = await self._cutter.situated(cut, reading.text, found.fresh[start : start + EMBEDDED_AT_ONCE])
            vectors = await self._cutter.embedded(cut, some)
            others = None if beside is None else await self._anew(work, beside, some)
            beside = None if others is None else beside  # once it fails, it is left to others
            dimensions = await self._do(partial(_prepare, work=work, some=some, vectors=vectors, others=others))
        await self._fits(work, reading, dimensions)
        usage_bytes = _usage(reading, dimensions)
        other = None if work.apart is None else await self._otherwise(work, work.apart, reading)
        await self._do(lambda tx: _publish(tx, work, reading, fingerprint, usage_bytes, other))
        log.info(
            "document.completed", document=work.document.id, passages=len(reading.chunks), embedded=len(found.fresh)
        )

    async def _anew(self, work: _Work, beside: Reembedding, some: Sequence[Fresh]) -> NDArray[np.float32] | None:
        """The same in the version that is not read, on its own account; None where that cannot be had at the first attempt."""
        cut = Cut(work.document, work.document.chunking, beside.unread, beside.payer, work.held, ANEW)
        try:
            return await self._cutter.embedded(cut, some)
        except RetrievalError as error:
            log.info("document.beside_missed", reembedding=beside.id, reason=error.message)
            return None

    async def _otherwise(self, work: _Work, beside: Reembedding, read: Reading) -> _Other | None:
        """The document as it is cut in the edition that is not read, prepared on that one's account; None as above."""
        chunking = await asyncio.to_thread(
            self._database.read, lambda tx: reembeddings.chunking_of(tx, beside, work.document)
        )
        cut = Cut(work.document, chunking, beside.unread, beside.payer, work.held, ANEW)
        try:
            reading, _ = await self._cutter.read(cut)
            found = await self._do(lambda tx: _changes_beside(tx, work, cut, read, reading, self._bounds))
            for start in range(0, len(found.fresh), EMBEDDED_AT_ONCE):
                part = found.fresh[start : start + EMBEDDED_AT_ONCE]
                some = await self._cutter.situated(cut, reading.text, part)
                vectors = await self._cutter.embedded(cut, some)
                await self._do(partial(_prepare_beside, work=work, some=some, vectors=vectors))
        except (RetrievalError, Failure, OSError) as error:
            log.info("document.beside_missed", reembedding=beside.id, reason=str(error))
            return None
        return _Other(beside, chunking, reading)

    async def _fits(self, work: _Work, reading: Reading, dimensions: int | None) -> None:
        """Raises Failure."""
        passages, size = len(reading.chunks), _usage(reading, dimensions)

        def work_(tx: Connection) -> None:
            collection = collection_store.by_id(tx, work.collection.id) or work.collection
            quotas.require(tx, collection, self._bounds, passages, size, work.document.id)

        try:
            await asyncio.to_thread(self._database.read, work_)
        except QuotaExceeded as error:
            raise Failure("server_error", error.message) from None

    async def _refused(self, work: _Work, refusal: Refused) -> None:
        """What may work later is waited for, however long; what will not is the document's end."""
        if not refusal.again:
            await self._do(partial(_failed, work=work, failure=Failure("server_error", refusal.message)))
            return
        patience = work.job.attempts if refusal.status >= 500 else 1
        wait_s = refusal.wait_s if refusal.wait_s is not None else min(MAX_WAIT_S, BACKOFF_S * 2.0**patience)
        await self._later(work, wait_s, refusal.message, counted=refusal.status >= 500)

    async def _later(self, work: _Work, wait_s: float, note: str, *, counted: bool) -> None:
        await self._do(lambda tx: job_store.later(tx, work.job, min(MAX_WAIT_S, wait_s), note, counted=counted))
        log.info("document.waits", document=work.document.id, wait_s=round(wait_s, 1))

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.write, work)


def _usage(reading: Reading, dimensions: int | None) -> int:
    return text_bytes(reading.text) + 4 * (dimensions or 0) * len(reading.chunks)


def _require_attempts(job: Job) -> None:
    if job.attempts > MAX_ATTEMPTS:
        raise Failure("server_error", job.note or f"The server ended {MAX_ATTEMPTS} times while it read this file")


# Transactions. The collection is locked before the job, here as wherever documents change, so that none waits for the other.


def _found(tx: Connection, job: Job) -> _Work:
    locked_for(tx, job.collection_id)
    job_store.hold(tx, job)
    collection = collection_store.by_id(tx, job.collection_id)
    document = document_store.by_id(tx, job.document_id)
    if collection is None or document is None:
        raise LeaseLost
    return _Work(job, collection, document, reembeddings.beside(tx, collection.id))


def _changes(tx: Connection, work: _Work, reading: Reading) -> Changes:
    return _differing(tx, work, work.collection.space, work.document.chunking, reading)


def _changes_beside(tx: Connection, work: _Work, cut: Cut, read: Reading, reading: Reading, bounds: Bounds) -> Changes:
    """In the edition that is not read, before anything is paid for. `read`: as it is read. Raises Failure, QuotaExceeded."""
    if reading.text != read.text:
        raise Failure("server_error", "The file reads differently a second time")
    quotas.require_apart(tx, work.collection, bounds, cut.space, reading, work.document.id)
    return _differing(tx, work, cut.space, cut.chunking, reading)


def _differing(tx: Connection, work: _Work, space: Space, chunking: Chunking, reading: Reading) -> Changes:
    id_ = work.document.id
    prepared = passage_store.prepared(tx, id_, work.collection.id, space.version, space.edition)
    published = passage_store.published(tx, id_, space.edition)
    return changes(reading.chunks, published, prepared, chunking.context_model)


def _require_version(tx: Connection, work: _Work) -> None:
    """What was embedded is of the version that is read. Raises LeaseLost, _Swapped."""
    collection = collection_store.by_id(tx, work.collection.id)
    if collection is None:
        raise LeaseLost
    if collection.version != work.collection.version:
        raise _Swapped


def _prepare(
    tx: Connection,
    work: _Work,
    some: Sequence[Fresh],
    vectors: NDArray[np.float32],
    others: NDArray[np.float32] | None,
) -> int:
    work.held(tx)
    _require_version(tx, work)
    dimensions = collection_store.learn_dimensions(tx, work.collection.id, vectors.shape[1])
    if dimensions != vectors.shape[1]:
        raise Failure(
            "server_error",
            f"The embedding model gives {vectors.shape[1]} dimensions, and this vector store has {dimensions}",
        )
    new = [
        New(each.ordinal, each.hash, each.chunk, vector.tobytes(), each.context)
        for each, vector in zip(some, vectors, strict=True)
    ]
    version, edition = work.collection.version, work.collection.edition
    ids = passage_store.prepare(tx, work.collection.id, work.document.id, new, version, edition)
    if others is not None:
        _add_beside(tx, work, dict(zip(ids, others, strict=True)))
    return dimensions


def _add_beside(tx: Connection, work: _Work, vectors: Mapping[int, NDArray[np.float32]]) -> None:
    """Of the version that is not read, if it is the same still. Those that do not fit are missed by who works on it, and told there."""
    found, meant = reembeddings.beside(tx, work.collection.id), work.beside
    if found is None or meant is None or found.unread.version != meant.unread.version:
        return
    dimensions = reembeddings.learn(tx, found, len(next(iter(vectors.values()))))
    fitting = {id_: vector.tobytes() for id_, vector in vectors.items() if len(vector) == dimensions}
    embedding_store.add(tx, work.collection.id, found.unread.version, fitting)


def _prepare_beside(tx: Connection, work: _Work, some: Sequence[Fresh], vectors: NDArray[np.float32]) -> None:
    """In the edition that is not read, if it is the same still: else it is missed, as below."""
    work.held(tx)
    found, meant = reembeddings.beside(tx, work.collection.id), work.beside
    if found is None or meant is None or found.unread.version != meant.unread.version:
        return
    space = found.unread
    fits = reembeddings.learn(tx, found, vectors.shape[1]) == vectors.shape[1]
    rows = [vector.tobytes() if fits else embedding_store.NOTHING for vector in vectors]
    new = [New(each.ordinal, each.hash, each.chunk, row, each.context) for each, row in zip(some, rows, strict=True)]
    passage_store.prepare(
        tx, work.collection.id, work.document.id, new, space.version if fits else FIRST, space.edition
    )


def _publish(
    tx: Connection, work: _Work, reading: Reading, fingerprint: str, usage_bytes: int, other: _Other | None
) -> None:
    locked_for(tx, work.collection.id)
    job_store.finish(tx, work.job)
    _require_version(tx, work)
    found = _changes(tx, work, reading)
    assert not found.fresh, "all of them were prepared under this lease"
    id_, edition = work.document.id, work.collection.edition
    beside = reembeddings.beside(tx, work.collection.id)
    unread = edition if beside is None else beside.unread.edition
    generation = collection_store.next_generation(tx, work.collection.id)
    passage_store.replace(tx, id_, generation, found.placed, found.gone, edition)
    elsewhere = None
    if beside is not None and other is not None and unread != edition:
        elsewhere = _publish_beside(tx, work, beside, generation, fingerprint, other)
    gone = [*found.gone, *(elsewhere or ())]
    if gone:
        passage_store.record_removal(tx, work.collection.id, generation, gone)
    passage_store.forget_unpublished(tx, id_, but={edition, unread})
    cut_store.outdate(tx, id_, but=None if elsewhere is None else unread)
    document_store.complete(
        tx,
        work.document,
        generation,
        fingerprint=fingerprint,
        text=reading.text,
        usage_bytes=usage_bytes,
        passages=len(reading.chunks),
    )
    if beside is not None and not beside.behind:
        _miss(tx, work, beside, cut=unread == edition or elsewhere is not None)


def _publish_beside(
    tx: Connection, work: _Work, beside: Reembedding, generation: int, fingerprint: str, other: _Other
) -> Sequence[int] | None:
    """The document in the edition that is not read, with the same change. What is gone of it; None where it has to be made up for."""
    space = beside.unread
    if other.beside.unread.version != space.version:
        return None
    changed = _differing(tx, work, space, other.chunking, other.reading)
    if changed.fresh:
        return None
    passage_store.replace(tx, work.document.id, generation, changed.placed, changed.gone, space.edition)
    cut_store.complete(
        tx,
        work.document.id,
        space.edition,
        chunking=other.chunking,
        fingerprint=fingerprint,
        passages=len(other.reading.chunks),
    )
    return changed.gone


def _miss(tx: Connection, work: _Work, beside: Reembedding, *, cut: bool) -> None:
    """Whether the version that is not read has all of the document, or is behind from here on."""
    space = beside.unread
    if not cut:
        reembeddings.fell_behind(tx, beside, "A document could not be cut anew at once: it is made up for")
    elif embedding_store.any_missing(tx, work.collection.id, space.version, work.document.id, space.edition):
        reason = f"The model '{space.model}' gave no vectors for a document: they are made up for"
        reembeddings.fell_behind(tx, beside, reason)


def _failed(tx: Connection, work: _Work, failure: Failure) -> None:
    """What was found of the document before is found still."""
    locked_for(tx, work.collection.id)
    job_store.finish(tx, work.job)
    passage_store.forget_unpublished(tx, work.document.id)
    document_store.end(tx, work.document, "failed", code=failure.code, message=failure.message)
