"""The truth about collections and documents, on both kinds of database: whose they are, who reads them, what a change leaves behind."""

import numpy as np
import pytest
from sqlalchemy import func, select

from retrieval import batch_store, collection_store, document_store, job_store, passage_store, removal
from retrieval.access import Caller, may_read, require_held
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Change, NewCollection
from retrieval.database import Database
from retrieval.errors import BadRequest, Expired, Forbidden, NotFound
from retrieval.job_store import LeaseLost, Owner
from retrieval.shown import shown
from retrieval.tables import collections as collection_table
from retrieval.tables import metadata
from tests.fixtures.retrieval import ANN, BEN, EVE, attach, fill, new_collection

HERE, THERE = Owner("ses_1", "host_1"), Owner("ses_2", "host_2")


def rows(database: Database) -> dict[str, int]:
    """How many each table has."""
    tables = metadata.sorted_tables
    return database.read(
        lambda tx: {t.name: tx.execute(select(func.count()).select_from(t)).scalar_one() for t in tables}
    )


def test_a_team_has_its_collections_in_common_and_nobody_else_sees_them(database: Database) -> None:
    mine = new_collection(database)
    with database.reading() as tx:
        assert collection_store.get(tx, BEN, mine.id) == mine
        assert [each.id for each in collection_store.listed(tx, BEN, 10).data] == [mine.id]
        assert collection_store.named(tx, BEN, "papers") == mine
        assert collection_store.listed(tx, EVE, 10).data == ()
        assert collection_store.named(tx, EVE, "papers") is None
        with pytest.raises(NotFound, match=mine.id):
            collection_store.get(tx, EVE, mine.id)


def test_collections_are_listed_both_ways(database: Database) -> None:
    """By `after` and by `before`, in either order, and each page says whether there is more."""
    made = sorted(new_collection(database).id for _ in range(5))  # those of one millisecond are in any order
    with database.reading() as tx:
        newest = collection_store.listed(tx, ANN, 2)
        assert [each.id for each in newest.data] == made[:2:-1]
        assert newest.has_more
        older = collection_store.listed(tx, ANN, 2, after=made[3])
        assert [each.id for each in older.data] == [made[2], made[1]]
        assert [each.id for each in collection_store.listed(tx, ANN, 2, before=made[1]).data] == [made[3], made[2]]
        rising = collection_store.listed(tx, ANN, 9, after=made[2], order="asc")
        assert [each.id for each in rising.data] == made[3:]
        assert not rising.has_more
        everybodys = collection_store.everybodys(tx, 9, after=None, org_id=None, team_id=None)
        assert [each.id for each in everybodys.data] == made[::-1]
        assert collection_store.everybodys(tx, 9, after=None, org_id="org_2", team_id=None).data == ()


def test_a_collection_is_changed_and_expires(database: Database) -> None:
    """Its time counts from its last use; what is left out of a change stays."""
    made = database.write(lambda tx: collection_store.create(tx, ANN, NewCollection("a", "m", expires_days=1)))
    assert made.expires_at == made.last_active_at + 86_400
    changed = database.write(
        lambda tx: collection_store.change(tx, ANN, made.id, Change(name="b", metadata={"k": "v"}))
    )
    assert (changed.name, changed.metadata, changed.expires_days) == ("b", {"k": "v"}, 1)
    never = database.write(lambda tx: collection_store.change(tx, ANN, made.id, Change(expires_days=None)))
    assert never.expires_at is None
    document = attach(database, made, "file-1")
    fill(database, document, ["one"])
    with database.writing() as tx:
        tx.execute(collection_table.update().values(expires_at=1.0))
    with database.reading() as tx, pytest.raises(Expired):
        collection_store.alive(tx, ANN, made.id)
    removal.sweep(database)
    assert rows(database)["passages"] == 0
    assert database.read(lambda tx: collection_store.get(tx, ANN, made.id)).expires_at == 1.0


def test_a_document_is_who_it_is_and_not_what_it_says(database: Database) -> None:
    """The same file again is the same document, with what is said of it now; two files with the same text are two."""
    collection = new_collection(database)
    first = attach(database, collection, "file-1", {"year": 2024})
    fill(database, first, ["same"])
    twin = attach(database, collection, "file-2")
    fill(database, twin, ["same"])
    again = attach(database, collection, "file-1", {"year": 2025})
    assert (again.id, again.status, again.attributes) == (first.id, "in_progress", {"year": 2025})
    assert again.passages == 1
    with database.writing() as tx:
        document_store.remove(tx, again)
    with database.reading() as tx:
        assert passage_store.number(tx, collection.id) == 1
        assert document_store.get(tx, ANN, collection, "file-2").id == twin.id
        with pytest.raises(NotFound):
            document_store.get(tx, ANN, collection, "file-1")


def test_what_is_deleted_leaves_nothing_behind(database: Database) -> None:
    """Not a label, not a text, not a vector, not a job: every table is empty but for the notice to indexes."""
    collection = new_collection(database)
    document = attach(database, collection, "file-1", {"a": 1}, ["key:key_ann"])
    ids = fill(database, document, ["one", "two"])
    with database.writing() as tx:
        job_store.add(tx, collection.id, document.id, "key_ann")
        document_store.remove(tx, document)
    left = {name: number for name, number in rows(database).items() if number}
    assert left == {"collections": 1, "removals": 1}
    (packed,) = database.read(lambda tx: passage_store.removed(tx, collection.id, 0))
    assert np.frombuffer(packed, "<i8").tolist() == ids
    database.write(lambda tx: collection_store.hide(tx, BEN, collection.id))
    with database.reading() as tx, pytest.raises(NotFound):
        collection_store.get(tx, ANN, collection.id)
    assert removal.sweep(database) == [collection.id]
    assert not any(rows(database).values())


def test_a_file_that_is_deleted_leaves_every_collection(database: Database) -> None:
    one, two = new_collection(database), new_collection(database)
    for collection in (one, two):
        fill(database, attach(database, collection, "file-1"), ["one"])
        fill(database, attach(database, collection, "file-2"), ["two"])
    touched = database.write(lambda tx: removal.forget_sources(tx, ["file-1"]))
    assert touched == sorted([one.id, two.id])
    with database.reading() as tx:
        for collection in (one, two):
            assert [each.source_id for each in document_store.listed(tx, ANN, collection, 9).data] == ["file-2"]


def test_a_passage_is_not_there_until_it_is_published(database: Database) -> None:
    """What is being prepared is in no search, and a change replaces the old passages in one step."""
    collection = new_collection(database)
    document = attach(database, collection, "file-1")
    old = fill(database, document, ["one", "two"])
    before = database.read(lambda tx: collection_store.get(tx, ANN, collection.id)).generation
    new = fill(database, document, ["three"])
    with database.reading() as tx:
        found = [each.id for some in passage_store.indexed(tx, collection.id, before, 10) for each in some]
        assert found == new
        (packed,) = passage_store.removed(tx, collection.id, before)
        assert np.frombuffer(packed, "<i8").tolist() == old
        assert [text for some in passage_store.texts(tx, collection.id, 0, 1) for _, text in some] == ["three"]
        everything = shown(tx, Caller("all", labels=frozenset("*")), collection.id, [*old, *new], labelled=False)
        assert {id_: passage.text for id_, (passage, _) in everything.items()} == {new[0]: "three"}
        assert shown(tx, ANN, "vs_other", new, labelled=False) == {}


def test_ids_of_passages_are_never_used_again(database: Database) -> None:
    """An index that has not heard of a removal must not take another passage for the one that it knew."""
    collection = new_collection(database)
    document = attach(database, collection, "file-1")
    old = fill(database, document, ["one", "two"])
    with database.writing() as tx:
        document_store.remove(tx, document)
    assert min(fill(database, attach(database, collection, "file-1"), ["one"])) > max(old)


@pytest.mark.parametrize("labelled", [False, True])
def test_labels_open_documents_and_their_absence_closes_them(database: Database, *, labelled: bool) -> None:
    """The table and the pure rule say the same for every caller and every document."""
    collection = new_collection(database, labelled=labelled)
    documents = {
        "file-open": (),
        "file-team": ("team:team_1",),
        "file-ben": ("key:key_ben",),
        "file-money": ("finance", "board"),
        "file-star": ("*",),
    }
    passages: list[int] = []
    for source_id, labels in documents.items():
        passages += fill(database, attach(database, collection, source_id, labels=labels), ["text"])
    callers = [
        ANN,
        BEN,
        Caller("key_cfo", "team_1", None, frozenset({"finance"})),
        Caller("admin", "team_1", None, frozenset("*")),
    ]
    with database.reading() as tx:
        for caller in callers:
            seen = {each.source_id for each in document_store.listed(tx, caller, collection, 10).data}
            assert seen == {id_ for id_, labels in documents.items() if may_read(caller, labels, labelled=labelled)}
            assert ("file-open" in seen) is (not labelled or caller.key_id == "admin")
        with pytest.raises(NotFound):
            document_store.get(tx, ANN, collection, "file-money")
        found = shown(tx, ANN, collection.id, passages, labelled=labelled)
        assert {document.source_id for _, document in found.values()} == {
            id_ for id_, labels in documents.items() if may_read(ANN, labels, labelled=labelled)
        }
        assert document_store.get(tx, callers[2], collection, "file-money").source_id == "file-money"


def test_nobody_gives_a_label_that_it_does_not_hold() -> None:
    """Also not its own name in somebody else's attributes: labels come from the key."""
    require_held(ANN, ["team:team_1", "key:key_ann"])
    require_held(Caller("a", labels=frozenset("*")), ["finance"])
    with pytest.raises(Forbidden, match="finance"):
        require_held(ANN, ["team:team_1", "finance"])


def test_documents_are_listed_in_pages_by_their_state(database: Database) -> None:
    collection = new_collection(database)
    made = [attach(database, collection, f"file-{number}") for number in range(5)]
    fill(database, made[0], ["text"])
    with database.reading() as tx:
        page = document_store.listed(tx, ANN, collection, 2, order="asc", after="file-1")
        assert [each.source_id for each in page.data] == ["file-2", "file-3"]
        assert page.has_more
        page = document_store.listed(tx, ANN, collection, 2, before="file-1")
        assert [each.source_id for each in page.data] == ["file-3", "file-2"]
        page = document_store.listed(tx, ANN, collection, 9, status="completed")
        assert [each.source_id for each in page.data] == ["file-0"]
        for after, before in (("file-gone", None), (None, "file-gone")):  # nothing would look like the end of the list
            with pytest.raises(BadRequest, match="no file 'file-gone'"):
                document_store.listed(tx, ANN, collection, 9, after=after, before=before)
        counts = collection_store.counts(tx, [collection.id])[collection.id]
    assert (counts.in_progress, counts.completed, counts.total, counts.passages) == (4, 1, 5, 1)


def test_a_job_has_one_owner_and_one_document_one_job(database: Database) -> None:
    """Whoever lost the lease, or whose document was given anew, writes nothing any more."""
    collection = new_collection(database)
    document = attach(database, collection, "file-1")
    database.write(lambda tx: job_store.add(tx, collection.id, document.id, "key_ann"))
    (job,) = database.read(lambda tx: job_store.waiting(tx, HERE, 10))
    mine = database.write(lambda tx: job_store.claim(tx, job, HERE))
    assert mine is not None
    assert mine.attempts == 1
    assert database.write(lambda tx: job_store.claim(tx, job, THERE)) is None
    assert database.read(lambda tx: job_store.waiting(tx, THERE, 10)) == []
    database.write(lambda tx: job_store.hold(tx, mine))
    database.write(lambda tx: job_store.add(tx, collection.id, document.id, "key_ann"))
    with pytest.raises(LeaseLost):
        database.write(lambda tx: job_store.finish(tx, mine))
    (job,) = database.read(lambda tx: job_store.waiting(tx, THERE, 10))
    again = database.write(lambda tx: job_store.claim(tx, job, THERE))
    assert again is not None
    database.write(lambda tx: job_store.later(tx, again, 0, "waits", counted=False))
    (job,) = database.read(lambda tx: job_store.waiting(tx, HERE, 10))
    assert (job.attempts, job.note) == (0, "waits")


def test_a_thousand_documents_of_one_do_not_stand_before_the_one_of_another(database: Database) -> None:
    collection = new_collection(database)
    with database.writing() as tx:
        for number in range(20):
            new = document_store.NewDocument(f"file-{number}", "a", {}, (), Chunking())
            document = document_store.attach(tx, collection, new)
            job_store.add(tx, collection.id, document.id, "key_ann" if number < 19 else "key_eve")
    waiting = database.read(lambda tx: job_store.waiting(tx, HERE, 4))
    assert {job.payer for job in waiting[:2]} == {"key_ann", "key_eve"}
    assert len(waiting) == 4
    claimed = database.write(
        lambda tx: job_store.claim(tx, next(job for job in waiting if job.payer == "key_ann"), HERE)
    )
    assert claimed is not None
    assert database.read(lambda tx: job_store.waiting(tx, HERE, 4))[0].payer == "key_eve"


def test_a_batch_is_the_sum_of_its_files_and_can_be_cancelled(database: Database) -> None:
    collection = new_collection(database)
    with database.writing() as tx:
        batch_id = batch_store.create(tx, collection)
        for number in range(3):
            new = document_store.NewDocument(f"file-{number}", "a", {}, (), Chunking(), batch_id)
            document = document_store.attach(tx, collection, new)
            job_store.add(tx, collection.id, document.id, "key_ann")
    first = database.read(lambda tx: document_store.get(tx, ANN, collection, "file-0"))
    fill(database, first, ["text"])
    batch = database.read(lambda tx: batch_store.get(tx, ANN, collection, batch_id))
    assert (batch.status, batch.counts.completed, batch.counts.in_progress) == ("in_progress", 1, 2)
    batch = database.write(lambda tx: batch_store.cancel(tx, ANN, collection, batch_id))
    assert (batch.status, batch.counts.completed, batch.counts.cancelled) == ("cancelled", 1, 2)
    assert rows(database)["ingestion_jobs"] == 1, "only that of the file which was not cancelled"
    with database.reading() as tx, pytest.raises(NotFound):
        batch_store.get(tx, ANN, collection, "vsfb_none")
