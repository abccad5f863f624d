"""Stores that declare tenancy and are cut anew while they are in use, on both kinds of database: a tenant reads its own passages, in one
cut or in the other, and nobody else's; nothing is left of the cut that nobody reads.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import collection_store, document_store, passage_store
from retrieval.access import Caller
from retrieval.asking import Question, Result, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import NewCollection
from retrieval.database import Database
from retrieval.document_store import NewDocument
from retrieval.errors import TenantRequired
from retrieval.index import artefact
from retrieval.index.lexical import Lexical, file_of
from retrieval.index.residents import Residents
from retrieval.passage_store import New, Placed
from retrieval.ports import Chunk
from retrieval.reembedding import moves
from retrieval.reembedding.record import Asked, Gate, Reembedding, Relevant, Terms
from retrieval.spaces import FIRST, TENANTS, place_of
from retrieval.tenancy import Tenancy
from tests.fixtures.anew import SMALL, House
from tests.fixtures.editions import require_sound, unread
from tests.fixtures.retrieval import ANN, BEN, fill, unit

TINY = Chunking("static", 40, 0)
AT = 12  # passages, and a tenant has a graph
OF: Mapping[str, tuple[str, ...]] = {
    "big": ("alpha", "beta", "gamma", "delta"),
    "mid": ("alpha", "beta"),
    "low": ("alpha",),
}


def story(tenant: str, name: str, tokens: int = 400) -> str:
    """Each fortieth word is one of its own, and the one behind it says whose it is."""
    said = (name, f"of{tenant}")
    return " ".join(f"{name}{at // 40}" if at % 40 == 0 else said[at % 40 == 1] for at in range(tokens))


async def put(house: House, home: str, tenant: str, name: str) -> str:
    id_ = house.files.put(ANN, story(tenant, name))
    await house.retrieval.attach(ANN, home, Wanted(id_, {"tenant": tenant}, chunking=SMALL))
    assert (await house.ended(home, id_)).status == "completed"
    return id_


async def filled(house: House) -> tuple[str, dict[tuple[str, str], str]]:
    home = await house.store(tenancy=Tenancy("tenant", AT))
    return home, {(tenant, name): await put(house, home, tenant, name) for tenant in OF for name in OF[tenant]}


async def found(house: House, home: str, tenant: str, text: str, caller: Caller = ANN) -> list[Result]:
    """By meaning, then by words; none of them of another tenant's."""
    results: list[Result] = []
    for dense, lexical in ((1.0, 0.0), (0.0, 1.0)):
        question = Question((text,), 50, dense=dense, lexical=lexical, tenant=tenant)
        some = (await house.retrieval.search(caller, home, question)).results
        assert {each.document.tenant for each in some} <= {tenant}
        assert len({each.passage.id for each in some}) == len(some)
        results += some
    return results


async def sizes(house: House, home: str, caller: Caller = ANN) -> Mapping[str, set[int]]:
    """Of all passages that are found of each tenant. All find the first file's third own word, and what it stands in comes first."""
    seen = {}
    for tenant in OF:
        some = await found(house, home, tenant, "alpha3", caller)
        assert "alpha3" in some[0].passage.text.split()
        assert "alpha3" in some[-1].passage.text.split()
        assert all(f"of{tenant}" in each.passage.text.split() for each in some)
        seen[tenant] = {len(each.passage.text.split()) for each in some}
    return seen


def all_of(size: int) -> Mapping[str, set[int]]:
    return {tenant: {size} for tenant in OF}


async def partitions(house: House, home: str) -> Mapping[str, tuple[int, bool]]:
    """Of each tenant, its passages and whether it has a graph."""
    page = await house.retrieval.tenants(ANN, home, 10, None)
    return {each.partition.tenant: (each.partition.passages, each.promoted) for each in page.data}


async def become(house: House, home: str, wanted: Mapping[str, tuple[int, bool]]) -> None:
    async with asyncio.timeout(30):
        while await partitions(house, home) != wanted:  # noqa: ASYNC110 — nobody would tell
            await asyncio.sleep(0.02)


def promote(house: House, one: Reembedding) -> None:
    house.database.write(lambda tx: moves.promote(tx, one.collection_id, one.id, force=False))


def words(folder: Path) -> set[str]:
    """Names of the indexes of words that there are, of whichever tenant."""
    return {path.name.removesuffix("-wal").removesuffix("-shm") for path in folder.glob("**/words*")}


async def test_each_tenant_is_cut_anew_and_back(house: House, tmp_path: Path) -> None:
    """Its old passages until the swap and after a rollback, new ones between, by meaning and by words; a canary's keys see new ones
    before; who has a graph keeps it, and who has enough passages for one in the new cut has it there; files come, go and move.
    """
    home, ids = await filled(house)
    await become(house, home, {"big": (16, True), "mid": (8, False), "low": (4, False)})
    assert await sizes(house, home) == all_of(100)
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY), "ready")
    anew = (await house.retrieval.get(ANN, home)).collection.within(house.now(one).after)
    async with asyncio.timeout(
        30
    ):  # by what each has in the new cut, before anybody reads it; somebody else may be making one
        while [house.retrieval._residents.promoted(anew, each) for each in OF] != [True, True, False]:  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.02)
    assert await sizes(house, home) == all_of(100)
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, [BEN.key_id]))
    assert await sizes(house, home, BEN) == all_of(40)
    assert await sizes(house, home) == all_of(100)
    with pytest.raises(TenantRequired):
        await house.retrieval.search(BEN, home, Question(("alpha3",)))
    await put(house, home, "low", "omega")
    await house.retrieval.detach(ANN, home, ids["big", "delta"])
    moved = ids["mid", "beta"]
    await house.retrieval.describe(ANN, home, moved, {"tenant": "big"}, None)
    for caller, size in ((ANN, 100), (BEN, 40)):
        for tenant, word, there in (
            ("low", "omega5", 1),
            ("big", "delta5", 0),
            ("mid", "beta5", 0),
            ("big", "ofmid", 1),
        ):
            some = [
                each for each in await found(house, home, tenant, word, caller) if word in each.passage.text.split()
            ]
            assert bool(some) == bool(there), (caller, tenant, word)
            assert {len(each.passage.text.split()) for each in some} <= {size}
    await house.retrieval.describe(ANN, home, moved, {"tenant": "mid"}, None)
    assert await sizes(house, home, BEN) == all_of(40)
    assert not house.now(one).behind
    promote(house, one)
    require_sound(house, home)
    assert await sizes(house, home) == await sizes(house, home, BEN) == all_of(40)
    await become(house, home, {"big": (30, True), "mid": (20, True), "low": (20, True)})
    house.database.write(lambda tx: moves.roll_back(tx, home, one.id, None))
    require_sound(house, home)
    assert await sizes(house, home) == await sizes(house, home, BEN) == all_of(100)
    await become(house, home, {"big": (12, True), "mid": (8, False), "low": (8, False)})
    await house.until(one, lambda now: now.collected)
    house.retrieval._residents.sweep()
    assert unread(house, home, 2, 2) == (0, 0, 0)
    assert not (tmp_path / "retrieval" / f"{home}.v2").exists()
    assert words(tmp_path / "retrieval" / home) == {file_of(FIRST)}
    assert await sizes(house, home) == all_of(100)


async def test_what_nobody_reads_any_more_leaves_the_folders_of_tenants(house: House, tmp_path: Path) -> None:
    """The gate asks tenants in both cuts. After the end the first cut is gone from the disk, whoever had it open, and so is a tenant."""
    home, ids = await filled(house)
    await become(house, home, {"big": (16, True), "mid": (8, False), "low": (4, False)})
    await sizes(house, home)
    house.work()
    asked = [Asked(f"{name}3", [Relevant(id_)]) for (_, name), id_ in ids.items()]
    terms = Terms(gate=Gate(asked, 0.02, mode="hybrid"), keep_s=0, auto=True)
    one = await house.reach(house.begin(home, terms=terms, chunking=TINY), "finished")
    assert one.verdict is not None
    assert set(one.verdict.before.values()) == set(one.verdict.after.values()) == {1.0}
    await house.until(one, lambda now: now.collected)
    assert await sizes(house, home) == all_of(40)
    await become(house, home, {"big": (40, True), "mid": (20, True), "low": (10, False)})
    house.retrieval._residents.sweep()
    folder = tmp_path / "retrieval"
    assert unread(house, home, FIRST, FIRST) == (0, 0, 0)
    assert words(folder / home) == {file_of(2)}
    assert not list((folder / home).glob(f"**/{artefact.MANIFEST}"))
    await house.retrieval.remove_tenant(ANN, home, "big")
    async with asyncio.timeout(20):
        while any((folder / place_of(home, version, "big")).exists() for version in (FIRST, 2)):  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.02)
    assert set(await partitions(house, home)) == {"mid", "low"}
    await house.retrieval.delete(ANN, home)
    assert not list(folder.glob(f"{home}*"))


async def test_another_process_forgets_a_cut_of_tenants_as_well(house: House, tmp_path: Path) -> None:
    """It sweeps what it had open, and what somebody left there."""
    home, _ = await filled(house)
    other = Residents(house.database, tmp_path / "other", 1 << 26)
    collection = house.database.read(lambda tx: collection_store.by_id(tx, home))
    assert collection is not None
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY), "ready")
    space = house.now(one).after
    for version in (collection, collection.within(space)):
        for tenant in OF:
            known, state = await asyncio.to_thread(other.current, home, version.version, tenant)
            words = await asyncio.to_thread(other.words, known, tenant)
            assert len(words.search("alpha3", state.slots_of, 50)) == 1
    homes = [
        tmp_path / "other" / home / TENANTS / path.name for path in (tmp_path / "other" / home / TENANTS).iterdir()
    ]
    assert len(homes) == 3
    assert all((each / file_of(edition)).exists() for each in homes for edition in (FIRST, 2))
    house.database.write(lambda tx: moves.cancel(tx, home, one.id))
    other.sweep()
    assert all((each / file_of(FIRST)).exists() for each in homes)
    assert not any((each / f"{file_of(2)}{suffix}").exists() for each in homes for suffix in ("", "-wal", "-shm"))
    assert not (tmp_path / "other" / f"{home}.v2").exists()
    other.close()


def test_words_of_a_tenant_have_what_is_cut_later_than_its_document_changed(database: Database, tmp_path: Path) -> None:
    """A document that is cut anew has not changed; an index of its words that looked in between finds its passages afterwards."""
    new = NewCollection("papers", "embed", tenancy=Tenancy("tenant", 1000))
    store = database.write(lambda tx: collection_store.create(tx, ANN, new))
    vectors: NDArray[np.float32] = unit(np.ones((1, 8), np.float32))
    indexes = {tenant: Lexical(database, store.id, tmp_path / tenant, 2, tenant) for tenant in ("a", "b")}
    documents = {}
    for tenant in indexes:
        made = NewDocument(f"file-{tenant}", "a.txt", {"tenant": tenant}, (), Chunking(), tenant=tenant)
        documents[tenant] = database.write(lambda tx, made=made: document_store.attach(tx, store, made))  # type: ignore[misc]
        fill(database, documents[tenant], [f"old {tenant}"], vectors)

    def generation() -> int:
        found = database.read(lambda tx: collection_store.by_id(tx, store.id))
        assert found is not None
        return found.generation

    def hits(tenant: str, text: str) -> int:
        indexes[tenant].refresh(generation())
        return len(indexes[tenant].search(text, lambda ids: ids, 10))

    assert [hits(tenant, "old") for tenant in indexes] == [0, 0]
    for tenant in indexes:
        with database.writing() as tx:
            chunk = Chunk(f"new {tenant}", 0, 5, None, None, (), 2)
            id_ = documents[tenant].id
            (made_id,) = passage_store.prepare(
                tx, store.id, id_, [New(0, b"h" * 32, chunk, vectors[0].tobytes())], edition=2
            )
            at = collection_store.next_generation(tx, store.id)
            passage_store.publish(tx, store.id, id_, at, [Placed(made_id, 0, chunk)], (), 2)
    assert [hits(tenant, "new") for tenant in indexes] == [1, 1]
    assert [hits(tenant, "old") for tenant in indexes] == [0, 0]
    with database.reading() as tx:
        counts = [
            [passage_store.number(tx, store.id, edition, tenant) for tenant in indexes] for edition in (FIRST, 2, 3)
        ]
        cut = [each.passages for each in document_store.partitions(tx, store.id, edition=2)]
    assert counts == [[1, 1], [1, 1], [0, 0]]
    assert cut == [0, 0], "as it is said of the documents, and nothing is"
    for each in indexes.values():
        each.close()
