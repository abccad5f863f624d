"""What can be asked of this plane: collections, their documents and batches, and searches. Every answer is the truth of one transaction."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, final

import msgspec
import numpy as np
from sqlalchemy import Connection

from retrieval import (
    batch_store,
    collection_store,
    document_store,
    job_store,
    passage_store,
    removal,
)
from retrieval.access import Caller, require_held
from retrieval.asking import Question, Rerank, Results, Seen, Tenant, Wanted
from retrieval.batch_store import FileBatch
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Change, Collection, NewCollection, Order
from retrieval.cutting import Cutter
from retrieval.database import Database, locked_for
from retrieval.document_store import Document, Partition, PutOff, Status, Value
from retrieval.errors import BadRequest, NotFound
from retrieval.expansion import standalone
from retrieval.index.advice import Advice
from retrieval.index.audit import Checks
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineSettings
from retrieval.ingestion import Ingestion
from retrieval.inquiry import Inquiry
from retrieval.intake import Intake
from retrieval.job_store import Job
from retrieval.paging import Page
from retrieval.passage_store import Found
from retrieval.ports import Embedder, Ranker, Reader, Source, Sources, Writer
from retrieval.quotas import Bounds
from retrieval.reembedding.backfill import Backfill
from retrieval.reembedding.recut import Recut
from retrieval.sampling import Asked, Sampled, drawn, drawn_from, nobody
from retrieval.search import Search
from retrieval.tenancy import bound, of_document, require_whole

T = TypeVar("T")


@final
class Retrieval:
    """One per process; it is a `retrieval.runner.Worker` as well, and its `backfill` one of re-embeddings.

    `changed` is told of collections with something new to do,
    `searched` which was searched, for how many seconds, and whether it `found` something, was `empty` or `failed`.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        sources: Sources,
        reader: Reader,
        embedder: Embedder,
        *,
        changed: Callable[[str], None],
        memory_bytes: int,
        searched: Callable[[str, float, str], None] = lambda _id, _seconds, _outcome: None,
        engines: EngineSettings | None = None,
        bounds: Bounds | None = None,
        ranker: Ranker | None = None,
        writer: Writer | None = None,
        asked: Asked | None = None,
    ) -> None:
        self._database = database
        self._sources = sources
        self._reader = reader
        self._embedder = embedder
        self._changed = changed
        self._advising = asyncio.Lock()
        bounds = bounds or Bounds()
        self._intake = Intake(embedder, writer, bounds)
        self._residents = Residents(database, folder, memory_bytes, engines=engines)
        cutter = Cutter(database, sources, reader, embedder, writer)
        self._ingestion = Ingestion(database, cutter, bounds)
        self._search = Search(database, self._residents, embedder, asked=asked or nobody)
        self._searched = searched
        self._writer = writer
        self._inquiry = Inquiry(database, self._search, ranker, writer)
        self.backfill = Backfill(database, embedder, self._residents, self._search, Recut(database, cutter, bounds))

    # Collections

    async def create(self, caller: Caller, new: NewCollection, files: Sequence[Wanted] = ()) -> Seen:
        """With files in it from its first moment, or not at all; a model '' is the usual one.

        Raises BadRequest, NotFound, Forbidden, and whatever the model's owner raises.
        """
        model = new.model or self._embedder.default()
        if model is None:
            raise BadRequest(
                "There is no model to embed with: name one, or set retrieval.embedding_model", code="no_embedding_model"
            )
        self._embedder.require(model, caller.key_id)
        self._residents.require(new.engine, apart=new.tenancy is not None)
        new = msgspec.structs.replace(new, model=model, prompts=self._embedder.prompts(model))
        sources = await self._found(caller, files)

        def work(tx: Connection) -> Collection:
            made = collection_store.create(tx, caller, new)
            self._intake.attach(tx, caller, made, files, sources)
            return made

        made = await self._write(work)
        if files:
            self._changed(made.id)
        return await self.get(caller, made.id)

    async def get(self, caller: Caller, id_: str) -> Seen:
        """Raises NotFound."""
        return await self._read(lambda tx: _seen(tx, [collection_store.get(tx, caller, id_)])[0])

    async def named(self, caller: Caller, name: str) -> Seen | None:
        def work(tx: Connection) -> Seen | None:
            found = collection_store.named(tx, caller, name)
            return None if found is None else _seen(tx, [found])[0]

        return await self._read(work)

    async def listed(
        self, caller: Caller, limit: int, *, after: str | None, before: str | None, order: Order
    ) -> Page[Seen]:
        def work(tx: Connection) -> Page[Seen]:
            found = collection_store.listed(tx, caller, limit, after=after, before=before, order=order)
            return Page(tuple(_seen(tx, found.data)), found.has_more)

        return await self._read(work)

    async def change(self, caller: Caller, id_: str, wanted: Change) -> Seen:
        """Raises NotFound, BadRequest, Forbidden."""

        def work(tx: Connection) -> Seen:
            require_whole(collection_store.get(tx, caller, id_).tenancy, caller)
            return _seen(tx, [collection_store.change(tx, caller, id_, wanted)])[0]

        return await self._write(work)

    async def delete(self, caller: Caller, id_: str) -> None:
        """At once for everybody. Nothing of it is left when this returns. Raises NotFound, Forbidden."""

        def work(tx: Connection) -> None:
            require_whole(collection_store.get(tx, caller, id_).tenancy, caller)
            collection_store.hide(tx, caller, id_)

        await self._write(work)
        await asyncio.to_thread(removal.purge, self._database, id_)
        await asyncio.to_thread(self._residents.drop, id_)

    # Documents

    async def attach(self, caller: Caller, id_: str, wanted: Wanted) -> Document:
        """Accepted is durable: it is read whatever happens to this process. Raises NotFound, Expired, Forbidden, BadRequest."""
        sources = await self._found(caller, [wanted])

        def work(tx: Connection) -> Document:
            locked_for(tx, id_)  # before its row is: who publishes takes them in this order
            collection = collection_store.alive(tx, caller, id_)
            collection_store.touch(tx, collection)
            return self._intake.attach(tx, caller, collection, [wanted], sources)[0]

        document = await self._write(work)
        self._changed(id_)
        return document

    async def document(self, caller: Caller, id_: str, file_id: str) -> Document:
        """Raises NotFound."""

        def work(tx: Connection) -> Document:
            found = document_store.get(tx, caller, collection_store.get(tx, caller, id_), file_id)
            return _told(tx, [found])[0]

        return await self._read(work)

    async def documents(
        self,
        caller: Caller,
        id_: str,
        limit: int,
        *,
        after: str | None,
        before: str | None,
        order: Order,
        status: Status | None,
        batch_id: str | None = None,
    ) -> Page[Document]:
        """Raises NotFound."""

        def work(tx: Connection) -> Page[Document]:
            collection = collection_store.get(tx, caller, id_)
            if batch_id is not None:
                batch_store.get(tx, caller, collection, batch_id)
            found = document_store.listed(
                tx,
                caller,
                collection,
                limit,
                after=after,
                before=before,
                order=order,
                status=status,
                batch_id=batch_id,
            )
            return Page(_told(tx, found.data), found.has_more)

        return await self._read(work)

    async def describe(
        self, caller: Caller, id_: str, file_id: str, attributes: Mapping[str, Value], labels: Sequence[str] | None
    ) -> Document:
        """Other attributes, and other labels unless they are None. Raises NotFound, Forbidden, BadRequest."""

        def work(tx: Connection) -> Document:
            collection = collection_store.get(tx, caller, id_)
            document = document_store.get(tx, caller, collection, file_id)
            tenant = of_document(collection.tenancy, attributes, caller)
            if labels is not None:
                require_held(caller, labels)
                document_store.relabel(tx, document, labels)
            return document_store.describe(tx, document, attributes, tenant)

        described = await self._write(work)
        if described.tenant is not None:  # it may have moved
            self._changed(id_)
        return described

    async def detach(self, caller: Caller, id_: str, file_id: str) -> None:
        """Out of the collection; the file stays. Raises NotFound."""

        def work(tx: Connection) -> None:
            collection = collection_store.get(tx, caller, id_)
            document_store.remove(tx, document_store.get(tx, caller, collection, file_id))

        await self._write(work)
        self._changed(id_)

    async def passages(self, caller: Caller, id_: str, file_id: str, limit: int, after: int) -> Sequence[Found]:
        """By their order in the document. Raises NotFound."""

        def work(tx: Connection) -> Sequence[Found]:
            collection = collection_store.get(tx, caller, id_)
            document = document_store.get(tx, caller, collection, file_id)
            edition = collection.read_by(caller.key_id).edition
            return passage_store.of_document(tx, document.id, limit, after, edition)

        return await self._read(work)

    async def text(self, caller: Caller, id_: str, file_id: str) -> str:
        """As it was read. Raises NotFound."""

        def work(tx: Connection) -> str:
            document = document_store.get(tx, caller, collection_store.get(tx, caller, id_), file_id)
            return document_store.text_of(tx, document.id)

        return await self._read(work)

    # Tenants

    async def tenants(self, caller: Caller, id_: str, limit: int, after: str | None) -> Page[Tenant]:
        """By name; a key that is bound to one is shown that one. Raises NotFound, BadRequest."""

        def work(tx: Connection) -> tuple[Collection, Sequence[Partition]]:
            collection = _declared(collection_store.get(tx, caller, id_))
            return collection, document_store.partitions(tx, id_, limit + 1, after=after, tenant=caller.tenant)

        def look() -> Page[Tenant]:
            collection, found = self._database.read(work)
            shown = [Tenant(each, self._residents.promoted(collection, each.tenant)) for each in found[:limit]]
            return Page(tuple(shown), len(found) > limit)

        return await asyncio.to_thread(look)

    async def remove_tenant(self, caller: Caller, id_: str, tenant: str) -> int:
        """All its documents, at once and for good: how many. Raises NotFound, BadRequest."""

        def work(tx: Connection) -> int:
            locked_for(tx, id_)  # before its row is: who publishes takes them in this order
            _declared(collection_store.get(tx, caller, id_))
            mine = bound(tenant) and caller.tenant in (None, tenant)
            gone = document_store.remove_tenant(tx, id_, tenant) if mine else 0
            if not gone:
                raise NotFound(f"No tenant '{tenant}' in vector store '{id_}'", param="tenant", code="tenant_not_found")
            return gone

        gone = await self._write(work)
        self._changed(id_)
        return gone

    # Batches

    async def add_batch(self, caller: Caller, id_: str, files: Sequence[Wanted]) -> FileBatch:
        """Raises NotFound, Expired, Forbidden, BadRequest."""
        sources = await self._found(caller, files)

        def work(tx: Connection) -> FileBatch:
            locked_for(tx, id_)  # before its row is: who publishes takes them in this order
            collection = collection_store.alive(tx, caller, id_)
            collection_store.touch(tx, collection)
            batch_id = batch_store.create(tx, collection)
            self._intake.attach(tx, caller, collection, files, sources, batch_id)
            return batch_store.get(tx, caller, collection, batch_id)

        batch = await self._write(work)
        self._changed(id_)
        return batch

    async def batch(self, caller: Caller, id_: str, batch_id: str) -> FileBatch:
        """Raises NotFound."""
        return await self._read(lambda tx: batch_store.get(tx, caller, collection_store.get(tx, caller, id_), batch_id))

    async def cancel_batch(self, caller: Caller, id_: str, batch_id: str) -> FileBatch:
        """Raises NotFound."""
        return await self._write(
            lambda tx: batch_store.cancel(tx, caller, collection_store.get(tx, caller, id_), batch_id)
        )

    # Searches

    async def search(self, caller: Caller, id_: str, question: Question) -> Results:
        """Raises NotFound, Expired, BadRequest, Forbidden, Refused."""
        began, outcome = time.monotonic(), "failed"
        try:
            found = await self._inquiry.run(caller, id_, question)
            outcome = "found" if found.results else "empty"
        finally:
            self._searched(id_, time.monotonic() - began, outcome)
        return found

    def require_ranker(self, caller: Caller, rerank: Rerank) -> None:
        """Raises BadRequest, Forbidden where a search by the caller could not name it."""
        self._inquiry.reranks(rerank, caller)

    async def standalone(self, caller: Caller, conversation: str, model: str | None, timeout_s: float) -> str | None:
        """A conversation's last question as a query that needs no other; None where no model says so in time."""
        return await standalone(self._writer, caller, conversation, model, timeout_s)

    def recall(self, id_: str, tenant: str | None = None) -> Mapping[str, Mapping[str, float]]:
        """Of a collection's or a tenant's graph, as far as this process has checked it: by kind of filter, with 99 % confidence."""
        checked = self._search.recall(id_, tenant)
        return {
            kind: {"recall": each.found / each.wanted, "low": each.low, "high": each.high, "neighbours": each.wanted}
            for kind, each in checked.items()
        }

    @property
    def checks(self) -> Checks:
        """What came of searches that were done again exactly, in this process."""
        return self._search.checks

    async def advice(self, collection: Collection, rows: int | None) -> Advice:
        """What its index takes, measured on a sample: one at a time, as it takes a core."""
        async with self._advising:
            return await asyncio.to_thread(self._residents.advise, collection, rows)

    async def sample(self, id_: str, after: int, most: int) -> Sampled | None:
        """Of documents with passages behind `after`, `most` at most, in the version that is read. None for a collection that is gone."""

        def work() -> Sampled | None:
            with self._database.reading() as tx:
                collection = collection_store.by_id(tx, id_)
                if collection is not None and collection.tenancy is not None:  # there is no index of all of it
                    return drawn_from(tx, collection, after, most, np.random.default_rng())
            if collection is None:
                return None
            try:
                _, state = self._residents.current(id_, collection.version)
            except NotFound:
                return None
            return drawn(collection.version, state, after, most, np.random.default_rng())

        return await asyncio.to_thread(work)

    # What the runner asks

    async def run(self, job: Job) -> None:
        await self._ingestion.run(job)

    def maintain(self, collection_id: str) -> None:
        self._residents.maintain(collection_id)

    def drop(self, collection_id: str) -> None:
        self._residents.drop(collection_id)

    def sweep(self) -> None:
        self._residents.sweep()
        self._residents.retry()

    async def close(self) -> None:
        await self._reader.close()
        await asyncio.to_thread(
            self._residents.close
        )  # a graph that is being made is given up, which a check may wait for
        await asyncio.to_thread(self._search.close)

    def cut(self, payer: str, model: str, asked: Chunking | None) -> Chunking:
        """As `Intake.cut`."""
        return self._intake.cut(payer, model, asked)

    async def _found(self, caller: Caller, files: Sequence[Wanted]) -> Mapping[str, Source]:
        """Raises NotFound for a file that is not there for the caller, BadRequest for one that is named twice."""
        ids = [each.file_id for each in files]
        if len(set(ids)) != len(ids):
            raise BadRequest("A file is named twice", param="file_ids", code="duplicate_file")
        if not ids:
            return {}
        found = await asyncio.to_thread(self._sources.find, caller, ids)
        for id_ in ids:
            if id_ not in found:
                raise NotFound(f"No such File object: {id_}", param="file_id", code="file_not_found")
        return found

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.read, work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.write, work)


def _declared(collection: Collection) -> Collection:
    """Raises BadRequest."""
    if collection.tenancy is None:
        raise BadRequest("The vector store declares no tenancy", param="vector_store_id", code="no_tenancy")
    return collection


def _seen(tx: Connection, found: Sequence[Collection]) -> Sequence[Seen]:
    counts = collection_store.counts(tx, [each.id for each in found])
    at = collection_store.moment(tx)
    return [Seen(each, counts[each.id], collection_store.expired(each, at)) for each in found]


def _told(tx: Connection, found: Sequence[Document]) -> tuple[Document, ...]:
    """With why they wait, of those that do."""
    reading = [each.id for each in found if each.status == "in_progress"]
    waiting = job_store.put_off(tx, reading) if reading else {}
    return tuple(
        PutOff(**msgspec.structs.asdict(each), waiting=waiting[each.id]) if each.id in waiting else each
        for each in found
    )
