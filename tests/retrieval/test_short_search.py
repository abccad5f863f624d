"""A search that is answered from memory and SQLite's file shows what the truth shows, at every moment."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import collection_store, document_store, removal
from retrieval.access import Caller
from retrieval.asking import Question, Results
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import NotFound
from retrieval.filters import parse
from retrieval.index.residents import Residents
from retrieval.search import Search
from tests.fixtures.plane import Words
from tests.fixtures.retrieval import ANN, BEN, EVE, attach, fill, new_collection, unit

SECRET = Caller("key_spy", "team_1", labels=frozenset({"secret"}))


class Fixed(Words):
    """Embeds every text as the same vector."""

    def _vector(self, text: str) -> NDArray[np.float32]:
        del text
        same: NDArray[np.float32] = unit(np.ones((1, 8), np.float32))[0]
        return same


@pytest.fixture
def search(database: Database, tmp_path: Path) -> Iterator[Search]:
    residents = Residents(database, tmp_path / "retrieval", 1 << 26)
    made = Search(database, residents, Fixed())
    yield made
    made.close()
    residents.close()


def found(search: Search, collection: Collection, caller: Caller = ANN, wanted: object = None, k: int = 10) -> Results:
    question = Question(("q",), k, None if wanted is None else parse(wanted), lexical=0.0)
    return asyncio.run(search.run(caller, collection.id, question))


def embedded(database: Database) -> Collection:
    """Whose first vector has been."""
    made = new_collection(database)
    database.write(lambda tx: collection_store.learn_dimensions(tx, made.id, 8))
    return made


def texts(results: Results) -> list[str]:
    return [each.passage.text for each in results.results]


def test_it_answers_as_a_search_that_takes_its_time(database: Database, search: Search) -> None:
    collection = embedded(database)
    document = attach(database, collection, "file-1", {"year": 2024})
    vectors = unit(np.random.default_rng(3).random((8, 8)).astype(np.float32))
    fill(database, document, [f"text {number}" for number in range(8)], vectors)
    slow = found(search, collection)
    short = found(search, collection)
    assert short == slow
    assert len(short.results) == 8
    assert short.results[0].document.attributes == {"year": 2024}
    assert [trace.rank for each in short.results for trace in each.traces] == list(range(1, 9))
    assert found(search, collection, k=3).results == short.results[:3]


def test_what_changes_is_noticed_by_the_next_search(database: Database, search: Search) -> None:
    """Without anybody telling: another process may have done it."""
    collection = embedded(database)
    one, two = attach(database, collection, "file-1"), attach(database, collection, "file-2")
    fill(database, one, ["old"])
    fill(database, two, ["other"])
    for _ in range(3):
        assert set(texts(found(search, collection))) == {"old", "other"}
    fill(database, one, ["new"])
    assert set(texts(found(search, collection))) == {"new", "other"}
    with database.writing() as tx:
        document_store.remove(tx, two)
    for _ in range(3):
        assert texts(found(search, collection)) == ["new"]
    database.write(lambda tx: document_store.describe(tx, one, {"year": 2025}))
    assert found(search, collection).results[0].document.attributes == {"year": 2025}
    database.write(lambda tx: document_store.relabel(tx, one, ["secret"]))
    for _ in range(3):
        assert texts(found(search, collection, BEN)) == []
        assert texts(found(search, collection, SECRET)) == ["new"]
    removal.purge(database, collection.id)
    with pytest.raises(NotFound):
        found(search, collection)


def test_a_collection_is_there_for_its_owners_only(database: Database, search: Search) -> None:
    """Also where another caller has just had an answer from memory."""
    collection = embedded(database)
    fill(database, attach(database, collection, "file-1"), ["text"])
    for _ in range(3):
        assert texts(found(search, collection)) == texts(found(search, collection, BEN)) == ["text"]
        with pytest.raises(NotFound):
            found(search, collection, EVE)
    database.write(lambda tx: collection_store.hide(tx, ANN, collection.id))
    with pytest.raises(NotFound):
        found(search, collection)


def test_filters_that_python_calls_equal_are_kept_apart(database: Database, search: Search) -> None:
    """1 is not true, and what both must say is not what one of them must."""
    collection = embedded(database)
    for name, attributes in (
        ("one", {"a": 1.0, "b": 0.0}),
        ("true", {"a": True, "b": 1.0}),
        ("both", {"a": 1.0, "b": 1.0}),
    ):
        fill(database, attach(database, collection, name, attributes), [name])
    is_one, b_too = {"type": "eq", "key": "a", "value": 1}, {"type": "eq", "key": "b", "value": 1}
    for _ in range(3):
        assert set(texts(found(search, collection, wanted=is_one))) == {"one", "both"}
        assert texts(found(search, collection, wanted={**is_one, "value": True})) == ["true"]
        assert texts(found(search, collection, wanted={"type": "and", "filters": [is_one, b_too]})) == ["both"]
        either = found(search, collection, wanted={"type": "or", "filters": [is_one, b_too]})
        assert set(texts(either)) == {"one", "true", "both"}
