"""Tenants that grow get a graph of their own, and lose it when they shrink; it finds what is there, whatever becomes of its files."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import collection_store, document_store, passage_store
from retrieval.access import Caller
from retrieval.asking import Question, Results
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, NewCollection
from retrieval.database import Database
from retrieval.document_store import Document, NewDocument, Value
from retrieval.errors import BadRequest, NotFound
from retrieval.filters import parse
from retrieval.index import artefact
from retrieval.index.engines import Engines
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineSettings
from retrieval.search import Search
from retrieval.spaces import place_of
from retrieval.tenancy import Tenancy
from tests.fixtures.plane import Words
from tests.fixtures.retrieval import ANN, fill, unit

DIMENSIONS, AT = 16, 600
ALL = Caller("key_all", "team_1", labels=frozenset("*"))


class Told(Words):
    """Embeds every text as the vector that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.vector: NDArray[np.float32] = np.ones(DIMENSIONS, np.float32)

    def _vector(self, text: str) -> NDArray[np.float32]:
        del text
        return self.vector


class Town:
    """A store of tenants, as one process has it."""

    def __init__(self, database: Database, folder: Path, engine: str = "auto") -> None:
        self.database, self.folder, self.engine = database, folder, engine
        new = NewCollection("papers", "embed", tenancy=Tenancy("tenant", AT))
        self.store = database.write(lambda tx: collection_store.create(tx, ANN, new))
        database.write(lambda tx: collection_store.learn_dimensions(tx, self.store.id, DIMENSIONS))
        self.random = np.random.default_rng(5)
        self.numbered = 0
        self.open()

    def open(self) -> None:
        self.residents = Residents(
            self.database,
            self.folder,
            1 << 26,
            Sizes(100, 10**9),
            EngineSettings(engine=self.engine),  # type: ignore[arg-type]
        )
        self.words = Told()
        self.search = Search(self.database, self.residents, self.words)

    def close(self) -> None:
        self.search.close()
        self.residents.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def add(self, tenant: str, count: int, attributes: Mapping[str, Value] | None = None) -> Document:
        self.numbered += 1
        new = NewDocument(
            f"file-{self.numbered}", "a.txt", {"tenant": tenant, **(attributes or {})}, (), Chunking(), tenant=tenant
        )
        document = self.database.write(lambda tx: document_store.attach(tx, self.store, new))
        vectors = unit(self.random.standard_normal((count, DIMENSIONS)).astype(np.float32))
        fill(self.database, document, [f"word{self.numbered} {n}" for n in range(count)], vectors)
        return document

    def maintain(self) -> None:
        self.residents.maintain(self.store.id)

    def remove(self, document: Document) -> None:
        with self.database.writing() as tx:
            document_store.remove(tx, document)

    def move(self, document: Document, tenant: str) -> None:
        with self.database.writing() as tx:
            document_store.describe(tx, document, {**document.attributes, "tenant": tenant}, tenant)

    def found(self, tenant: str, query: NDArray[np.float32], k: int = 10, wanted: object = None) -> Results:
        self.words.vector = query
        question = Question(("q",), k, None if wanted is None else parse(wanted), lexical=0.0, tenant=tenant)
        return asyncio.run(self.search.run(ANN, self.store.id, question))

    def truth(self, tenant: str) -> tuple[NDArray[np.int64], NDArray[np.float32], list[Mapping[str, Value]]]:
        """All that it has, from the tables."""
        with self.database.reading() as tx:
            some = [each for part in passage_store.indexed(tx, self.store.id, -1, 1000, tenant=tenant) for each in part]
            said = {each.id: each.attributes for each in document_store.described(tx, self.store.id, -1, tenant)}
        ids = np.array([each.id for each in some], np.int64)
        vectors = np.array([np.frombuffer(each.vector, "<f4") for each in some], np.float32)
        return ids, vectors.reshape(len(some), -1), [said[each.document_id] for each in some]

    def recall(self, tenant: str, wanted: object = None, holds: Callable[[Mapping[str, Value]], bool] = bool) -> float:
        """At 10, over 40 questions; never an answer that is short, and never one of somebody else's."""
        ids, vectors, said = self.truth(tenant)
        mine = np.array([holds(each) for each in said], np.bool_)
        ids, vectors = ids[mine], vectors[mine]
        hits = asked = 0
        for query in unit(self.random.standard_normal((40, DIMENSIONS)).astype(np.float32)):
            found = [each.passage.id for each in self.found(tenant, query, 10, wanted).results]
            best = set(ids[np.argsort(-(vectors @ query))[:10]].tolist())
            assert len(found) == min(10, len(ids))
            assert set(found) <= set(ids.tolist())
            hits += len(best.intersection(found))
            asked += len(best)
        return hits / asked

    def place(self, tenant: str) -> Path:
        return self.folder / place_of(self.store.id, 1, tenant)

    def promoted(self, tenant: str) -> bool:
        return self.residents.promoted(self.store, tenant)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Iterator[Town]:
    pytest.importorskip("hnswlib")
    town = Town(database, tmp_path / "retrieval")
    yield town
    town.close()


def some_tenants(town: Town) -> None:
    for number in range(8):
        town.add("big", 100, {"even": number % 2 == 0, "n": float(number)})
        town.add(f"small{number}", 20)
    town.maintain()


def test_a_tenant_that_grows_is_promoted_and_one_that_shrinks_is_not_any_more(town: Town) -> None:
    """Not back and forth about the same size."""
    grown = [town.add("big", 100) for _ in range(5)]
    other = town.add("other", 50)
    town.maintain()
    query = unit(np.ones((1, DIMENSIONS), np.float32))[0]
    assert not town.promoted("big")
    answer = town.found("big", query)
    assert (answer.plans[0].name, answer.recall_mode) == ("exact", "exact")
    assert answer.partition is not None
    assert not answer.partition.promoted
    grown += [town.add("big", 100) for _ in range(2)]
    town.maintain()
    assert town.promoted("big")
    assert not town.promoted("other")
    assert not (town.folder / town.store.id / "manifest.json").exists(), "there is no index of all"
    answer = town.found("big", query)
    assert (answer.plans[0].name, answer.recall_mode, answer.plans[0].rows) == ("graph", "estimated", 700)
    assert answer.partition is not None
    assert answer.partition.promoted
    for document in grown[:3]:
        town.remove(document)
    town.maintain()
    assert town.promoted("big"), "400 of 600 is not well below"
    assert town.recall("big") >= 0.99
    town.remove(grown[3])
    town.move(grown[4], "other")
    town.maintain()
    assert not town.promoted("big")
    answer = town.found("big", query)
    assert (answer.plans[0].name, answer.plans[0].matching) == ("exact", 200)
    town.remove(other)
    for document in grown[5:]:
        town.remove(document)
    town.maintain()
    assert not town.place("big").exists()
    assert town.found("big", query).results == []


@pytest.mark.parametrize("engine", ["hnswlib", "usearch", "faiss"])
def test_a_promoted_tenant_finds_what_there_is(engine: str, database: Database, tmp_path: Path) -> None:
    """With filters of every share, after changes and without any."""
    pytest.importorskip(engine)
    town = Town(database, tmp_path / "retrieval", engine)
    try:
        some_tenants(town)
        assert town.promoted("big")
        filters: list[tuple[object, Callable[[Mapping[str, Value]], bool]]] = [
            (None, bool),
            ({"type": "eq", "key": "even", "value": True}, lambda said: said.get("even") is True),
            ({"type": "eq", "key": "n", "value": 3}, lambda said: said.get("n") == 3),
            ({"type": "not", "filter": {"type": "eq", "key": "n", "value": 3}}, lambda said: said.get("n") != 3),
            (
                {"type": "and", "filters": [{"type": "lt", "key": "n", "value": 6}]},
                lambda said: float(said.get("n", 9)) < 6,
            ),
            ({"type": "eq", "key": "n", "value": 99}, lambda said: said.get("n") == 99),
        ]
        town.add("big", 30, {"even": True, "n": 99.0})
        for wanted, holds in filters:
            assert town.recall("big", wanted, holds) >= 0.99, wanted
        assert town.recall("small3") == 1.0
    finally:
        town.close()


def test_restarts_and_changes_leave_nothing_out(town: Town) -> None:
    """Moves to and fro, removals and additions, by a process that was there as by a new one."""
    some_tenants(town)
    chance = random.Random(3)
    moved = [town.add("small1", 40) for _ in range(4)]
    for turn in range(12):
        document = chance.choice(moved)
        town.move(document, chance.choice(["big", "small1", "small2"]))
        if turn % 3 == 0:
            town.add(chance.choice(["big", "small2"]), 10)
        if turn % 4 == 1:
            town.maintain()
        if turn % 4 == 3:
            town.restart()
        for tenant in ("big", "small1", "small2"):
            assert town.recall(tenant) >= 0.99, (turn, tenant)


def test_a_damaged_partition_is_noticed_and_made_again(town: Town) -> None:
    """Each of its files, in the middle and at its end; answers are right meanwhile."""
    some_tenants(town)
    names = sorted(path.suffix for path in town.place("big").iterdir() if path.suffix in artefact.PARTS)
    assert ".graph" in names
    for suffix in (*names, ".json"):
        (path,) = (each for each in town.place("big").iterdir() if each.suffix == suffix)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
        town.restart()
        assert artefact.opened(town.place("big")) is None
        assert town.recall("big") >= 0.99
        assert town.found("big", unit(np.ones((1, DIMENSIONS), np.float32))[0]).recall_mode == "exact"
        town.maintain()
        assert town.promoted("big")
        assert town.found("big", unit(np.ones((1, DIMENSIONS), np.float32))[0]).recall_mode == "estimated"
        assert town.recall("big") >= 0.99
        assert artefact.opened(town.place("big")) is not None


def test_words_of_a_tenant_that_are_damaged_are_made_again(town: Town) -> None:
    some_tenants(town)

    def worded(tenant: str, text: str) -> int:
        question = Question((text,), dense=0.0, tenant=tenant)
        return len(asyncio.run(town.search.run(ANN, town.store.id, question)).results)

    assert (worded("big", "word1"), worded("small0", "word2"), worded("small0", "word1")) == (10, 10, 0)
    town.close()
    for path in town.place("small0").glob("words.db*"):
        path.write_bytes(b"nonsense" * 1000)
    town.open()
    assert (worded("big", "word1"), worded("small0", "word2"), worded("small0", "word1")) == (10, 10, 0)


def test_a_tenant_that_is_deleted_while_its_graph_is_made_leaves_nothing(town: Town) -> None:
    """Also where another process takes its files away at that moment."""
    some_tenants(town)
    for _ in range(5):
        town.add("big", 400)
    other = Residents(town.database, town.folder, 1 << 26, Sizes(100, 10**9))
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(town.maintain)
        while not making.done() and not any(
            path.name.count(".graph") > 0 for path in town.place("big").glob("*-*.graph")
        ):
            pass
        town.database.write(lambda tx: document_store.remove_tenant(tx, town.store.id, "big"))
        other.maintain(town.store.id)
        assert town.found("big", unit(np.ones((1, DIMENSIONS), np.float32))[0]).results == []
        with suppress(OSError):
            making.result()
    other.close()
    town.maintain()
    assert not town.place("big").exists()
    assert town.found("big", unit(np.ones((1, DIMENSIONS), np.float32))[0]).results == []
    assert town.recall("small1") == 1.0


def test_nothing_is_left_of_a_store(town: Town) -> None:
    some_tenants(town)
    with town.database.writing() as tx:
        collection_store.hide(tx, ANN, town.store.id)
    with pytest.raises(NotFound):
        town.found("big", np.ones(DIMENSIONS, np.float32))
    town.residents.drop(town.store.id)
    assert not (town.folder / town.store.id).exists()
    assert town.residents.latest(town.store.id, 1, "big") is None


def test_there_is_no_index_of_all_tenants(town: Town) -> None:
    """Whoever asks for one is refused below everything that could forget to."""
    some_tenants(town)
    with pytest.raises(NotFound):
        town.residents.current(town.store.id)
    plain = town.database.write(lambda tx: collection_store.create(tx, ANN, NewCollection("p", "embed")))
    with pytest.raises(NotFound):
        town.residents.current(plain.id, 1, "big")


def test_a_search_is_checked_within_its_tenant(town: Town) -> None:
    """The audit knows each tenant's graph by itself."""
    some_tenants(town)
    town.found("big", unit(np.ones((1, DIMENSIONS), np.float32))[0])
    while town.search.checking:
        pass
    checked: Mapping[str, object] = town.search.recall(town.store.id, "big")
    assert list(checked) == ["none"]
    assert not town.search.recall(town.store.id)
    assert not town.search.recall(town.store.id, "small1")


def test_engines_that_keep_no_graph_of_each_tenant_say_so() -> None:
    engines = Engines(EngineSettings(engine="qdrant", qdrant_url="http://127.0.0.1:1"))
    for name in ("qdrant", "qdrant_edge", "pgvector", "chroma", "milvus", "weaviate", "pinecone"):
        with pytest.raises(BadRequest, match="keeps no graph of each tenant"):
            engines.require(name, apart=True)
    engines.require("auto", apart=True)
    engines.require("exact", apart=True)
    assert engines.chosen(None, apart=True) in ("hnswlib", "usearch", None)
    assert engines.chosen("exact", apart=True) is None


def test_thousands_of_tenants_keep_few_files_open(database: Database, tmp_path: Path) -> None:
    town = Town(database, tmp_path / "retrieval")
    try:
        for number in range(80):
            town.add(f"t{number}", 2)
        for turn in range(2):
            for number in range(80):
                question = Question((f"word{number + 1}",), dense=0.0, tenant=f"t{number}")
                assert len(asyncio.run(town.search.run(ALL, town.store.id, question)).results) == 2, turn
        open_ = [
            each for each in Path("/proc/self/fd").iterdir() if each.exists() and "words.db" in str(each.resolve())
        ]
        assert len(open_) <= 64 * 3
    finally:
        town.close()


def test_a_collection_without_tenancy_is_as_it_was(database: Database, tmp_path: Path) -> None:
    """A bound key finds all of it."""
    plain = database.write(lambda tx: collection_store.create(tx, ANN, NewCollection("p", "embed")))
    town = Town(database, tmp_path / "retrieval")
    town.store = plain
    try:
        new = NewDocument("file-x", "a.txt", {"tenant": "other"}, (), Chunking())
        document = database.write(lambda tx: document_store.attach(tx, plain, new))
        database.write(lambda tx: collection_store.learn_dimensions(tx, plain.id, DIMENSIONS))
        fill(database, document, ["one"], unit(np.ones((1, DIMENSIONS), np.float32)))
        bound = msgspec.structs.replace(ANN, tenant="acme")
        asked = Question(("q",), 10, lexical=0.0)
        answer = asyncio.run(town.search.run(bound, plain.id, asked))
        assert (len(answer.results), answer.partition) == (1, None)
    finally:
        town.close()


def test_the_declared_store_is_what_it_was_after_it_is_read_again(town: Town) -> None:
    found: Collection | None = town.database.read(lambda tx: collection_store.by_id(tx, town.store.id))
    assert found is not None
    assert found.tenancy == Tenancy("tenant", AT)
