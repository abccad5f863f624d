"""What may be kept is bounded, for a store and for who owns it: told before anything is paid for, and what was there stays as it was."""

import pytest

from retrieval import collection_store, document_store, quotas
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import QuotaExceeded
from retrieval.quotas import Quota
from tests.fixtures.retrieval import ANN, BEN, EVE, attach, fill, new_collection


def require(
    database: Database, collection: Collection, owners: Quota, passages: int, size: int = 0, of: int = 0
) -> None:
    database.read(lambda tx: quotas.require(tx, collection, owners, passages, size, of))


def test_a_store_holds_no_more_than_it_may(database: Database) -> None:
    """A document that is read again counts once."""
    made = new_collection(database)
    document = attach(database, made, "file-1")
    fill(database, document, ["one", "two", "three"])
    collection = database.write(lambda tx: collection_store.bound(tx, made.id, 5, 100))
    require(database, collection, Quota(), 2)
    require(database, collection, Quota(), 5, of=document.id)
    with pytest.raises(QuotaExceeded, match="may have 5 passages; it has 3, and this file would add 3"):
        require(database, collection, Quota(), 3)
    with pytest.raises(QuotaExceeded, match="100 bytes"):
        require(database, collection, Quota(), 0, 100)
    with database.writing() as tx:
        document_store.remove(tx, document)
    require(database, collection, Quota(), 5, 100)


def test_a_team_holds_no_more_than_it_may_in_all_its_stores(database: Database) -> None:
    """A key in no team has a quota of its own."""
    one, two, other = (new_collection(database, caller) for caller in (ANN, BEN, EVE))
    fill(database, attach(database, one, "file-1"), ["one", "two"])
    fill(database, attach(database, two, "file-2"), ["three"])
    owners = Quota(passages=4)
    require(database, one, owners, 1)
    with pytest.raises(QuotaExceeded, match="The team team_1 may have 4 passages; it has 3"):
        require(database, two, owners, 2)
    require(database, other, owners, 4)
    with pytest.raises(QuotaExceeded, match="The key key_eve"):
        require(database, other, owners, 5)
