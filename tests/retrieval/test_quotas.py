"""What may be kept is bounded, for a store and for who owns it: told before anything is paid for, and what was there stays as it was."""

from collections.abc import Mapping

import openai
import pytest

from retrieval import collection_store, document_store, quotas
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import QuotaExceeded
from retrieval.quotas import Bounds, Quota
from tests.fixtures.retrieval import ANN, BEN, EVE, attach, fill, new_collection
from tests.fixtures.server import Server


def require(
    database: Database,
    collection: Collection,
    owners: Quota,
    passages: int,
    size: int = 0,
    of: int = 0,
    keys: Mapping[str, Quota] | None = None,
) -> None:
    bounds = Bounds(owners, lambda key_id: (keys or {}).get(key_id, Quota()))
    database.read(lambda tx: quotas.require(tx, collection, bounds, passages, size, of))


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


def test_a_key_holds_no_more_than_it_may_in_all_that_it_has_made(database: Database) -> None:
    """Beside its team's bound, or instead of the usual one where it is in no team."""
    one, two, other = (new_collection(database, caller) for caller in (ANN, ANN, EVE))
    for number, collection in enumerate((one, two, other)):
        fill(database, attach(database, collection, f"file-{number}"), ["one", "two"])
    few = {ANN.key_id: Quota(passages=5), EVE.key_id: Quota(passages=50)}
    require(database, one, Quota(), 1, keys=few)
    with pytest.raises(QuotaExceeded, match="The key key_ann may have 5 passages; it has 4"):
        require(database, two, Quota(), 2, keys=few)
    with pytest.raises(QuotaExceeded, match="The team team_1 may have 4"):
        require(database, two, Quota(passages=4), 1, keys=few)
    require(database, other, Quota(passages=4), 40, keys=few)
    with pytest.raises(QuotaExceeded, match="The key key_eve may have 50"):
        require(database, other, Quota(passages=4), 49, keys=few)


def test_an_admin_says_it_of_a_key(documents_server: Server) -> None:
    """In its metadata, in force with the next file; what is no number is refused."""
    made = documents_server.admin.post("/keys", json={"name": "small", "metadata": {"quota_passages": 1}}).json()
    documents_server.await_key(made["key"], known=True)
    with openai.OpenAI(base_url=documents_server.base_url, api_key=made["key"], max_retries=0, timeout=50) as client:
        first, second = (client.vector_stores.create(name=f"small {n}").id for n in range(2))
        file = client.files.create(file=("gate.md", b"The gate closes."), purpose="assistants")
        assert client.vector_stores.files.create_and_poll(file.id, vector_store_id=first).status == "completed"
        with pytest.raises(openai.APIStatusError, match="may have 1 passages; it has 1") as caught:
            client.vector_stores.files.create(second, file_id=file.id)
        assert (caught.value.status_code, caught.value.code) == (413, "storage_quota_exceeded")
        documents_server.admin.patch(f"/keys/{made['id']}", json={"metadata": {"quota_passages": 2, "quota_mb": 0.5}})
        assert client.vector_stores.files.create_and_poll(file.id, vector_store_id=second).status == "completed"
    for wrong in ({"quota_passages": "many"}, {"quota_passages": 1.5}, {"quota_mb": -1}, {"quota_mb": True}):
        answer = documents_server.admin.post("/keys", json={"name": "x", "metadata": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")
