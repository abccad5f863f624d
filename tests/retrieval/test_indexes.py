"""Indexes over the truth, on both kinds of database: they follow it, survive damage, and find nothing that is gone."""

import random
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import collection_store, document_store, removal
from retrieval.access import Caller
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import NotFound, Unavailable
from retrieval.filters import parse
from retrieval.index import artefact, building
from retrieval.index.lexical import Lexical
from retrieval.index.ports import NotMade
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineSettings
from tests.fixtures.retrieval import ANN, attach, fill, new_collection, unit

MEBI = 1024 * 1024
ALL = Caller("key_all", labels=frozenset("*"))


@pytest.fixture
def open_residents(database: Database, tmp_path: Path) -> Callable[[], Residents]:
    """Another process, as far as files and the database know. A hundred rows are written down, and twice as many get a graph."""
    return lambda: Residents(database, tmp_path / "retrieval", 64 * MEBI, Sizes(100, 200 * 8))


def vectors(count: int, seed: int = 1, dimensions: int = 8) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32))


def nearest(residents: Residents, collection: Collection, query: NDArray[np.float32], k: int = 5) -> list[int]:
    """Ids of passages."""
    _, state = residents.current(collection.id)
    answer = state.search(query, k, state.allowed(ALL, None, labelled=False))
    return [int(state.ids[slot]) for slot in answer.hits.slots]


def worded(residents: Residents, collection: Collection, text: str) -> list[int]:
    now, state = residents.current(collection.id)
    allowed = state.allowed(ALL, None, labelled=False)
    found = residents.words(now).search(text, lambda ids: state.found(ids, allowed), 10)
    return [int(state.ids[slot]) for slot, _ in found]


def test_an_index_follows_the_truth(database: Database, open_residents: Callable[[], Residents]) -> None:
    """What is added is found, what is replaced or removed is not, by a process that was there before as by a new one."""
    collection = new_collection(database)
    residents = open_residents()
    assert nearest(residents, collection, vectors(1)[0]) == []
    one, two = attach(database, collection, "file-1"), attach(database, collection, "file-2")
    first = fill(database, one, ["alpha beta", "gamma"], vectors(2, 1))
    second = fill(database, two, ["alpha delta"], vectors(1, 2))
    for each in (residents, open_residents()):
        assert set(nearest(each, collection, vectors(1)[0])) == {*first, *second}
        assert set(worded(each, collection, "alpha")) == {first[0], second[0]}
    third = fill(database, one, ["epsilon"], vectors(1, 3))
    with database.writing() as tx:
        document_store.remove(tx, two)
    for each in (residents, open_residents()):
        assert nearest(each, collection, vectors(1)[0]) == third
        assert worded(each, collection, "alpha") == []
        assert worded(each, collection, "EPSILONS") == third, "case and endings do not matter"
    removal.purge(database, collection.id)
    with pytest.raises(NotFound):
        residents.current(collection.id)


def test_attributes_and_labels_are_in_force_at_once(
    database: Database, open_residents: Callable[[], Residents]
) -> None:
    """For a process that has the index in memory: a label that is given closes the document to others with the next search."""
    collection = new_collection(database)
    residents = open_residents()
    document = attach(database, collection, "file-1", {"year": 2024})
    fill(database, document, ["text"])

    def count(caller: Caller, year: int | None = None) -> int:
        now, state = residents.current(collection.id)
        wanted = None if year is None else parse({"type": "eq", "key": "year", "value": year})
        return state.allowed(caller, wanted, labelled=now.labelled).count

    assert (count(ANN), count(ANN, 2024), count(ANN, 2025)) == (1, 1, 0)
    database.write(lambda tx: document_store.describe(tx, document, {"year": 2025}))
    assert (count(ANN, 2024), count(ANN, 2025)) == (0, 1)
    database.write(lambda tx: document_store.relabel(tx, document, ["secret"]))
    assert (count(ANN), count(ANN, 2025), count(ALL)) == (0, 0, 1)
    assert count(Caller("key_x", labels=frozenset({"secret"}))) == 1


def test_what_was_written_is_opened_and_brought_up_to_date(
    database: Database, open_residents: Callable[[], Residents], tmp_path: Path
) -> None:
    """With what was removed, added and said of documents since."""
    collection = new_collection(database)
    documents = [attach(database, collection, f"file-{n}", {"n": n}) for n in range(3)]
    rows = vectors(450)
    ids = [fill(database, each, ["text"] * 150, rows[n * 150 : (n + 1) * 150]) for n, each in enumerate(documents)]
    open_residents().maintain(collection.id)
    found = artefact.opened(tmp_path / "retrieval" / collection.id)
    assert found is not None
    assert found.manifest.rows == 450
    assert found.graph is not None, "made by a child, and measured"
    with database.writing() as tx:
        document_store.remove(tx, documents[0])
    database.write(lambda tx: document_store.describe(tx, documents[1], {"n": 7}))
    last = attach(database, collection, "file-9", {"n": 9})
    new = fill(database, last, ["more"] * 20, vectors(20, 5))
    residents = open_residents()
    _, state = residents.current(collection.id)
    assert (state.rows, state.count) == (470, 320)
    assert state.graph is not None
    expected = {*ids[1], *ids[2], *new}
    assert set(nearest(residents, collection, rows[0], 999)) == expected
    seven = state.allowed(ALL, parse({"type": "eq", "key": "n", "value": 7}), labelled=False)
    assert seven.count == 150
    residents.maintain(collection.id)
    again = artefact.opened(tmp_path / "retrieval" / collection.id)
    assert again is not None
    assert again.manifest.rows == 320, "the dead are left out when so many of them have gathered"
    assert set(nearest(residents, collection, rows[0], 999)) == expected
    files = {path.suffix for path in (tmp_path / "retrieval" / collection.id).iterdir()}
    assert len(list((tmp_path / "retrieval" / collection.id).glob("*.vectors"))) == 1, files


def test_a_damaged_index_is_noticed_and_made_again(
    database: Database, open_residents: Callable[[], Residents], tmp_path: Path
) -> None:
    """Twenty times of twenty, whichever file and wherever in it: nobody crashes, and the answer is right."""
    collection = new_collection(database)
    rows = vectors(300)
    ids = fill(database, attach(database, collection, "file-1"), [f"word{n}" for n in range(300)], rows)
    open_residents().maintain(collection.id)
    folder = tmp_path / "retrieval" / collection.id
    chance = random.Random(3)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {*artefact.PARTS, ".json"})
    assert len(names) == 7
    whole = {name: (folder / name).read_bytes() for name in names}
    for round_ in range(20):
        name = names[round_ % len(names)]
        data = bytearray(whole[name])
        if round_ % 4 == 3:
            data = data[: chance.randrange(len(data))]
        else:
            at = chance.randrange(len(data))
            length = min(len(data) - at, chance.randrange(1, 512))
            data[at : at + length] = bytes(byte ^ chance.randrange(1, 256) for byte in data[at : at + length])
        (folder / name).write_bytes(data)
        assert artefact.opened(folder) is None
        assert nearest(open_residents(), collection, rows[7], 3)[0] == ids[7]
        (folder / name).write_bytes(whole[name])
    (folder / names[0]).write_bytes(b"")
    open_residents().maintain(collection.id)
    assert artefact.opened(folder) is not None


def test_a_damaged_index_of_words_is_made_again(
    database: Database, open_residents: Callable[[], Residents], tmp_path: Path
) -> None:
    collection = new_collection(database)
    ids = fill(database, attach(database, collection, "file-1"), ["alpha", "beta"])
    residents = open_residents()
    assert worded(residents, collection, "beta") == [ids[1]]
    residents.close()
    for data in (b"", b"not a database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 4096):
        (tmp_path / "retrieval" / collection.id / "words.db").write_bytes(data)
        for suffix in ("-wal", "-shm"):
            (tmp_path / "retrieval" / collection.id / f"words.db{suffix}").unlink(missing_ok=True)
        assert worded(open_residents(), collection, "beta") == [ids[1]]


def test_words_are_ranked_by_how_much_they_say(database: Database, open_residents: Callable[[], Residents]) -> None:
    """A rare word before a common one, accents aside, and whatever a question has in it that is no word."""
    collection = new_collection(database)
    texts = [
        *(f"the common text {n}" for n in range(40)),
        "the café near the river",
        'quotes " and AND OR NOT * ( : stay words',
    ]
    ids = fill(database, attach(database, collection, "file-1"), texts, vectors(len(texts)))
    residents = open_residents()
    assert worded(residents, collection, "the common cafe")[0] == ids[40]
    assert worded(residents, collection, '"stay" AND (words* OR near:')[0] == ids[41]
    assert len(worded(residents, collection, "the common")) == 10
    for nothing in ("", "?!", "zebra", "\0", "'"):
        assert worded(residents, collection, nothing) == []


def test_memory_is_given_back(database: Database, tmp_path: Path) -> None:
    """Within a budget, the least recently used goes first, and comes back when it is asked for."""
    residents = Residents(database, tmp_path / "retrieval", 3 * MEBI)
    made = []
    for number in range(4):
        collection = new_collection(database)
        made.append(
            (
                collection,
                fill(database, attach(database, collection, "file-1"), ["t"] * 400, vectors(400, number, 256)),
            )
        )
    for collection, ids in (*made, *made):
        assert nearest(residents, collection, vectors(1, made.index((collection, ids)), 256)[0], 1) == ids[:1]
        assert sum(each.nbytes for each in residents._known.values()) <= 3 * MEBI


def test_a_graph_that_nobody_waits_for_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes minutes, and a server that ends does not."""
    child = tmp_path / "python"
    child.write_text("#!/bin/sh\nexec sleep 600\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    manifest = artefact.Manifest(1, 1, 8, {"vectors": artefact.Sealed("1.vectors", 32, "")})
    given_up, wanted = threading.Event(), building.Wanted("hnswlib", EngineSettings(), "none", "vs_1")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(building.build, tmp_path, manifest, wanted, given_up)
        given_up.set()
        with pytest.raises(NotMade, match="given up"):
            made.result(60)


def test_words_that_are_locked_are_not_thrown_away(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else writes to them: that is no damage."""
    monkeypatch.setattr("retrieval.index.lexical.WAIT_S", 0.05)
    collection = new_collection(database)
    ids = fill(database, attach(database, collection, "file-1"), ["alpha"])
    words = Lexical(database, collection.id, tmp_path)
    newest = database.read(lambda tx: collection_store.get(tx, ANN, collection.id)).generation
    words.refresh(newest)
    found = words.search("alpha", lambda ids: ids, 5)
    assert [slot for slot, _ in found] == ids
    with closing(sqlite3.connect(tmp_path / "words.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fill(database, attach(database, collection, "file-2"), ["beta"])
        with pytest.raises(Unavailable, match="locked"):
            words.refresh(newest + 2)
        assert (tmp_path / "words.db").exists()
        other.execute("ROLLBACK")
    words.refresh(newest + 2)
    assert len(words.search("alpha beta", lambda ids: ids, 5)) == 2
    words.close()


def test_what_an_index_takes_is_measured_before_it_is_built(database: Database, tmp_path: Path) -> None:
    """On the collection's own vectors: the file is as large as it says, and a collection without vectors says that."""
    collection = new_collection(database)
    residents = Residents(database, tmp_path, 1 << 24)
    told = residents.advise(collection, None)
    assert (told.rows, told.build_seconds, told.note is None) == (0, None, False)
    database.write(lambda tx: collection_store.learn_dimensions(tx, collection.id, 8))
    fill(database, attach(database, collection, "file-1"), ["text"] * 450, vectors(450))
    known = database.read(lambda tx: collection_store.get(tx, ANN, collection.id))
    told = residents.advise(known, None)
    assert (told.rows, told.sampled, told.graph_wanted) == (450, 450, False)
    assert told.artefact_bytes == 450 * (4 * 8 + 16)
    assert 450 * 40 < told.texts_bytes < 450 * 1000
    assert told.build_seconds is not None
    assert told.graph_bytes is not None
    more = residents.advise(known, 2_000_000)
    assert more.graph_wanted
    assert more.graph_bytes is not None
    assert abs(more.graph_bytes / told.graph_bytes - 2_000_000 / 450) < 1000
    assert residents.advise(msgspec.structs.replace(known, engine="exact"), None).build_seconds is None
    residents.close()
