"""One document from its file to its passages: read → tell what changed → embed that → publish, by the process that has the job's lease.

Vectors are kept beside the document as they come, unpublished. A process that is killed leaves them to whoever goes on, who embeds only
what is still missing; then all of the document changes in one transaction.

A collection that is embedded anew gets vectors of both its versions. Where the one that is not read cannot be had just now, the document
does not wait for it: whoever works on the re-embedding makes up for it.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite, sqrt
from pathlib import Path
from typing import Final, TypeVar, final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import collection_store, document_store, embedding_store, job_store, passage_store, quotas
from retrieval.access import Account, Caller
from retrieval.changes import Changes, Fresh, changes
from retrieval.chunking.context import contexts, shortened
from retrieval.chunking.semantic import Progress
from retrieval.chunking_strategy import CONTEXT_TOKENS, context_tokens
from retrieval.collection_store import Collection
from retrieval.database import Database, locked_for
from retrieval.document_store import Document
from retrieval.errors import QuotaExceeded, Refused, RetrievalError, Unavailable
from retrieval.job_store import Job, LeaseLost
from retrieval.passage_store import New
from retrieval.ports import Embedder, Meaning, Reader, Reading, Sources, Unreadable, Writer
from retrieval.quotas import Bounds
from retrieval.reembedding import store as reembeddings
from retrieval.reembedding.record import Reembedding
from retrieval.spaces import Space

log = structlog.stdlib.get_logger(__name__)

EMBEDDED_AT_ONCE: Final = 64  # texts of one call
MAX_ATTEMPTS: Final = 5
UNIT_WITHIN: Final = 1e-6  # what 32 bits leave over of a length of 1, squared
MAX_PASSAGES: Final = 200_000
SITUATED_AT_ONCE: Final = 16  # passages of whose contexts are written down together
BEGUN: Final = 64  # documents of which is known how far they are, without passages
BACKOFF_S: Final = 2.0
MAX_WAIT_S: Final = 60.0
ANEW: Final = Account(tags=("reembedding",))  # how vectors of the version are booked that is not read

T = TypeVar("T")

_REASONING: Final = f"One that reasons has used up the {CONTEXT_TOKENS} tokens of its answer: choose another"
_SURROGATES = re.compile("[\ud800-\udfff]")


class _Failure(Exception):
    """The document cannot be had: for its own fault, or for one that stays. `code` as OpenAI's `last_error` has it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Swapped(Exception):
    """The collection is read in another version by now."""


class _Work(msgspec.Struct, frozen=True):
    job: Job
    collection: Collection
    document: Document
    beside: Reembedding | None


@final
class Ingestion:
    """One per process. `run` may run for many jobs at a time."""

    def __init__(
        self,
        database: Database,
        sources: Sources,
        reader: Reader,
        embedder: Embedder,
        bounds: Bounds | None = None,
        writer: Writer | None = None,
    ) -> None:
        self._database = database
        self._sources = sources
        self._reader = reader
        self._embedder = embedder
        self._bounds = bounds or Bounds()
        self._writer = writer
        self._begun: dict[tuple[int, str, str, int | None, str | None], Progress] = {}  # the last one is the newest

    async def run(self, job: Job) -> None:
        """To its end, or to the next attempt. Raises LeaseLost, SQLAlchemyError."""
        work = await self._do(lambda tx: _found(tx, job))
        try:
            _require_attempts(job)
            await self._ingest(work)
        except _Failure as failure:
            await self._do(partial(_failed, work=work, failure=failure))
            log.info("document.failed", document=work.document.id, code=failure.code)
        except Refused as refusal:
            await self._refused(work, refusal)
        except _Swapped:
            await self._later(work, 0.0, "The vector store was embedded anew meanwhile", counted=False)
        except RetrievalError as error:
            await self._do(partial(_failed, work=work, failure=_Failure("server_error", error.message)))
        except OSError as error:
            reason = f"The file cannot be read: {error.strerror or error}"
            await self._later(work, BACKOFF_S * 2**job.attempts, reason, counted=True)

    async def _ingest(self, work: _Work) -> None:
        reading, fingerprint = await self._reading(work)
        found = await self._do(lambda tx: _changes(tx, work, reading))
        dimensions = work.collection.dimensions
        await self._fits(work, reading, dimensions)  # before anything is paid for
        beside = work.beside
        for start in range(0, len(found.fresh), EMBEDDED_AT_ONCE):
            some = await self._situated(work, reading.text, found.fresh[start : start + EMBEDDED_AT_ONCE])
            vectors = await self._embedded(work, some)
            others = None if beside is None else await self._anew(beside, some)
            beside = None if others is None else beside  # once it fails, it is left to others
            dimensions = await self._do(partial(_prepare, work=work, some=some, vectors=vectors, others=others))
        await self._fits(work, reading, dimensions)
        usage_bytes = _usage(reading, dimensions)
        await self._do(lambda tx: _publish(tx, work, reading, fingerprint, usage_bytes))
        log.info(
            "document.completed", document=work.document.id, passages=len(reading.chunks), embedded=len(found.fresh)
        )

    async def _reading(self, work: _Work) -> tuple[Reading, str]:
        """The document as passages, and a fingerprint of its file."""
        document = work.document
        source = await asyncio.to_thread(self._sources.open, document.source_id)
        if source is None:
            raise _Failure("invalid_file", "The file is not there any more")
        try:
            fingerprint = await asyncio.to_thread(_fingerprint, source.path)
            meaning = self._meaning(work, fingerprint)
            reading = await self._reader.read(source.path, document.filename, document.chunking, meaning)
        except FileNotFoundError:
            raise _Failure("invalid_file", "The content of the file is gone from the server's folder") from None
        except Unreadable as error:
            raise _Failure(error.code, error.message) from None
        if len(reading.chunks) > MAX_PASSAGES:
            raise _Failure("invalid_file", f"The file has more than {MAX_PASSAGES:,} passages: split it")
        return storable(reading), fingerprint

    def _meaning(self, work: _Work, fingerprint: str) -> Meaning:
        into = work.collection.space
        place = work.document.id, fingerprint, into.model, into.cut, into.prompts
        progress = self._begun[place] = self._begun.pop(place, Progress())
        if len(self._begun) > BEGUN:
            del self._begun[next(iter(self._begun))]

        async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            return list(await passages_in(self._embedder, texts, into, work.job.payer))

        return Meaning(embed, progress)

    async def _situated(self, work: _Work, text: str, some: Sequence[Fresh]) -> Sequence[Fresh]:
        """With what a model says of each one's place in the document, if one is to, on the account of who added it.

        It is written down as it comes: whoever goes on asks for none of it again, whatever became of the vectors.
        """
        model = work.document.chunking.context_model
        if model is None:
            return some
        hashes, document_id = {each.hash for each in some}, work.document.id
        known = dict(
            await asyncio.to_thread(self._database.read, lambda tx: passage_store.said(tx, document_id, hashes))
        )
        unknown = {each.hash: each for each in some if each.hash not in known}  # what is there twice is asked for once
        asked = list(unknown.values())
        for start in range(0, len(asked), SITUATED_AT_ONCE):
            told = await self._told(work, text, asked[start : start + SITUATED_AT_ONCE], model)
            known |= {each.hash: each.context for each in told}
        return [msgspec.structs.replace(each, context=known[each.hash]) for each in some]

    async def _told(self, work: _Work, text: str, some: Sequence[Fresh], model: str) -> Sequence[Fresh]:
        if self._writer is None:
            raise Unavailable("No chat model is to be had here, and passages are to have a context by one")
        writer, payer = self._writer, Caller(work.job.payer)
        most = context_tokens(self._embedder.window(work.collection.space.model))

        async def ask(document: str, question: str) -> str:
            return await writer.write(document, question, model, payer, CONTEXT_TOKENS, aside=True)

        said, refusal = await contexts(text, [each.chunk for each in some], ask)
        pairs = ((each, answer) for each, answer in zip(some, said, strict=True) if answer is not None)
        told = [msgspec.structs.replace(each, context=shortened(_clean(answer), most)) for each, answer in pairs]
        if told:
            await self._do(partial(_said, work=work, told=told))
        if refusal is not None:
            raise refusal
        if not any(each.context for each in told):
            raise _Failure("server_error", f"The model '{model}' said nothing about {len(told)} passages. {_REASONING}")
        return told

    async def _embedded(self, work: _Work, some: Sequence[Fresh]) -> NDArray[np.float32]:
        """Each of length 1."""
        return await passages_in(self._embedder, _texts(some), work.collection.space, work.job.payer)

    async def _anew(self, beside: Reembedding, some: Sequence[Fresh]) -> NDArray[np.float32] | None:
        """The same in the version that is not read, on its own account; None where that cannot be had at the first attempt."""
        try:
            return await passages_in(self._embedder, _texts(some), beside.unread, beside.payer, ANEW)
        except RetrievalError as error:
            log.info("document.beside_missed", reembedding=beside.id, reason=error.message)
            return None

    async def _fits(self, work: _Work, reading: Reading, dimensions: int | None) -> None:
        """Raises _Failure."""
        passages, size = len(reading.chunks), _usage(reading, dimensions)

        def work_(tx: Connection) -> None:
            collection = collection_store.by_id(tx, work.collection.id) or work.collection
            quotas.require(tx, collection, self._bounds, passages, size, work.document.id)

        try:
            await asyncio.to_thread(self._database.read, work_)
        except QuotaExceeded as error:
            raise _Failure("server_error", error.message) from None

    async def _refused(self, work: _Work, refusal: Refused) -> None:
        """What may work later is waited for, however long; what will not is the document's end."""
        if not refusal.again:
            await self._do(partial(_failed, work=work, failure=_Failure("server_error", refusal.message)))
            return
        patience = work.job.attempts if refusal.status >= 500 else 1
        wait_s = refusal.wait_s if refusal.wait_s is not None else min(MAX_WAIT_S, BACKOFF_S * 2.0**patience)
        await self._later(work, wait_s, refusal.message, counted=refusal.status >= 500)

    async def _later(self, work: _Work, wait_s: float, note: str, *, counted: bool) -> None:
        await self._do(lambda tx: job_store.later(tx, work.job, min(MAX_WAIT_S, wait_s), note, counted=counted))
        log.info("document.waits", document=work.document.id, wait_s=round(wait_s, 1))

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.write, work)


def _texts(some: Sequence[Fresh]) -> list[str]:
    return [embedding_store.embedded(each.chunk.heading, each.context, each.chunk.text) for each in some]


def _usage(reading: Reading, dimensions: int | None) -> int:
    return len(reading.text.encode("utf-8", "surrogatepass")) + 4 * (dimensions or 0) * len(reading.chunks)


def storable(reading: Reading) -> Reading:
    """Without what no database takes as text, and with every character where it was."""
    if _clean(reading.text) is reading.text:
        return reading
    chunks = [msgspec.structs.replace(each, text=_clean(each.text)) for each in reading.chunks]
    return Reading(_clean(reading.text), chunks)


def _clean(text: str) -> str:
    cleaned = text.replace("\0", "\ufffd")
    if cleaned.isascii():
        return text if cleaned == text else cleaned
    cleaned = _SURROGATES.sub("\ufffd", cleaned)
    return text if cleaned == text else cleaned


def _require_attempts(job: Job) -> None:
    if job.attempts > MAX_ATTEMPTS:
        raise _Failure("server_error", job.note or f"The server ended {MAX_ATTEMPTS} times while it read this file")


async def passages_in(
    embedder: Embedder, texts: Sequence[str], into: Space, payer: str, account: Account | None = None
) -> NDArray[np.float32]:
    """As that version of a store's vectors has passages, each of length 1; nobody waits for them. Raises Refused."""
    made = await embedder.embed(
        texts,
        into.model,
        payer,
        aside=True,
        account=account,
        dimensions=into.cut,
        role="passage",
        prompts=into.prompts,
    )
    return normalised(made, len(texts))


def normalised(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Each of length 1. Raises Refused for what is no set of vectors."""
    if vectors.ndim == 2 and len(vectors) == count == 1:  # a search's: a tenth of the time
        square = float(vectors[0].dot(vectors[0]))
        if abs(square - 1) < UNIT_WITHIN and vectors.dtype == np.float32:
            return vectors
        if isfinite(square) and square > 0:
            one: NDArray[np.float32] = (vectors / np.float32(sqrt(square))).astype("<f4", copy=False)
            return one
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise Refused(
            502, "The embedding model answered with something that is no vector for each text", "upstream_error", None
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype("<f4")
    return unit


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
    document, collection = work.document, work.collection
    prepared = passage_store.prepared(tx, document.id, collection.id, collection.version)
    published = passage_store.published(tx, document.id)
    return changes(reading.chunks, published, prepared, document.chunking.context_model)


def _require_version(tx: Connection, work: _Work) -> None:
    """What was embedded is of the version that is read. Raises LeaseLost, _Swapped."""
    collection = collection_store.by_id(tx, work.collection.id)
    if collection is None:
        raise LeaseLost
    if collection.version != work.collection.version:
        raise _Swapped


def _said(tx: Connection, work: _Work, told: Sequence[Fresh]) -> None:
    """Without vectors, for `passage_store.said`."""
    locked_for(tx, work.collection.id)
    job_store.went_on(tx, work.job)
    new = [New(each.ordinal, each.hash, each.chunk, embedding_store.NOTHING, each.context) for each in told]
    passage_store.prepare(tx, work.collection.id, work.document.id, new)


def _prepare(
    tx: Connection,
    work: _Work,
    some: Sequence[Fresh],
    vectors: NDArray[np.float32],
    others: NDArray[np.float32] | None,
) -> int:
    locked_for(tx, work.collection.id)
    job_store.went_on(tx, work.job)
    _require_version(tx, work)
    dimensions = collection_store.learn_dimensions(tx, work.collection.id, vectors.shape[1])
    if dimensions != vectors.shape[1]:
        raise _Failure(
            "server_error",
            f"The embedding model gives {vectors.shape[1]} dimensions, and this vector store has {dimensions}",
        )
    new = [
        New(each.ordinal, each.hash, each.chunk, vector.tobytes(), each.context)
        for each, vector in zip(some, vectors, strict=True)
    ]
    ids = passage_store.prepare(tx, work.collection.id, work.document.id, new, work.collection.version)
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


def _miss(tx: Connection, work: _Work) -> None:
    """Whether the version that is not read has all of the document."""
    found = reembeddings.beside(tx, work.collection.id)
    if found is None or found.behind:
        return
    if embedding_store.any_missing(tx, work.collection.id, found.unread.version, work.document.id):
        reason = f"The model '{found.unread.model}' gave no vectors for a document: they are made up for"
        reembeddings.fell_behind(tx, found, reason)


def _publish(tx: Connection, work: _Work, reading: Reading, fingerprint: str, usage_bytes: int) -> None:
    locked_for(tx, work.collection.id)
    job_store.finish(tx, work.job)
    _require_version(tx, work)
    found = _changes(tx, work, reading)
    assert not found.fresh, "all of them were prepared under this lease"
    generation = collection_store.next_generation(tx, work.collection.id)
    passage_store.publish(tx, work.collection.id, work.document.id, generation, found.placed, found.gone)
    document_store.complete(
        tx,
        work.document,
        generation,
        fingerprint=fingerprint,
        text=reading.text,
        usage_bytes=usage_bytes,
        passages=len(reading.chunks),
    )
    _miss(tx, work)


def _failed(tx: Connection, work: _Work, failure: _Failure) -> None:
    """What was found of the document before is found still."""
    locked_for(tx, work.collection.id)
    job_store.finish(tx, work.job)
    passage_store.forget_unpublished(tx, work.document.id)
    document_store.end(tx, work.document, "failed", code=failure.code, message=failure.message)


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
