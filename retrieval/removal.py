"""What is deleted goes piece by piece, so that nobody waits behind a transaction of seconds. It is hidden before the first piece goes."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from retrieval import collection_store, document_store
from retrieval.database import Database

TOGETHER: Final = 50  # documents


def purge(database: Database, collection_id: str) -> None:
    """Blocks. A hidden collection, until nothing of it is left."""
    empty(database, collection_id)
    database.write(lambda tx: collection_store.remove(tx, collection_id))


def empty(database: Database, collection_id: str) -> None:
    """Blocks. A collection's documents."""
    while database.write(lambda tx: _some(tx, collection_id)) == TOGETHER:
        pass


def forget_sources(tx: Connection, source_ids: Sequence[str]) -> Sequence[str]:
    """In the transaction that deletes the files: they are in no collection any more. The collections that had them."""
    found = document_store.of_source(tx, source_ids)
    for document in sorted(found, key=lambda each: each.collection_id):  # locks are taken in one order
        document_store.remove(tx, document)
    return sorted({document.collection_id for document in found})


def sweep(database: Database) -> Sequence[str]:
    """Blocks. What was hidden and not yet taken away, and documents of collections whose time is over. Ids of what is gone."""
    gone = database.read(lambda tx: collection_store.hidden(tx, 20))
    for id_ in gone:
        purge(database, id_)
    for id_ in database.read(lambda tx: collection_store.ended(tx, 20)):
        empty(database, id_)
    return gone


def _some(tx: Connection, collection_id: str) -> int:
    found = document_store.some(tx, collection_id, TOGETHER)
    for document in found:
        document_store.remove(tx, document)
    return len(found)
