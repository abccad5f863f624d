"""What is shown comes from files beside the vectors, and is what the truth says: whoever changes it, and whatever becomes of the files."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from gateway.database import bare, connect
from retrieval import collection_store, document_store
from retrieval.access import Caller
from retrieval.asking import Question, Results
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.index import artefact
from retrieval.index.residents import Residents
from retrieval.search import Search
from retrieval.wal import Watch
from tests.fixtures.plane import Words
from tests.fixtures.retrieval import ANN, BEN, attach, fill, new_collection
from tests.fixtures.server import ROOT
from tests.kill.changing import PIECES, SIZES, version_of

pytestmark = pytest.mark.timeout(300)  # a process begins, which takes its time on a busy machine
SECRET = Caller("key_spy", "team_1", labels=frozenset({"secret"}))


class Same(Words):
    """Every text has the same vector."""

    def _vector(self, text: str) -> "np.typing.NDArray[np.float32]":
        del text
        return np.full(8, 8**-0.5, np.float32)


@pytest.fixture
def residents(database: Database, tmp_path: Path) -> Iterator[Residents]:
    made = Residents(database, tmp_path / "retrieval", 1 << 26, SIZES)
    yield made
    made.close()


@pytest.fixture
def search(database: Database, residents: Residents) -> Iterator[Search]:
    made = Search(database, residents, Same())
    yield made
    made.close()


def written(database: Database, residents: Residents, documents: int) -> tuple[Collection, list[Document]]:
    """A collection whose passages lie in files."""
    collection = new_collection(database)
    database.write(lambda tx: collection_store.learn_dimensions(tx, collection.id, 8))
    made = [attach(database, collection, f"file-{number}", {"n": number}) for number in range(documents)]
    for document in made:
        fill(database, document, version_of(document.source_id, 0))
    residents.maintain(collection.id)
    _, state = residents.current(collection.id)
    assert state.told.texts is not None
    assert state.told.texts.rows == state.rows == documents * PIECES
    return collection, made


def found(search: Search, collection: Collection, caller: Caller = ANN) -> Results:
    return asyncio.run(search.run(caller, collection.id, Question(("q",), 100, None, lexical=0.0)))


def texts(results: Results) -> list[str]:
    return sorted(each.passage.text for each in results.results)


@contextmanager
def another(url: str, folder: Path, collection: Collection) -> Iterator[Callable[..., None]]:
    """A process that changes documents; returns when that is committed."""
    command = [sys.executable, "-m", "tests.kill.changing", url, str(folder), collection.id]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reads, writes = process.stdout, process.stdin
        assert reads.readline() == "listening\n"

        def told(what: str, document: Document, *more: object) -> None:
            writes.write(json.dumps([what, document.id, *more]) + "\n")
            writes.flush()
            if what != "churn":
                assert reads.readline() == "done\n"

        yield told
        process.kill()


def test_files_say_what_the_truth_says(database: Database, residents: Residents, search: Search) -> None:
    collection, documents = written(database, residents, 3)
    there = {each.passage.id: each for each in found(search, collection).results}
    assert texts(found(search, collection)) == sorted(
        text for each in documents for text in version_of(each.source_id, 0)
    )
    residents.close()
    plain = Residents(database, Path("/nonexistent"), 1 << 26)
    for each in found(Search(database, plain, Same()), collection).results:
        assert (each.passage, each.document) == (there[each.passage.id].passage, there[each.passage.id].document)
    plain.close()


def test_a_change_by_another_process_is_seen_by_the_next_search(
    database: Database, residents: Residents, search: Search, database_url: str, tmp_path: Path
) -> None:
    """Deleted, written anew, described, closed to others: the moment before somebody searches, time and again."""
    collection, documents = written(database, residents, 9)
    expected = {each.id: version_of(each.source_id, 0) for each in documents}
    with another(database_url, tmp_path, collection) as told:
        for round_, document in enumerate(documents[:8]):
            for _ in range(2):  # the second one from memory and files alone
                assert texts(found(search, collection)) == sorted(chain(*expected.values()))
            match round_ % 4:
                case 0:
                    told("remove", document)
                    del expected[document.id]
                case 1:
                    told("fill", document, ["new words", *version_of("other", round_)])
                    expected[document.id] = ["new words", *version_of("other", round_)]
                case 2:
                    told("describe", document, {"n": 77})
                    now = {each.document.id: each.document.attributes for each in found(search, collection).results}
                    assert now[document.id] == {"n": 77}
                case 3:
                    told("relabel", document, ["secret"])
                    open_to_all = {id_: some for id_, some in expected.items() if id_ != document.id}
                    for _ in range(2):
                        assert texts(found(search, collection, BEN)) == sorted(chain(*open_to_all.values()))
                        assert texts(found(search, collection, SECRET)) == sorted(chain(*expected.values()))
                    told("relabel", document, [])
        residents.maintain(collection.id)
        assert texts(found(search, collection)) == sorted(chain(*expected.values()))


def test_files_are_swapped_under_searches(
    database: Database, residents: Residents, search: Search, database_url: str, tmp_path: Path
) -> None:
    """One document changes without end, in another process that writes indexes as well, until that is killed: an answer is of one moment,
    and never older than what was acknowledged before the question. Where there is no end to it, it may be short.
    """
    collection, (changing, quiet) = written(database, residents, 2)
    seen: set[int] = set()
    said = tmp_path / "said"
    with another(database_url, tmp_path, collection) as told:
        told("churn", changing)
        until = time.monotonic() + 200
        while len(seen) < 12 and time.monotonic() < until:
            lines = said.read_text().splitlines() if said.exists() else []
            acknowledged = int(lines[-1]) if lines else 0
            if len(seen) % 4 == 3:
                residents.maintain(collection.id)
            got = texts(found(search, collection))
            assert version_of(quiet.source_id, 0) == [text for text in got if text.startswith(quiet.source_id)]
            rest = {text for text in got if text.startswith(changing.source_id)}
            assert len(rest) + PIECES == len(got), "none twice"
            versions = {int(text.split()[1]) for text in rest}
            assert len(versions) <= 1
            assert all(version >= acknowledged for version in versions)
            seen |= versions
    assert len(seen) >= 12
    folder = tmp_path / "retrieval" / collection.id
    assert artefact.opened(folder) is not None, "killed at any moment, it is whole"


@contextmanager
def another_process(database: Database, tmp_path: Path) -> Iterator[tuple[Residents, Search]]:
    """As one that has shown nothing yet."""
    residents = Residents(database, tmp_path / "retrieval", 1 << 26, SIZES)
    search = Search(database, residents, Same())
    yield residents, search
    search.close()
    residents.close()


def damage(path: Path) -> None:
    """The same file, which is mapped."""
    data = bytes(byte ^ 0x15 for byte in path.read_bytes())
    with path.open("rb+") as file:
        file.write(data)


def test_damage_under_a_search_is_noticed_and_mended(database: Database, residents: Residents, tmp_path: Path) -> None:
    """By whoever reads there: what is shown is right all the same, and the file is written again."""
    collection, documents = written(database, residents, 3)
    everything = sorted(text for each in documents for text in version_of(each.source_id, 0))
    folder = tmp_path / "retrieval" / collection.id
    vectors = sorted(folder.glob("*.vectors"))
    for _ in range(3):
        with another_process(database, tmp_path) as (theirs, search):
            theirs.current(collection.id)
            (path,) = folder.glob("*.texts")
            damage(path)
            assert texts(found(search, collection)) == everything
            until = time.monotonic() + 200
            while path.exists():
                assert time.monotonic() < until, "it is not written again"
                assert texts(found(search, collection)) == everything
            while search.checking:
                time.sleep(0.01)
            assert artefact.opened(folder) is not None
            assert sorted(folder.glob("*.vectors")) == vectors, "what was not damaged stays"
    for path in folder.glob("*.texts"):
        path.write_bytes(path.read_bytes()[::-1])
    with another_process(database, tmp_path) as (again, _):
        again.current(collection.id)
        assert artefact.opened(folder) is None
        again.retry()
        assert artefact.opened(folder) is not None, "also where it is found damaged, and nobody changes anything"


def test_what_was_shown_once_is_shown_again_whatever_becomes_of_the_file(
    database: Database, residents: Residents, search: Search, tmp_path: Path
) -> None:
    """From memory, as long as nobody changed it."""
    collection, documents = written(database, residents, 2)
    everything = sorted(text for each in documents for text in version_of(each.source_id, 0))
    assert texts(found(search, collection)) == everything
    (path,) = (tmp_path / "retrieval" / collection.id).glob("*.texts")
    damage(path)
    assert texts(found(search, collection)) == everything
    assert not search.checking, "nothing was read"
    database.write(lambda tx: document_store.describe(tx, documents[0], {"n": 8}))
    told = found(search, collection).results
    assert sorted(each.passage.text for each in told) == everything
    assert {each.document.id: each.document.attributes["n"] for each in told} == {
        documents[0].id: 8,
        documents[1].id: 1,
    }


def test_what_was_changed_much_is_written_again(
    database: Database, residents: Residents, search: Search, tmp_path: Path
) -> None:
    """Texts alone, and what is changed after them is not told from them."""
    collection, documents = written(database, residents, 4)
    (vectors,) = (tmp_path / "retrieval" / collection.id).glob("*.vectors")
    for document in documents[:2]:
        database.write(lambda tx, document=document: document_store.describe(tx, document, {"n": 8}))  # type: ignore[misc]
    residents.maintain(collection.id)
    again = Residents(database, tmp_path / "retrieval", 1 << 26, SIZES)
    for each in (residents, again):
        _, state = each.current(collection.id)
        assert not state.told.stale
        assert None not in state.told.of(state.ids.tolist(), range(state.rows))
    database.write(lambda tx: document_store.describe(tx, documents[0], {"n": 9}))
    _, state = again.current(collection.id)
    assert state.told.stale == {documents[0].id}
    now = {each.document.id: each.document.attributes["n"] for each in found(search, collection).results}
    assert [now[each.id] for each in documents] == [9, 8, 2, 3]
    assert vectors.exists()
    again.close()


def test_an_index_of_an_earlier_release_gets_its_texts(
    database: Database, residents: Residents, tmp_path: Path
) -> None:
    """Without its vectors being written again, also where documents have changed since."""
    collection, (first, *others) = written(database, residents, 5)
    folder = tmp_path / "retrieval" / collection.id
    manifest = artefact.known(folder)
    assert manifest is not None
    kept = {kind: sealed for kind, sealed in manifest.files.items() if kind not in ("texts", "places")}
    residents.close()
    artefact.publish(folder, artefact.Manifest(manifest.generation, manifest.rows, manifest.dimensions, kept))
    fill(database, first, ["one of them is new"])
    again = Residents(database, tmp_path / "retrieval", 1 << 26, SIZES)
    _, state = again.current(collection.id)
    assert state.told.texts is None
    again.maintain(collection.id)
    _, state = again.current(collection.id)
    assert state.told.texts is not None
    now = artefact.known(folder)
    assert now is not None
    assert now.files["vectors"] == manifest.files["vectors"]
    later = Search(database, again, Same())
    rest = chain(*(version_of(each.source_id, 0) for each in others))
    assert texts(found(later, collection)) == sorted(["one of them is new", *rest])
    later.close()
    again.close()


def test_what_others_write_is_seen_in_the_header_that_sqlite_reads(tmp_path: Path) -> None:
    """By whatever connection it was written, also after what was written was moved into the file; and a reader changes nothing."""
    writer = connect(f"sqlite:///{tmp_path / 'a.db'}")
    with writer.begin() as tx:
        tx.exec_driver_sql("CREATE TABLE t (a)")
    reader = bare(writer)
    assert reader is not None
    reader.execute("SELECT * FROM t").fetchall()
    watch = Watch.of(str(tmp_path / "a.db"))
    assert watch is not None
    seen = {watch.seen()}
    for number in range(5):
        with writer.begin() as tx:
            tx.exec_driver_sql(f"INSERT INTO t VALUES ({number})")
            assert watch.seen() in seen, "not before it is committed"
        assert watch.seen() not in seen
        seen.add(watch.seen())
        if number == 2:
            with writer.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            seen.add(watch.seen())
        assert len(reader.execute("SELECT * FROM t").fetchall()) == number + 1
        assert watch.seen() in seen
    reader.close()
    writer.dispose()
    assert Watch.of(str(tmp_path / "b.db")) is None
