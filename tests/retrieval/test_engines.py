"""One contract for every engine of vectors: what passes a filter is found, however few or many pass it and wherever they lie.

Recall at 10 is 0.99 or more at every selectivity, whether the filter has to do with the vectors or not, and an answer is never short.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from retrieval.access import Caller
from retrieval.filters import Filter, parse
from retrieval.index.building import measured
from retrieval.index.codes import CodesEngine
from retrieval.index.columns import Columns
from retrieval.index.engines import Engines, made
from retrieval.index.planner import Costs, plan
from retrieval.index.ports import NotMade, Rows
from retrieval.index.settings import EngineName, EngineSettings, Quantization
from retrieval.index.state import State
from retrieval.index.usearch import Usearch
from tests.fixtures.engines import DIMENSIONS, ENGINES, FEW, ROWS, Crowd, Opener
from tests.fixtures.retrieval import unit

ALL = Caller("key_all", labels=frozenset("*"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(scope="module")
def opened(crowd: Crowd, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Opener]:
    opener = Opener(crowd, tmp_path_factory.mktemp("graphs"), lambda: request.getfixturevalue("postgres_url"))
    yield opener
    opener.close()


def below(attribute: str, share: float) -> Filter | None:
    return None if share == 1 else parse({"type": "lt", "key": attribute, "value": share})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attribute", ["random", "near"])
@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.01, 0.001])
def test_recall_under_filters(opened: Opener, crowd: Crowd, engine: str, attribute: str, share: float) -> None:
    """Against every allowed row compared one by one."""
    state = opened(engine)
    allowed = state.allowed(ALL, below(attribute, share), labelled=False)
    assert allowed.count == int(share * ROWS)
    wanted = np.arange(ROWS) if allowed.mask is None else np.flatnonzero(allowed.mask)
    found = 0
    queries = crowd.queries[: FEW.get(engine)]
    for query in queries:
        answer = state.search(query, 10, allowed)
        truth = wanted[np.argsort(-(crowd.vectors[wanted] @ query))[:10]]
        assert len(answer.hits) == len(set(answer.hits.slots.tolist())) == min(10, allowed.count)
        assert np.allclose(answer.hits.scores, crowd.vectors[answer.hits.slots] @ query, atol=1e-5)
        assert (np.diff(answer.hits.scores) <= 0).all()
        found += len(set(truth.tolist()).intersection(answer.hits.slots.tolist()))
    assert found / (len(queries) * min(10, allowed.count)) >= 0.99


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 10, 50])
def test_an_answer_is_never_short(opened: Opener, crowd: Crowd, engine: str, k: int) -> None:
    """Where a handful pass, far from the question, all of them are found."""
    state = opened(engine)
    for count in (0, 1, 9, 49, 51):
        wanted = parse({"type": "gte", "key": "near", "value": (ROWS - count) / ROWS})
        allowed = state.allowed(ALL, wanted, labelled=False)
        assert allowed.count == count
        answer = state.search(crowd.queries[0], k, allowed)
        assert len(answer.hits) == min(k, count)
        assert allowed.mask is not None
        assert allowed.mask[answer.hits.slots].all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_dead_are_not_found(opened: Opener, crowd: Crowd, engine: str) -> None:
    """Also not if they are all that lies near."""
    known = opened(engine)
    query = crowd.queries[0]
    near = np.argsort(-(crowd.vectors @ query))[:3000]
    alive = np.ones(ROWS, np.bool_)
    alive[near] = False
    state = State(
        2, known.ids, known.owners, alive, known.matrix, known.columns, known.graph, known.effort, exact_work=0
    )
    answer = state.search(query, 10, state.allowed(ALL, None, labelled=False))
    assert len(answer.hits) == 10
    assert alive[answer.hits.slots].all()
    assert answer.hits.slots.tolist() == np.argsort(np.where(alive, -(crowd.vectors @ query), 9))[:10].tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_says_how_it_went_about_it(opened: Opener, crowd: Crowd, engine: str) -> None:
    """Exact is said only where every candidate was compared."""
    state = opened(engine)
    everything = state.allowed(ALL, None, labelled=False)
    few = state.allowed(ALL, below("random", 0.0005), labelled=False)
    half = state.allowed(ALL, below("random", 0.5), labelled=False)
    plans = [state.search(crowd.queries[0], 10, allowed).plan for allowed in (few, half, everything)]
    assert [plan.matching for plan in plans] == [6, ROWS // 2, ROWS]
    graph = engine != "exact"
    assert [plan.name for plan in plans] == ["all", *(("widen", "graph") if graph else ("exact", "exact"))]
    tenth = state.search(crowd.queries[0], 10, state.allowed(ALL, below("random", 0.1), labelled=False)).plan
    walked = dict.fromkeys(("hnswlib", "usearch", "faiss"), "widen")
    assert tenth.name == {"exact": "exact", **walked}.get(engine, "pushed")
    assert [plan.recall_mode for plan in plans] == ["exact", *(["estimated"] * 2 if graph else ["exact"] * 2)]
    assert state.search(crowd.queries[0], 10, half, exactly=True).plan.recall_mode == "exact"


@pytest.mark.parametrize("kept", ["int8", "binary"])
@pytest.mark.parametrize("attribute", ["random", "near"])
@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.01, 0.001])
def test_cut_vectors_are_scanned_and_whole_ones_have_the_last_word(
    opened: Opener, crowd: Crowd, kept: Quantization, attribute: str, share: float
) -> None:
    """Without a graph, in a quarter of the memory or a thirty-second of it."""
    state = opened("codes", kept)
    allowed = state.allowed(ALL, below(attribute, share), labelled=False)
    wanted = np.arange(ROWS) if allowed.mask is None else np.flatnonzero(allowed.mask)
    found = 0
    for query in crowd.queries[:20]:
        answer = state.search(query, 10, allowed)
        truth = wanted[np.argsort(-(crowd.vectors[wanted] @ query))[:10]]
        assert len(answer.hits) == min(10, allowed.count)
        assert np.allclose(answer.hits.scores, crowd.vectors[answer.hits.slots] @ query, atol=1e-5)
        found += len(set(truth.tolist()).intersection(answer.hits.slots.tolist()))
    assert found / (20 * min(10, allowed.count)) >= 0.99
    assert state.graph is not None
    assert not state.short(10, allowed) or state.planned(10, allowed)[0].recall_mode == "exact"
    bytes_of_one = {"int8": DIMENSIONS, "binary": 8 * -(-DIMENSIONS // 64)}[kept]
    assert state.graph.nbytes == bytes_of_one * state.graph.rows


@pytest.mark.parametrize("engine", [None, "exact"])
def test_exact_stores_are_cut_if_they_say_so(engine: EngineName | None) -> None:
    engines = Engines(EngineSettings(engine="exact"))
    chosen = [engines.chosen(engine, kept) for kept in ("none", "int8", "binary")]
    assert chosen == [None, "codes", "codes"]


def test_codes_of_other_rows_are_not_opened(tmp_path: Path, crowd: Crowd) -> None:
    """Nor those of the other kind."""
    path = tmp_path / "1.graph"
    CodesEngine("int8").build(crowd.rows, path)
    fewer = Rows(crowd.rows.vectors[:-1], crowd.rows.ids[:-1], crowd.rows.documents[:-1])
    for engine, rows in ((CodesEngine("int8"), fewer), (CodesEngine("binary"), crowd.rows)):
        with pytest.raises(OSError, match="other rows"):
            engine.load(path, rows)


@pytest.mark.parametrize("engine", ["usearch", "faiss"])
@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.01])
def test_vectors_of_eight_bits_are_compared_whole_in_the_end(
    opened: Opener, crowd: Crowd, engine: str, share: float
) -> None:
    state = opened(engine, "int8")
    allowed = state.allowed(ALL, below("random", share), labelled=False)
    wanted = np.arange(ROWS) if allowed.mask is None else np.flatnonzero(allowed.mask)
    found = 0
    for query in crowd.queries:
        answer = state.search(query, 10, allowed)
        truth = wanted[np.argsort(-(crowd.vectors[wanted] @ query))[:10]]
        assert np.allclose(answer.hits.scores, crowd.vectors[answer.hits.slots] @ query, atol=1e-5)
        found += len(set(truth.tolist()).intersection(answer.hits.slots.tolist()))
    assert found / (10 * len(crowd.queries)) >= 0.99


def test_graphs_of_other_rows_or_numbers_are_not_opened(tmp_path: Path, crowd: Crowd) -> None:
    pytest.importorskip("faiss")
    vectors = crowd.vectors[:1000]
    rows, fewer = (Rows(some, np.arange(len(some)), np.arange(len(some))) for some in (vectors, vectors[1:]))
    settings, path = EngineSettings(), tmp_path / "1.graph"
    made("faiss", settings, "none").build(rows, path, "", 1)
    for kept, others in (("none", fewer), ("int8", rows)):
        with pytest.raises(OSError, match="it was made"):
            made("faiss", settings, cast("Quantization", kept)).load(path, others)
    graph = made("faiss", settings, "none").load(path, rows)
    assert [int(graph.search(each, 3, 40).slots[0]) for each in vectors[:50]] == list(range(50))
    assert len(graph.search(vectors[0], 2000, 2000)) <= 1000


def test_single_bits_find_what_is_compared_whole_in_the_end(tmp_path: Path) -> None:
    """Where there are enough of them; else there is no graph, as it would not be worth its name."""
    random = np.random.default_rng(5)
    for dimensions in (256, 8):
        topics = random.standard_normal((20, dimensions)).astype(np.float32)
        noise = random.standard_normal((2000, dimensions)).astype(np.float32)
        vectors = unit(topics[random.integers(0, 20, 2000)] + noise)
        rows = Rows(vectors, np.arange(2000), np.arange(2000))
        Usearch("binary").build(rows, tmp_path / "1.graph")
        graph = Usearch("binary").load(tmp_path / "1.graph", rows)
        if dimensions == 8:
            with pytest.raises(NotMade, match="recall"):
                measured(graph, rows)
            continue
        made = measured(graph, rows)
        assert made.recall >= 0.99
        hits = graph.search(vectors[7], 10, made.effort)
        assert hits.slots[0] == 7
        assert np.allclose(hits.scores, vectors[hits.slots] @ vectors[7], atol=1e-5)


def test_a_walk_is_taken_where_it_is_known_to_cost_less() -> None:
    """What a step and a comparison cost was measured; without that, few are compared."""
    cheap, dear = Costs(step_us=0.5, row_us=0.4), Costs(step_us=2, row_us=0.4)

    def name(costs: Costs | None, matching: int = 10_000, graph_rows: int = 100_000) -> str:
        return plan(
            rows=100_000, matching=matching, k=10, graph_rows=graph_rows, dimensions=384, effort=32, costs=costs
        ).name

    assert [name(costs) for costs in (cheap, dear, None)] == ["widen", "exact", "exact"]
    assert name(cheap, matching=100) == "exact"
    assert name(cheap, graph_rows=0) == "exact"


def test_without_documents_there_is_nothing_to_find() -> None:
    empty = State(1, np.zeros(0, np.int64), np.zeros(0, np.int64), None, None, Columns())
    answer = empty.search(np.zeros(3, np.float32), 10, empty.allowed(ALL, None, labelled=False))
    assert len(answer.hits) == 0
    assert answer.plan.name == "empty"
