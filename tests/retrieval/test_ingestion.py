"""Documents on their way in, on both kinds of database: what is embedded, what is waited for, and what is told of a failure."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from retrieval import collection_store, job_store, runner
from retrieval.access import Caller
from retrieval.asking import Question, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.database import Database, locked_for
from retrieval.errors import BadRequest, Conflict, Forbidden, NotFound, Refused
from retrieval.tables import ingestion_jobs, passages
from tests.fixtures.plane import Folder, Plane, Words
from tests.fixtures.retrieval import ANN, BEN, EVE

SMALL = Chunking("static", 100, 0)


def paragraphs(*names: str) -> str:
    """Each is a passage of its own."""
    return " ".join(" ".join(f"{name}" for _ in range(100)) for name in names)


async def found(plane: Plane, store: str, text: str, caller: Caller = ANN, **more: object) -> list[str]:
    """Names of the files, best first, with words alone."""
    question = Question((text,), dense=0.0, **more)  # type: ignore[arg-type]
    return [each.document.source_id for each in (await plane.retrieval.search(caller, store, question)).results]


async def test_a_change_embeds_what_changed_and_nothing_else(plane: Plane) -> None:
    """An unchanged document embeds nothing; what is new in a changed one is embedded; what is gone is not found."""
    store = await plane.store()
    file_id = plane.files.put(ANN, paragraphs("alpha", "beta", "gamma"))
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=SMALL))
    document = await plane.ended(store, file_id)
    assert (document.status, document.passages, document.empty) == ("completed", 3, False)
    assert len(plane.words.embedded) == 3
    assert {payer for payer, _ in plane.words.embedded} == {ANN.key_id}
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=SMALL))
    await plane.ended(store, file_id)
    assert len(plane.words.embedded) == 3
    plane.files.put(ANN, paragraphs("beta", "delta", "gamma", "beta"), id_=file_id)
    await plane.retrieval.attach(ANN, store, Wanted(file_id, chunking=SMALL))
    document = await plane.ended(store, file_id)
    assert [text.split()[0] for _, text in plane.words.embedded[3:]] == ["delta", "beta"], (
        "the second beta is another place"
    )
    assert document.passages == 4
    assert await found(plane, store, "alpha") == []
    assert await found(plane, store, "beta delta") == [file_id] * 3
    shown = await plane.retrieval.passages(ANN, store, file_id, 10, -1)
    assert [each.text.split()[0] for each in shown] == ["beta", "delta", "gamma", "beta"]
    whole = await plane.retrieval.text(ANN, store, file_id)
    assert all(whole[each.start : each.end] == each.text for each in shown)


async def test_a_new_version_takes_the_place_of_the_old_one(plane: Plane) -> None:
    """Under its own id, with what the old one had in common embedded already; never beside a third."""
    store = await plane.store()
    old = plane.files.put(ANN, paragraphs("alpha", "beta"))
    await plane.retrieval.attach(ANN, store, Wanted(old, chunking=SMALL))
    await plane.ended(store, old)
    new = plane.files.put(ANN, paragraphs("alpha", "gamma"))
    await plane.retrieval.attach(ANN, store, Wanted(new, chunking=SMALL, replaces=old))
    await plane.ended(store, new)
    assert len(plane.words.embedded) == 3
    assert await found(plane, store, "alpha beta gamma") == [new, new]
    with pytest.raises(NotFound):
        await plane.retrieval.document(ANN, store, old)
    other = plane.files.put(ANN, "other")
    await plane.retrieval.attach(ANN, store, Wanted(other))
    with pytest.raises(Conflict):
        await plane.retrieval.attach(ANN, store, Wanted(other, replaces=new))
    with pytest.raises(NotFound):
        await plane.retrieval.attach(ANN, store, Wanted(old, replaces=EVE.key_id))


async def test_a_new_version_for_others_shows_them_nothing_of_the_old_one(plane: Plane) -> None:
    """Not even while it is being read, and not if it cannot be read."""
    chief = Caller("key_chief", "team_1", "org_1", frozenset({"board"}))
    store = await plane.store()
    old = plane.files.put(chief, paragraphs("secret"))
    await plane.retrieval.attach(chief, store, Wanted(old, labels=("board",), chunking=SMALL))
    await plane.ended(store, old, chief)
    with pytest.raises(Forbidden):
        await plane.retrieval.attach(BEN, store, Wanted(old))
    assert await found(plane, store, "secret") == []
    plane.words.gate = asyncio.Event()
    same = plane.files.put(chief, paragraphs("secret", "more"))
    await plane.retrieval.attach(chief, store, Wanted(same, labels=("board",), replaces=old))
    assert await found(plane, store, "secret", chief) == [same], "for the same readers the old one is there meanwhile"
    public = plane.files.put(chief, b"\x00\x00")
    await plane.retrieval.attach(chief, store, Wanted(public, replaces=same))
    assert await found(plane, store, "secret") == []
    assert await plane.retrieval.text(ANN, store, public) == ""
    plane.words.gate.set()
    assert (await plane.ended(store, public)).status == "failed"
    assert await found(plane, store, "secret") == []
    assert (await plane.retrieval.document(ANN, store, public)).passages == 0


async def test_who_adds_and_who_publishes_do_not_wait_for_each_other(database: Database, tmp_path: Path) -> None:
    """Both lock the collection first, and its row after that."""
    if database.read(lambda tx: tx.dialect.name) != "postgresql":
        pytest.skip("only one writes at a time")
    (tmp_path / "files").mkdir()
    plane = Plane(database, tmp_path / "retrieval", Folder(tmp_path / "files"), Words())
    store = await plane.store()
    file_id = plane.files.put(ANN, "alpha")
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with database.writing() as tx:
        locked_for(tx, store)
        adding = asyncio.get_running_loop().create_task(plane.retrieval.attach(ANN, store, Wanted(file_id)))
        async with asyncio.timeout(30):
            while not tx.execute(waiting).scalar_one():  # noqa: ASYNC110 — nobody would tell
                await asyncio.sleep(0.01)
        collection_store.next_generation(tx, store)
    assert (await adding).status == "in_progress"
    await plane.stop()


async def test_a_job_that_nobody_works_on_is_taken_again(database: Database, tmp_path: Path) -> None:
    """Claimed by this very process, when the database failed before it began: it lives on and hears of other jobs."""
    (tmp_path / "files").mkdir()
    plane = Plane(database, tmp_path / "retrieval", Folder(tmp_path / "files"), Words())
    store = await plane.store()
    file_id = plane.files.put(ANN, "alpha")
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    owner = plane.runner._owner
    (job,) = database.read(lambda tx: job_store.waiting(tx, owner, 1))
    assert database.write(lambda tx: job_store.claim(tx, job, owner)) is not None
    with database.writing() as tx:
        tx.execute(ingestion_jobs.update().values(seen_at=1.0))
        job_store.beat(tx, owner, ["job_other"])
    plane.start()
    try:
        assert (await plane.ended(store, file_id)).status == "completed"
    finally:
        await plane.stop()


async def test_indexes_of_a_deleted_store_go_whoever_died_over_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words do not stay on the disk; those of others do."""
    monkeypatch.setattr(runner, "SWEEP_S", 0.05)
    (tmp_path / "files").mkdir()
    left = tmp_path / "retrieval" / "vs_gone"
    left.mkdir(parents=True)
    (left / "words.db").write_bytes(b"words")
    plane = Plane(database, tmp_path / "retrieval", Folder(tmp_path / "files"), Words()).start()
    try:
        store = await plane.store()
        file_id = plane.files.put(ANN, "alpha")
        await plane.retrieval.attach(ANN, store, Wanted(file_id))
        await plane.ended(store, file_id)
        async with asyncio.timeout(30):
            while left.exists():  # noqa: ASYNC110 — nobody would tell
                await asyncio.sleep(0.02)
        assert await found(plane, store, "alpha") == [file_id]
        assert (tmp_path / "retrieval" / store / "words.db").exists()
    finally:
        await plane.stop()


async def test_what_may_work_later_is_waited_for(plane: Plane) -> None:
    """A budget that is at its end, a model that is busy: the document waits, however often."""
    store = await plane.store()
    plane.words.refuse += [
        Refused(429, "no money", "insufficient_quota", "budget_exceeded", again=True, wait_s=0.0)
    ] * 3
    file_id = plane.files.put(ANN, "alpha")
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    document = await plane.ended(store, file_id)
    assert document.status == "completed"
    assert plane.words.refuse == []


async def test_what_will_not_work_is_told_and_others_go_on(plane: Plane) -> None:
    """A refusal, a file that is no text, one that is gone: each with its reason, and the next document is read."""
    store = await plane.store()
    plane.words.refuse.append(Refused(403, "This key may not use the model", "permission_error", "model_access_denied"))
    refused = plane.files.put(ANN, "alpha")
    await plane.retrieval.attach(ANN, store, Wanted(refused))
    document = await plane.ended(store, refused)
    assert (document.status, document.error_code) == ("failed", "server_error")
    assert document.error_message == "This key may not use the model"
    cases = {
        b"\x00\x01\x02" * 9: "unsupported_file",
        b"\xff\xfe\x00": "unsupported_file",
        b"caf\xe9": "unsupported_file",
    }
    for data, code in cases.items():
        broken = plane.files.put(ANN, data)
        await plane.retrieval.attach(ANN, store, Wanted(broken))
        assert (await plane.ended(store, broken)).error_code == code
    gone = plane.files.put(ANN, "x")
    plane.files.drop(gone)
    await plane.retrieval.attach(ANN, store, Wanted(gone))
    assert (await plane.ended(store, gone)).error_code == "invalid_file"
    good = plane.files.put(ANN, "beta")
    await plane.retrieval.attach(ANN, store, Wanted(good))
    assert (await plane.ended(store, good)).status == "completed"
    with plane.database.reading() as tx:
        assert not job_store.any_left(tx)


async def test_a_failed_change_leaves_the_former_version(plane: Plane) -> None:
    store = await plane.store()
    file_id = plane.files.put(ANN, "alpha")
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    await plane.ended(store, file_id)
    plane.files.put(ANN, b"\x00\x00", id_=file_id)
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    assert (await plane.ended(store, file_id)).status == "failed"
    assert await found(plane, store, "alpha") == [file_id]


async def test_vectors_of_another_size_do_not_mix(plane: Plane) -> None:
    """A model that was exchanged under its name: documents say so, and so do searches."""
    store = await plane.store()
    first = plane.files.put(ANN, "alpha")
    await plane.retrieval.attach(ANN, store, Wanted(first))
    await plane.ended(store, first)
    plane.words.dimensions = 16
    second = plane.files.put(ANN, "beta")
    await plane.retrieval.attach(ANN, store, Wanted(second))
    document = await plane.ended(store, second)
    assert document.status == "failed"
    assert document.error_message is not None
    assert "16 dimensions" in document.error_message
    with pytest.raises(BadRequest) as raised:
        await plane.retrieval.search(ANN, store, Question(("alpha",)))
    assert raised.value.code == "dimension_mismatch"


async def test_an_empty_document_says_that_it_is(plane: Plane) -> None:
    store = await plane.store()
    file_id = plane.files.put(ANN, " \n ")
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    document = await plane.ended(store, file_id)
    assert (document.status, document.empty, document.passages) == ("completed", True, 0)


async def test_what_is_removed_while_it_is_read_stays_removed(plane: Plane) -> None:
    """Also a whole store: whoever was at work finds that it is wanted no more."""
    store = await plane.store()
    plane.words.gate = asyncio.Event()
    ids = [plane.files.put(ANN, f"alpha {n}") for n in range(3)]
    for id_ in ids:
        await plane.retrieval.attach(ANN, store, Wanted(id_))
    other = await plane.store()
    await plane.retrieval.attach(ANN, other, Wanted(ids[0]))
    await plane.retrieval.detach(ANN, store, ids[0])
    await plane.retrieval.delete(ANN, other)
    plane.words.gate.set()
    for id_ in ids[1:]:
        assert (await plane.ended(store, id_)).status == "completed"
    assert sorted(await found(plane, store, "alpha")) == sorted(ids[1:])
    with plane.database.reading() as tx:
        assert tx.execute(select(func.count()).select_from(passages)).scalar_one() == 2
        assert not job_store.any_left(tx)


async def test_another_process_goes_on_where_one_has_died(database: Database, tmp_path: Path) -> None:
    """At once on the same machine, with what was embedded so far."""
    folder = tmp_path / "files"
    folder.mkdir()
    files, words = Folder(folder), Words()
    first = Plane(database, tmp_path / "retrieval", files, words, "ses_1").start()
    store = await first.store()
    words.refuse.append(Refused(500, "once", "internal_error", None, again=True, wait_s=0))
    file_id = files.put(ANN, paragraphs(*(f"name{n}" for n in range(150))))
    words.gate = asyncio.Event()
    await first.retrieval.attach(ANN, store, Wanted(file_id, chunking=SMALL))
    await first.at_work()
    await first.stop()  # its lease stays: nothing was given back
    words.gate.set()
    words.refuse.clear()
    second = Plane(database, tmp_path / "retrieval", files, words, "ses_2").start()
    document = await second.ended(store, file_id)
    assert (document.status, document.passages) == ("completed", 150)
    assert len(words.embedded) == 150
    await second.stop()


async def test_a_team_searches_together(plane: Plane) -> None:
    """And a file of somebody else's cannot be put into a store of one's own."""
    store = await plane.store(ANN)
    file_id = plane.files.put(BEN, "shared words")
    await plane.retrieval.attach(ANN, store, Wanted(file_id))
    await plane.ended(store, file_id)
    assert await found(plane, store, "shared", BEN) == [file_id]
    foreign = plane.files.put(EVE, "hers")
    with pytest.raises(NotFound, match=foreign):
        await plane.retrieval.attach(ANN, store, Wanted(foreign))
    with pytest.raises(BadRequest):
        await plane.retrieval.add_batch(ANN, store, [Wanted(file_id), Wanted(file_id)])
