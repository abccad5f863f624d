"""One contract for every engine of vectors: what passes a filter is found, however few or many pass it and wherever they lie.

Recall at 10 is 0.99 or more at every selectivity, whether the filter has to do with the vectors or not, and an answer is never short.
"""

from pathlib import Path

import numpy as np
import pytest

from retrieval.access import Caller
from retrieval.document_store import Described
from retrieval.filters import Filter, parse
from retrieval.index.building import measured
from retrieval.index.columns import Columns
from retrieval.index.hnsw import Hnsw, installed
from retrieval.index.matrix import Matrix
from retrieval.index.ports import Graph
from retrieval.index.state import State
from tests.fixtures.retrieval import unit

ROWS, DIMENSIONS, TAIL, TOPICS = 12_000, 32, 500, 60
ALL = Caller("key_all", labels=frozenset("*"))
ENGINES = ("exact", "hnswlib")


class Crowd:
    """Vectors in topics. `random` and `near` are attributes between 0 and 1: the one is noise, the other the distance from a corner."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        centres = unit(random.standard_normal((TOPICS, DIMENSIONS)).astype(np.float32))
        noise = random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
        self.vectors = unit(centres[random.integers(0, TOPICS, ROWS)] + 0.15 * noise)
        corner = unit(random.standard_normal(DIMENSIONS).astype(np.float32))
        rank = np.argsort(np.argsort(-(self.vectors @ corner))) / ROWS
        noisy = random.permutation(ROWS) / ROWS
        self.documents = [
            Described(row, {"random": float(noisy[row]), "near": float(rank[row])}, frozenset()) for row in range(ROWS)
        ]
        picked = self.vectors[random.integers(0, ROWS, 40)]
        self.queries = unit(picked + 0.1 * random.standard_normal(picked.shape).astype(np.float32))


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture(scope="module")
def states(crowd: Crowd, tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    """Each engine over the same rows; the last of them came after the graph was made. Nothing is small enough to be scanned at once."""
    ids = np.arange(ROWS)
    columns = Columns({each.id: each for each in crowd.documents})
    matrix = Matrix(crowd.vectors[: ROWS - TAIL]).extended(crowd.vectors[ROWS - TAIL :])
    made = {"exact": State(1, ids, ids, None, matrix, columns)}
    if installed():
        path: Path = tmp_path_factory.mktemp("graph") / "1.graph"
        Hnsw().build(crowd.vectors[: ROWS - TAIL], path)
        graph: Graph = Hnsw().load(path, ROWS - TAIL, DIMENSIONS)
        effort = measured(graph, crowd.vectors[: ROWS - TAIL]).effort
        made["hnswlib"] = State(1, ids, ids, None, matrix, columns, graph, effort, exact_work=0)
    return made


def state_of(states: dict[str, State], engine: str) -> State:
    if engine not in states:
        pytest.skip(f"{engine} is not installed")
    return states[engine]


def below(attribute: str, share: float) -> Filter | None:
    return None if share == 1 else parse({"type": "lt", "key": attribute, "value": share})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attribute", ["random", "near"])
@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.01, 0.001])
def test_recall_under_filters(
    states: dict[str, State], crowd: Crowd, engine: str, attribute: str, share: float
) -> None:
    """Against every allowed row compared one by one."""
    state = state_of(states, engine)
    allowed = state.allowed(ALL, below(attribute, share), labelled=False)
    assert allowed.count == int(share * ROWS)
    wanted = np.arange(ROWS) if allowed.mask is None else np.flatnonzero(allowed.mask)
    found = 0
    for query in crowd.queries:
        answer = state.search(query, 10, allowed)
        truth = wanted[np.argsort(-(crowd.vectors[wanted] @ query))[:10]]
        assert len(answer.hits) == len(set(answer.hits.slots.tolist())) == min(10, allowed.count)
        assert np.allclose(answer.hits.scores, crowd.vectors[answer.hits.slots] @ query, atol=1e-5)
        assert (np.diff(answer.hits.scores) <= 0).all()
        found += len(set(truth.tolist()).intersection(answer.hits.slots.tolist()))
    assert found / (len(crowd.queries) * min(10, allowed.count)) >= 0.99


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 10, 50])
def test_an_answer_is_never_short(states: dict[str, State], crowd: Crowd, engine: str, k: int) -> None:
    """Where a handful pass, far from the question, all of them are found."""
    state = state_of(states, engine)
    for count in (0, 1, 9, 49, 51):
        wanted = parse({"type": "gte", "key": "near", "value": (ROWS - count) / ROWS})
        allowed = state.allowed(ALL, wanted, labelled=False)
        assert allowed.count == count
        answer = state.search(crowd.queries[0], k, allowed)
        assert len(answer.hits) == min(k, count)
        assert allowed.mask is not None
        assert allowed.mask[answer.hits.slots].all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_dead_are_not_found(states: dict[str, State], crowd: Crowd, engine: str) -> None:
    """Also not if they are all that lies near."""
    known = state_of(states, engine)
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
def test_it_says_how_it_went_about_it(states: dict[str, State], crowd: Crowd, engine: str) -> None:
    """Exact is said only where every candidate was compared."""
    state = state_of(states, engine)
    everything = state.allowed(ALL, None, labelled=False)
    few = state.allowed(ALL, below("random", 0.0005), labelled=False)
    half = state.allowed(ALL, below("random", 0.5), labelled=False)
    plans = [state.search(crowd.queries[0], 10, allowed).plan for allowed in (few, half, everything)]
    assert [plan.matching for plan in plans] == [6, ROWS // 2, ROWS]
    graph = engine != "exact"
    assert [plan.name for plan in plans] == ["all", *(("widen", "graph") if graph else ("exact", "exact"))]
    assert [plan.recall_mode for plan in plans] == ["exact", *(["estimated"] * 2 if graph else ["exact"] * 2)]
    assert state.search(crowd.queries[0], 10, half, exactly=True).plan.recall_mode == "exact"


def test_without_documents_there_is_nothing_to_find() -> None:
    empty = State(1, np.zeros(0, np.int64), np.zeros(0, np.int64), None, None, Columns())
    answer = empty.search(np.zeros(3, np.float32), 10, empty.allowed(ALL, None, labelled=False))
    assert len(answer.hits) == 0
    assert answer.plan.name == "empty"
