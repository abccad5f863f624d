"""An index of Pinecone, scripted: what does not fit is told, who is refused is away, and a namespace that is gone is made again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.index import engines
from retrieval.index.copies import Copies, CopyGraph
from retrieval.index.ports import EngineAway, NotMade, Rows
from retrieval.index.settings import EngineSettings
from tests.fixtures.retrieval import unit
from tests.fixtures.scripted_pinecone import KEY, ScriptedIndex, serving

pytest.importorskip("pinecone")
COUNT, DIMENSIONS = 600, 16


@pytest.fixture(scope="module")
def rows() -> Rows:
    vectors = unit(np.random.default_rng(5).standard_normal((COUNT, DIMENSIONS)).astype(np.float32))
    return Rows(vectors, np.arange(COUNT) + 7, np.arange(COUNT) % 50)


@pytest.fixture
def index() -> Iterator[ScriptedIndex]:
    with serving(ScriptedIndex(DIMENSIONS)) as index:
        yield index


def engine(index: ScriptedIndex, key: str = KEY) -> Copies:
    made = engines.made("pinecone", EngineSettings(pinecone_url=index.url, pinecone_api_key=key, timeout_s=20), "none")
    assert isinstance(made, Copies)
    return made


def loaded(engine: Copies, path: Path, rows: Rows) -> CopyGraph:
    return engine.load(path, rows)


def test_copies_follow_each_other(index: ScriptedIndex, rows: Rows, tmp_path: Path) -> None:
    """The newest and the one before stay, one that is whole is used by who comes second, and they go with their store alone."""
    one, path = engine(index), tmp_path / "1.graph"
    for generation in (1, 2, 3):
        one.build(rows, path, "vs_a", generation)
    one.build(rows, path, "vs_b", 1)
    written = index.calls.count("/vectors/upsert")
    one.build(rows, path, "vs_a", 3)
    assert index.calls.count("/vectors/upsert") == written
    assert sorted(index.namespaces) == ["penstock_vs_a_2_600", "penstock_vs_a_3_600", "penstock_vs_b_1_600"]
    allowed = np.flatnonzero(rows.documents < 10)
    truth = allowed[np.argsort(-(rows.vectors[allowed] @ rows.vectors[0]))[:5]]
    found = loaded(one, path, rows).search(rows.vectors[0], 5, 100, np.arange(10))
    assert found.slots.tolist() == truth.tolist()
    one.drop("vs_a")
    assert sorted(index.namespaces) == ["penstock_vs_b_1_600"]
    one.close()


def test_half_a_copy_is_nobodys(index: ScriptedIndex, rows: Rows, tmp_path: Path) -> None:
    """Whoever was killed over it left less than its name says."""
    one, path = engine(index), tmp_path / "1.graph"
    one.build(rows, path, "vs_a", 1)
    held = index.namespaces["penstock_vs_a_1_600"]
    held.pop(next(iter(held)))
    one.build(rows, path, "vs_a", 1)
    assert len(index.namespaces["penstock_vs_a_1_600"]) == COUNT
    one.close()


def test_a_namespace_that_is_gone_is_lost(index: ScriptedIndex, rows: Rows, tmp_path: Path) -> None:
    """Though its server says only that it finds nothing there."""
    one, path = engine(index), tmp_path / "1.graph"
    one.build(rows, path, "vs_a", 1)
    graph = loaded(one, path, rows)
    assert len(graph.search(rows.vectors[0], 5, 100, np.array([999]))) == 0
    lost = [graph.lost]
    index.namespaces.clear()
    index._matrices.clear()
    with pytest.raises(EngineAway, match="gone"):
        graph.search(rows.vectors[0], 5, 100)
    assert [*lost, graph.lost] == [False, True]
    one.close()


@pytest.mark.parametrize("status", [401, 503])
def test_an_index_of_pinecone_that_refuses_is_away(
    index: ScriptedIndex, rows: Rows, tmp_path: Path, status: int
) -> None:
    """Asked once, not at all for a while, and it is not lost."""
    one, path = engine(index), tmp_path / "1.graph"
    one.build(rows, path, "vs_a", 1)
    graph = loaded(one, path, rows)
    index.refuse = status
    with pytest.raises(EngineAway, match="refused by the script"):
        graph.search(rows.vectors[0], 5, 100)
    calls = len(index.calls)
    with pytest.raises(EngineAway, match="a moment ago"):
        graph.search(rows.vectors[0], 5, 100)
    assert len(index.calls) == calls
    assert not graph.lost
    with pytest.raises(NotMade, match="Pinecone"):
        one.build(rows, path, "vs_a", 2)
    one.close()


def test_what_does_not_fit_is_told(rows: Rows, tmp_path: Path) -> None:
    for index, reason in (
        (ScriptedIndex(DIMENSIONS + 1), "17 dimensions, the vectors have 16"),
        (ScriptedIndex(DIMENSIONS, "euclidean"), "metric euclidean"),
    ):
        with serving(index), pytest.raises(NotMade, match=reason):
            engine(index).build(rows, tmp_path / "1.graph", "vs_a", 1)
    with serving(ScriptedIndex(DIMENSIONS)) as index, pytest.raises(NotMade, match="Invalid API Key"):
        engine(index, "wrong").build(rows, tmp_path / "1.graph", "vs_a", 1)


def test_a_server_that_is_not_there_makes_nothing(rows: Rows, tmp_path: Path) -> None:
    with serving(ScriptedIndex(DIMENSIONS)) as index:
        pass
    with pytest.raises(NotMade, match="Pinecone"):
        engine(index).build(rows, tmp_path / "1.graph", "vs_a", 1)
