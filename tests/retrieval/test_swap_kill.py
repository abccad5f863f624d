"""Whoever writes indexes down is killed at it: what was acknowledged is found, once, what was removed is not, no half is used.

Two hundred moments in `make soak`, a few of them everywhere.
"""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from admin.migrate import upgrade
from gateway.database import connect
from retrieval import passage_store
from retrieval.access import Caller
from retrieval.document_store import described
from retrieval.index import artefact
from tests.fixtures import forked
from tests.fixtures.retrieval import new_collection, of
from tests.kill import swapping

PROGRAM = ("-m", "tests.kill.swapping")
ALL = Caller("key_all", labels=frozenset("*"))


class Witness:
    """What the killed ones said, and whether it is so."""

    def __init__(self, folder: Path, collection_id: str) -> None:
        self.folder = folder
        self.collection_id = collection_id
        self.kept: dict[str, tuple[int, int]] = {}
        self.gone: set[str] = set()
        self.written: set[int] = set()
        self.graphs = 0
        self._read = 0

    def check(self) -> None:
        doubtful = self._listen()
        manifest = self.folder / "retrieval" / self.collection_id / artefact.MANIFEST
        found = artefact.opened(manifest.parent)
        assert found is not None or not manifest.exists(), "a swap is whole or did not happen"
        if found is not None:
            self.written.add(found.manifest.generation)
            self.graphs += found.graph is not None
        engine = connect(swapping.url(self.folder))
        database = of(engine)
        residents = swapping.residents(self.folder)
        collection, state = residents.current(self.collection_id)
        with database.reading() as tx:
            ids = {each.id for each in described(tx, self.collection_id, 0)}
            number = passage_store.number(tx, self.collection_id)
        assert state.count == number
        everything = state.allowed(ALL, None, labelled=False)
        slots = np.arange(state.rows) if state.alive is None else np.flatnonzero(state.alive)
        assert len(np.unique(state.ids[slots])) == len(slots) == number, "a passage is there twice"
        known = np.fromiter(state.columns.row, np.int64, len(state.columns))
        words = residents.words(collection)
        for name in sorted(self.kept):
            seed, count = self.kept[name]
            passages = words.search(name, lambda asked: state.found(asked, everything), 500)
            if name in doubtful and not passages:
                self.gone.add(name)
                del self.kept[name]
                continue
            assert len(passages) == len({slot for slot, _ in passages}) == count, name
            owner = {int(known[state.owners[slot]]) for slot, _ in passages}
            assert len(owner) == 1
            assert owner <= ids
            first = swapping.vectors(seed, count)[0]
            nearest = state.search(first, 1, everything).hits
            assert nearest.scores[0] > 0.999, "the nearest of a vector is itself"
            slots_of_it = [slot for slot, _ in passages]
            told = state.told.of(state.ids[slots_of_it].tolist(), slots_of_it)
            shown = [each for each in told if each is not None]
            assert {known.text.split()[0] for known, _ in shown} <= {name}, "texts are those of the passages"
            assert {document.source_id for _, document in shown} <= {name}
            assert int(known[state.owners[nearest.slots[0]]]) in owner
        for name in self.gone:
            assert not words.search(name, lambda asked: state.found(asked, everything), 5), "a removed one returned"
        residents.close()
        engine.dispose()

    def await_graph(self) -> None:
        """Until the index that is there has one."""
        until = time.monotonic() + 60
        while (known := artefact.known(self.folder / "retrieval" / self.collection_id)) is None or known.engine is None:
            assert time.monotonic() < until, "no graph was made"
            time.sleep(0.05)

    def _listen(self) -> set[str]:
        """The names that may be there or not: somebody was killed while it removed them."""
        lines = (self.folder / "said").read_text().splitlines()
        doubtful: set[str] = set()
        for line in lines[self._read :]:
            sign, name, *rest = line.split()
            match sign:
                case "+":
                    self.kept[name] = int(rest[0]), int(rest[1])
                case "?":
                    doubtful.add(name)
                case "-":
                    doubtful.discard(name)
                    self.gone.add(name)
                    self.kept.pop(name, None)  # who added it may have been killed before it said so
        self._read = len(lines)
        return doubtful


def torment(folder: Path, kills: int, seed: int) -> Witness:
    upgrade(swapping.url(folder))
    engine = connect(swapping.url(folder))
    collection = new_collection(of(engine))
    engine.dispose()
    chance, began = random.Random(seed), time.monotonic()
    witness = Witness(folder, collection.id)
    for round_ in range(kills):
        child = forked.begin([*PROGRAM, str(folder), collection.id, str(seed % 10_000 * 1000 + round_)], {})
        assert child.stdout is not None
        said = child.stdout.readline()
        assert said == "listening\n", said + child.stdout.read()
        if round_ % 10 == 0:  # a graph takes longer than that on a busy machine, and it is what is to be swapped
            witness.await_graph()
        time.sleep(chance.random() * 1.5)
        child.kill()
        child.wait()
        child.stdout.close()
        witness.check()
        if round_ % 10 == 9:
            took = time.monotonic() - began
            print(
                f"{round_ + 1} kills, {len(witness.kept)} documents, {len(witness.written)} indexes, {took:.0f} s",
                flush=True,
            )
    return witness


def test_an_index_survives_kills(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib")
    torment(tmp_path, 2, seed=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_index_survives_two_hundred_kills(tmp_path: Path) -> None:
    """Indexes were swapped meanwhile, with graphs, and the last writer leaves one index and nothing beside it."""
    pytest.importorskip("hnswlib")
    witness = torment(tmp_path, 200, seed=int(time.time()))
    assert len(witness.written) > 20
    assert witness.graphs > 10
    residents = swapping.residents(tmp_path)
    residents.maintain(witness.collection_id)
    residents.close()
    folder = tmp_path / "retrieval" / witness.collection_id
    assert len(list(folder.glob("*.vectors"))) == 1
    assert len(list(folder.glob("*.graph"))) <= 1
