"""Files and batches in the database, on both kinds: who sees what, who works on what, and how much fits."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, update

from gateway.authentication import Authenticator
from gateway.batches import store
from gateway.batches.lines import Problem
from gateway.batches.results import Counts
from gateway.batches.store import Batch, LeaseLost, NewBatch, Owner
from gateway.catalog import Catalog
from gateway.database import appending, connect, reading
from gateway.errors import BadRequest, BodyTooLarge, NotFound, Unauthenticated
from gateway.files import store as files
from gateway.files import upload_store
from gateway.files.keeper import Files, FileTerms
from gateway.files.shelf import Shelf
from gateway.keys import Key, digest
from gateway.snapshot import Snapshot
from gateway.tables import batches as batch_table
from gateway.tables import files as file_table
from gateway.tables import uploads as upload_table

ANN, BEN = Key("key_ann", "ann", team_id="team_1"), Key("key_ben", "ben", team_id="team_1")
EVE = Key("key_eve", "eve")
HERE, THERE = Owner("ses_1", "host_1"), Owner("ses_2", "host_2")
QUOTA = 100


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


def keep(engine: Engine, key: Key, size: int, *, purpose: str = "batch", keep_s: int | None = None) -> str:
    id_ = files.new_id()
    with appending(engine) as tx:
        files.create(tx, key, id_, purpose, "a.jsonl", size, keep_s=keep_s, quota=QUOTA)
    return id_


def new_batch(engine: Engine, key: Key = ANN) -> Batch:
    file_id = keep(engine, key, 1)
    with appending(engine) as tx:
        return store.create(tx, key, NewBatch("/v1/embeddings", file_id, "24h", 86_400, {"a": "b"}))


def claim(engine: Engine, batch: Batch, owner: Owner) -> Batch:
    with appending(engine) as tx:
        found = store.claim(tx, batch, owner)
    assert found is not None
    return found


def test_a_team_sees_its_files_and_nobody_else_does(engine: Engine) -> None:
    mine, hers = keep(engine, ANN, 5), keep(engine, EVE, 5)
    with reading(engine) as tx:
        assert files.get(tx, BEN, mine).key_id == ANN.id
        assert [file.id for file in files.listed(tx, BEN, 10).data] == [mine]
        assert [file.id for file in files.listed(tx, EVE, 10).data] == [hers]
        with pytest.raises(NotFound):
            files.get(tx, EVE, mine)


def test_a_quota_is_a_team_s(engine: Engine) -> None:
    """Two uploads at once do not both find the last room."""
    keep(engine, ANN, 60)
    keep(engine, EVE, 60)

    def attempt(key: Key) -> bool:
        try:
            keep(engine, key, 30)
        except BodyTooLarge:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, [ANN, BEN, ANN, BEN])) == [False, False, False, True]


def test_files_end_when_their_time_is_over(engine: Engine, tmp_path: Path) -> None:
    """At once for clients; their bytes go with the next sweep, but not under a batch that reads them."""
    shelf = Shelf(tmp_path / "files")
    shelf.prepare()
    kept = Files(engine, shelf, FileTerms(1000, QUOTA))
    old, forever = keep(engine, ANN, 1, keep_s=3600), keep(engine, ANN, 1, purpose="user_data")
    used = new_batch(engine).input_file_id
    for id_ in (old, forever, used):
        shelf.path("files", id_).write_bytes(b"x")
    with appending(engine) as tx:
        tx.execute(update(file_table).where(file_table.c.expires_at.is_not(None)).values(expires_at=1.0))
    with reading(engine) as tx, pytest.raises(NotFound):
        files.get(tx, ANN, old)
    kept.sweep()
    assert {path.name for path in (tmp_path / "files" / "files").iterdir()} == {forever, used}


def test_what_a_dead_process_left_is_found(engine: Engine, tmp_path: Path) -> None:
    """Half files, and whole ones that the database does not know, once they are an hour old."""
    shelf = Shelf(tmp_path / "files")
    shelf.prepare()
    known = keep(engine, ANN, 1)
    old = [shelf.path("files", known), shelf.path("files", "file-lost"), shelf.path("parts", "part_lost")]
    old.append(shelf.folder / "incoming" / "file-half")
    new = [shelf.path("files", "file-new"), shelf.folder / "incoming" / "file-new"]
    for path in (*old, *new):
        path.write_bytes(b"x")
    for path in old:
        os.utime(path, (1.0, 1.0))
    Files(engine, shelf, FileTerms(1000, QUOTA)).search()
    assert {path for path in shelf.folder.rglob("*") if path.is_file()} == {old[0], *new}


def test_uploads_end_when_their_time_is_over(engine: Engine, tmp_path: Path) -> None:
    """Their parts go too."""
    shelf = Shelf(tmp_path / "files")
    shelf.prepare()
    kept = Files(engine, shelf, FileTerms(1000, QUOTA))
    with appending(engine) as tx:
        upload = upload_store.create(
            tx, ANN, purpose="batch", filename="a", size=5, mime_type="text/plain", keep_s=None
        )
        part = upload_store.add_part(tx, upload, upload_store.part_id(), 5)
        shelf.path("parts", part.id).write_bytes(b"12345")
        with pytest.raises(BadRequest):
            upload_store.add_part(tx, upload, upload_store.part_id(), 1)
        tx.execute(update(upload_table).values(expires_at=1.0))
    with reading(engine) as tx:
        assert upload_store.get(tx, BEN, upload.id).status == "expired"
        with pytest.raises(NotFound):
            upload_store.get(tx, EVE, upload.id)
    kept.sweep()
    assert not shelf.path("parts", part.id).exists()
    with reading(engine) as tx, pytest.raises(NotFound):
        upload_store.get(tx, ANN, upload.id)


def test_one_owner_at_a_time(engine: Engine) -> None:
    """Of many that see a batch waiting, one gets it."""
    batch = new_batch(engine)
    owners = [Owner(f"ses_{n}", "host") for n in range(4)]

    def attempt(owner: Owner) -> Batch | None:
        with appending(engine) as tx:
            return store.claim(tx, batch, owner)

    with ThreadPoolExecutor(4) as pool:
        won = [found for found in pool.map(attempt, owners) if found is not None]
    assert len(won) == 1
    assert won[0].epoch == 1
    with reading(engine) as tx:
        assert store.waiting(tx, THERE) == []


def test_an_owner_that_is_silent_loses_the_batch_and_can_change_it_no_more(engine: Engine) -> None:
    """After thirty seconds for another machine; for its own the kernel tells (worksheet)."""
    mine = claim(engine, new_batch(engine), HERE)
    with reading(engine) as tx:
        assert store.waiting(tx, THERE) == []
        assert [batch.id for batch in store.waiting(tx, Owner("ses_3", HERE.host))] == [mine.id]
    with appending(engine) as tx:
        tx.execute(update(batch_table).values(seen_at=batch_table.c.seen_at - store.LEASE_S - 1))
    with reading(engine) as tx:
        (seen,) = store.waiting(tx, THERE)
    theirs = claim(engine, seen, THERE)
    for change in (
        lambda tx: store.beat(tx, mine, Counts(), None),
        lambda tx: store.begin(tx, mine, 3, None),
        lambda tx: store.settle(tx, mine, "completed", Counts(), problems=None, output=True, errors=False),
        lambda tx: store.fail(tx, mine, [Problem("a", "b")]),
    ):
        with pytest.raises(LeaseLost), appending(engine) as tx:
            change(tx)
    with appending(engine) as tx:
        store.release(tx, mine)
        assert store.beat(tx, theirs, Counts(), Problem("a", "b")) == "validating"
        assert store.get(tx, ANN, mine.id).errors == (Problem("a", "b"),)


def test_a_batch_from_its_beginning_to_its_end(engine: Engine) -> None:
    """Its states and when they began, also where it is cancelled in the middle and its owner dies twice."""
    batch = claim(engine, new_batch(engine), HERE)
    with appending(engine) as tx:
        batch = store.begin(tx, batch, 3, "chat")
        assert (batch.status, batch.total, batch.model, batch.metadata) == ("in_progress", 3, "chat", {"a": "b"})
        assert store.cancel(tx, BEN, batch.id).status == "cancelling"
        assert store.cancel(tx, BEN, batch.id).status == "cancelling"
        with pytest.raises(NotFound):
            store.cancel(tx, EVE, batch.id)
        assert store.beat(tx, batch, Counts(), None) == "cancelling"
        settled = store.settle(tx, batch, "cancelled", Counts(), problems=None, output=True, errors=True)
        assert (settled.status, settled.outcome) == ("cancelling", "cancelled")
        assert store.beat(tx, settled, Counts(), Problem("late", "a beat that was on its way")) == "cancelling"
        assert settled.output_file_id is not None
        sizes = {settled.output_file_id: 10}
        ended = store.finish(tx, settled, sizes)
        assert (ended.status, ended.owner, ended.errors) == ("cancelled", None, None)
        assert ended.moments.keys() == {"in_progress", "cancelling", "cancelled"}
        output = files.get(tx, BEN, settled.output_file_id)
        assert (output.purpose, output.bytes, output.expires_at) == ("batch_output", 10, None)
        finished = claim_failed(tx)
        with pytest.raises(BadRequest):
            store.cancel(tx, ANN, finished.id)


def test_a_beat_that_was_on_its_way_takes_nothing_from_a_batch_that_has_failed(engine: Engine) -> None:
    """With the batch as it was before, and as the failure left it: nobody owns it any more."""
    before = claim(engine, new_batch(engine), HERE)
    with appending(engine) as tx:
        store.cancel(tx, ANN, before.id)
        failed = store.fail(tx, before, [Problem("invalid_method", "GET", line=2)])
    for batch in (before, failed):
        with pytest.raises(LeaseLost), appending(engine) as tx:
            store.beat(tx, batch, Counts(), None)
    with appending(engine) as tx:
        assert store.get(tx, ANN, before.id).errors == failed.errors
    assert failed.errors == (Problem("invalid_method", "GET", line=2),)
    assert failed.moments.keys() == {"cancelling", "failed"}


def claim_failed(tx: Connection) -> Batch:
    """One that has failed."""
    file_id = files.new_id()
    files.create(tx, ANN, file_id, "batch", "a", 1, keep_s=None, quota=QUOTA)
    made = store.create(tx, ANN, NewBatch("/v1/x", file_id, "24h", 86_400))
    owned = store.claim(tx, made, HERE)
    assert owned is not None
    return store.fail(tx, owned, [Problem("a", "b", line=1)])


def test_a_file_for_something_else_is_no_input(engine: Engine) -> None:
    id_ = keep(engine, ANN, 1, purpose="user_data")
    with appending(engine) as tx, pytest.raises(BadRequest, match="purpose"):
        store.create(tx, ANN, NewBatch("/v1/x", id_, "24h", 86_400))


def test_a_deputy_stands_for_a_key_as_long_as_it_works() -> None:
    """Whatever becomes of the key's secrets; and for nothing, once it is dismissed or the key is gone."""
    authenticator = Authenticator(digest(b"admin"), lambda: 100.0)
    secret = authenticator.deputy(ANN.id, "flex")
    headers = {b"authorization": b"Bearer " + secret}

    def caller(keys: dict[bytes, Key], number: int) -> Key | None:
        try:
            return authenticator.caller(Snapshot(number, keys, Catalog({})), headers)
        except Unauthenticated:
            return None

    first, second = digest(b"one"), digest(b"two")
    found = caller({first: ANN}, 1)
    assert found is not None
    assert (found.id, found.service_tier) == (ANN.id, "flex")
    old = Key("key_ann", "ann", expires_at=150.0)
    rotated = caller({first: old, second: ANN}, 2)
    assert rotated is not None
    assert rotated.expires_at is None
    assert caller({second: EVE}, 3) is None
    assert caller({second: ANN}, 4) is not None
    authenticator.dismiss(secret)
    assert caller({second: ANN}, 5) is None
    admin = authenticator.deputy("admin")
    assert authenticator.caller(Snapshot(6, {}, Catalog({})), {b"authorization": b"Bearer " + admin}).id == "admin"
