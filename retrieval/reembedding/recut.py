"""The part of a re-embedding that cuts documents anew: from their files, as they were read, into passages of the edition that is not read.

These have no vectors yet: whoever embeds what lacks one finds them. A document is cut in one transaction; what a model said of its passages
is written down before. One whose file is gone, or reads differently by now, is kept in the new edition as it is cut in the old one, and it
is told why: nothing is lost, and citations of both editions point into one text.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar, final

import structlog
from sqlalchemy import Connection

from retrieval import collection_store, cut_store, document_store, passage_store, quotas
from retrieval.changes import Changes, Fresh, changes
from retrieval.cutting import ANEW, EMBEDDED_AT_ONCE, Cut, Cutter, Failure
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.embedding_store import NOTHING
from retrieval.job_store import LeaseLost
from retrieval.passage_store import New, Placed
from retrieval.ports import Reading
from retrieval.quotas import Bounds
from retrieval.reembedding import store
from retrieval.reembedding.record import Reembedding

log = structlog.stdlib.get_logger(__name__)

READ_AT_ONCE: Final = 100  # documents
WRITTEN_AT_ONCE: Final = 500  # passages of one transaction

_OTHER_FILE: Final = "Its file is another one by now, which is not read yet"
_OTHER_TEXT: Final = "Its file reads differently by now: add it once more to have it cut anew"

T = TypeVar("T")


@final
class Recut:
    """One per process."""

    def __init__(self, database: Database, cutter: Cutter, bounds: Bounds) -> None:
        self._database = database
        self._cutter = cutter
        self._bounds = bounds

    async def documents(self, mine: Reembedding, until: float) -> bool:
        """Whether all are cut, which they are from the beginning where both versions are of one edition.

        Raises LeaseLost, RetrievalError, OSError, SQLAlchemyError.
        """
        if not mine.apart:
            return True
        last = 0
        while True:
            some = await self._read(partial(_missing, mine=mine, after=last))
            if not some and not last:
                return True
            for id_ in some:
                await self._cut(mine, id_)
                if time.monotonic() > until:
                    return False
            last = some[-1] if some else 0  # and once more: what has changed meanwhile

    async def _cut(self, mine: Reembedding, document_id: int) -> None:
        cut = await self._read(partial(_begun, mine=mine, document_id=document_id))
        if cut is None:
            return
        try:
            reading = await self._read_again(cut)
            fresh = (
                await self._read(partial(_changes, mine=mine, cut=cut, reading=reading, bounds=self._bounds))
            ).fresh
            for start in range(0, len(fresh), EMBEDDED_AT_ONCE):
                await self._cutter.situated(cut, reading.text, fresh[start : start + EMBEDDED_AT_ONCE])
        except Failure as failure:
            log.info("document.kept", reembedding=mine.id, document=document_id, reason=failure.message)
            await self._do(partial(_keep, mine=mine, cut=cut, note=failure.message, bounds=self._bounds))
            return
        found = await self._read(partial(_changes, mine=mine, cut=cut, reading=reading, bounds=self._bounds))
        for start in range(0, len(found.fresh), WRITTEN_AT_ONCE):
            await self._do(partial(_prepare, cut=cut, some=found.fresh[start : start + WRITTEN_AT_ONCE]))
        await self._do(partial(_publish, mine=mine, cut=cut, reading=reading))

    async def _read_again(self, cut: Cut) -> Reading:
        """Raises Failure where it is not what is read of it."""
        reading, fingerprint = await self._cutter.read(cut)
        if fingerprint != cut.document.fingerprint:
            raise Failure("invalid_file", _OTHER_FILE)
        if reading.text != await self._read(lambda tx: document_store.text_of(tx, cut.document.id)):
            raise Failure("invalid_file", _OTHER_TEXT)
        return reading

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.read, work)

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.write, work)


# Transactions. Those that write lock the collection, by `store.hold`.


def _missing(tx: Connection, mine: Reembedding, after: int) -> list[int]:
    return list(cut_store.missing(tx, mine.collection_id, mine.unread.edition, after, READ_AT_ONCE))


def _begun(tx: Connection, mine: Reembedding, document_id: int) -> Cut | None:
    document = document_store.by_id(tx, document_id)
    if document is None or document.fingerprint is None:
        return None
    chunking = store.chunking_of(tx, mine, document)

    def held(tx: Connection) -> None:
        store.hold(tx, mine)
        store.put(tx, mine.id, attempts=0, reason=None)

    return Cut(document, chunking, mine.unread, mine.payer, held, ANEW)


def _changes(tx: Connection, mine: Reembedding, cut: Cut, reading: Reading, bounds: Bounds) -> Changes:
    """Raises QuotaExceeded."""
    collection = collection_store.by_id(tx, mine.collection_id)
    if collection is None:
        raise LeaseLost
    quotas.require_apart(tx, collection, bounds, cut.space, reading, cut.document.id)
    return _differing(tx, cut, reading)


def _differing(tx: Connection, cut: Cut, reading: Reading) -> Changes:
    id_, edition = cut.document.id, cut.space.edition
    written = passage_store.written(tx, id_, edition)
    return changes(reading.chunks, passage_store.published(tx, id_, edition), written, cut.chunking.context_model)


def _prepare(tx: Connection, cut: Cut, some: Sequence[Fresh]) -> None:
    cut.held(tx)
    said = dict(passage_store.said(tx, cut.document.id, {each.hash for each in some}))
    new = [New(each.ordinal, each.hash, each.chunk, NOTHING, said.get(each.hash, "")) for each in some]
    passage_store.prepare(tx, cut.document.collection_id, cut.document.id, new, edition=cut.space.edition)


def _publish(tx: Connection, mine: Reembedding, cut: Cut, reading: Reading) -> None:
    """Unless it has changed since: then it is missing still, or who changed it has done it."""
    document = _unchanged(tx, mine, cut)
    if document is None:
        return
    found = _differing(tx, cut, reading)
    if found.fresh:
        return
    id_, edition = document.id, cut.space.edition
    generation = collection_store.next_generation(tx, document.collection_id)
    passage_store.publish(tx, document.collection_id, id_, generation, found.placed, found.gone, edition)
    number = len(reading.chunks)
    cut_store.complete(tx, id_, edition, chunking=cut.chunking, fingerprint=document.fingerprint, passages=number)


def _keep(tx: Connection, mine: Reembedding, cut: Cut, note: str, bounds: Bounds) -> None:
    """As it is cut where it is read. Raises QuotaExceeded."""
    document = _unchanged(tx, mine, cut)
    collection = collection_store.by_id(tx, mine.collection_id)
    if document is None or collection is None:
        return
    id_, edition = document.id, cut.space.edition
    new = passage_store.kept(tx, id_, collection.edition)
    same = Reading(document_store.text_of(tx, id_), [each.chunk for each in new])
    quotas.require_apart(tx, collection, bounds, cut.space, same, id_)
    gone = [each.id for each in passage_store.published(tx, id_, edition)]
    ids: list[int] = []
    for start in range(0, len(new), WRITTEN_AT_ONCE):
        some = new[start : start + WRITTEN_AT_ONCE]
        ids += passage_store.prepare(tx, collection.id, id_, some, edition=edition)
    placed = [Placed(one, each.ordinal, each.chunk) for one, each in zip(ids, new, strict=True)]
    generation = collection_store.next_generation(tx, collection.id)
    passage_store.publish(tx, collection.id, id_, generation, placed, gone, edition)
    cut_store.complete(
        tx,
        id_,
        edition,
        chunking=document.chunking,
        fingerprint=document.fingerprint,
        passages=len(new),
        note=note,
    )


def _unchanged(tx: Connection, mine: Reembedding, cut: Cut) -> Document | None:
    """The document, if what is read of it is what was cut. Raises LeaseLost."""
    now = store.hold(tx, mine)
    if now.unread.version != mine.unread.version:
        raise LeaseLost
    store.put(tx, mine.id, attempts=0, reason=None)
    document = document_store.by_id(tx, cut.document.id)
    return document if document is not None and document.generation == cut.document.generation else None
