"""Snapshots of collections: what is restored is what there was, and what is damaged is told and restores nothing."""

from pathlib import Path

import numpy as np
import pytest

from retrieval import collection_store, document_store, snapshots
from retrieval.access import Caller
from retrieval.database import Database
from retrieval.errors import NotFound
from retrieval.filters import parse
from retrieval.index.residents import Residents
from retrieval.snapshots import Damaged, Snapshot
from tests.fixtures.retrieval import ANN, BEN, EVE, attach, fill, new_collection, unit

ALL = Caller("key_all", labels=frozenset("*"))
VECTORS = unit(np.random.default_rng(2).standard_normal((450, 8)).astype(np.float32))


def filled(database: Database) -> str:
    collection = new_collection(database)
    database.write(lambda tx: collection_store.learn_dimensions(tx, collection.id, 8))
    fill(database, attach(database, collection, "file-1", {"n": 1}), [f"alpha {n}" for n in range(430)], VECTORS[:430])
    fill(database, attach(database, collection, "file-2", {"n": 2}, ["secret"]), ["beta"] * 20, VECTORS[430:])
    attach(database, collection, "file-3")
    return collection.id


def found(database: Database, folder: Path, id_: str, caller: Caller) -> list[tuple[str, float]]:
    residents = Residents(database, folder, 1 << 24)
    collection, state = residents.current(id_)
    allowed = state.allowed(caller, parse({"type": "gte", "key": "n", "value": 1}), labelled=collection.labelled)
    hits = state.search(VECTORS[440], 5, allowed).hits
    with database.reading() as tx:
        names = {each: document_store.by_id(tx, each) for each in state.columns.row}
    rows = [list(state.columns.row)[state.owners[slot]] for slot in hits.slots]
    residents.close()
    assert all(names[row] is not None for row in rows)
    return [(names[row].source_id, round(float(s), 5)) for row, s in zip(rows, hits.scores, strict=True)]  # type: ignore[union-attr]


def test_what_is_restored_is_what_there_was(database: Database, tmp_path: Path) -> None:
    """Texts, vectors, attributes, labels and owner, in a new collection; the old one may be gone."""
    id_ = filled(database)
    before = found(database, tmp_path / "a", id_, ALL), found(database, tmp_path / "a", id_, ANN)
    made = snapshots.take(database, tmp_path, id_)
    assert (made.documents, made.passages) == (2, 450), "what is being read is not in it"
    assert snapshots.listed(tmp_path, id_) == [made]
    database.write(lambda tx: collection_store.retire(tx, id_))
    back = snapshots.restore(database, tmp_path, id_, made.id)
    assert back.id != id_
    assert (back.key_id, back.team_id, back.dimensions, back.name) == (ANN.key_id, ANN.team_id, 8, "papers")
    assert (found(database, tmp_path / "b", back.id, ALL), found(database, tmp_path / "b", back.id, ANN)) == before
    assert database.read(lambda tx: collection_store.get(tx, BEN, back.id)).id == back.id
    with pytest.raises(NotFound):
        database.read(lambda tx: collection_store.get(tx, EVE, back.id))
    again = snapshots.take(database, tmp_path, back.id)
    assert (again.documents, again.passages) == (made.documents, made.passages)
    snapshots.delete(tmp_path, id_, made.id)
    assert snapshots.listed(tmp_path, id_) == []
    with pytest.raises(NotFound):
        snapshots.restore(database, tmp_path, id_, made.id)


@pytest.mark.parametrize("damage", ["byte", "cut", "gone"])
def test_a_damaged_snapshot_restores_nothing(database: Database, tmp_path: Path, damage: str) -> None:
    id_ = filled(database)
    made: Snapshot = snapshots.take(database, tmp_path, id_)
    path = tmp_path / id_ / f"{made.id}.snapshot"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "cut" else data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(Damaged):
        snapshots.restore(database, tmp_path, id_, made.id)
    page = database.read(lambda tx: collection_store.listed(tx, ANN, 10))
    assert [each.id for each in page.data] == [id_]


def test_a_name_is_no_path(database: Database, tmp_path: Path) -> None:
    id_ = filled(database)
    snapshots.take(database, tmp_path, id_)
    for name in ("../x", "", "snap_", "*"):
        with pytest.raises(NotFound):
            snapshots.delete(tmp_path, id_, name)
    with pytest.raises(NotFound):
        snapshots.take(database, tmp_path, "vs_none")
