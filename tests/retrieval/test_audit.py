"""Recall that is watched: a graph that misses what it should find is noticed and mended, and one that is well is left alone."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.access import Caller
from retrieval.document_store import Described
from retrieval.filters import parse
from retrieval.index.audit import Audit, Recall, Verdict, shape
from retrieval.index.columns import Columns
from retrieval.index.hnsw import Hnsw, installed
from retrieval.index.matrix import Matrix
from retrieval.index.ports import Hits, Ids, Rows, Vector
from retrieval.index.settings import RECALL
from retrieval.index.state import State
from tests.fixtures.retrieval import unit

ROWS, DIMENSIONS = 4000, 24
ALL = Caller("key_all", labels=frozenset("*"))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    """Without any order in it, which is hard for a graph."""
    if not installed():
        pytest.skip("needs the `retrieval` extra")
    vectors = unit(np.random.default_rng(3).standard_normal((ROWS, DIMENSIONS)).astype(np.float32))
    path: Path = tmp_path_factory.mktemp("graph") / "1.graph"
    rows = Rows(vectors, np.arange(ROWS), np.arange(ROWS))
    Hnsw().build(rows, path)
    ids = np.arange(ROWS)
    columns = Columns({row: Described(row, {"even": row % 2 == 0}, frozenset()) for row in range(ROWS)})
    graph = Hnsw().load(path, rows)
    return State(1, ids, ids, None, Matrix(vectors), columns, graph, 10, exact_work=0)


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def watched(audit: Audit, clock: Clock, state: State, searches: int) -> list[tuple[Verdict, int]]:
    """What every check said of it; each of them is due."""
    random = np.random.default_rng(4)
    said = []
    for number in range(searches):
        clock.at += 1
        query: Vector = unit(random.standard_normal((1, DIMENSIONS)).astype(np.float32))[0]
        wanted = None if number % 2 else parse({"type": "eq", "key": "even", "value": True})
        allowed = state.allowed(ALL, wanted, labelled=False)
        answer = state.search(query, 10, allowed)
        assert audit.due(answer)
        repair = audit.check("vs_1", state, query, 10, wanted, allowed, answer)
        said.append((repair.verdict, repair.effort))
        assert not audit.due(answer), "not so soon again"
    return said


def test_a_graph_that_misses_has_to_make_an_effort(state: State) -> None:
    """Noticed within a few dozen searches; with the effort that follows it is well."""
    clock = Clock()
    audit = Audit(clock)
    said = watched(audit, clock, state, 100)
    assert ("raised", 20) in said
    assert {verdict for verdict, _ in said[:29]} == {"fine"}, "a few searches prove nothing"
    mended, clock = state.with_effort(400), Clock()
    audit = Audit(clock)
    said = watched(audit, clock, mended, 150)
    assert {verdict for verdict, _ in said} == {"fine", "lowered"}
    assert {effort for verdict, effort in said if verdict == "lowered"} == {360}, (
        "less would do, which is certain by now"
    )
    assert {verdict for verdict, _ in said[:60]} == {"fine"}, "a few searches prove nothing here either"
    found = audit.of("vs_1")
    assert set(found) == {"none", "in(even)"}
    assert all(recall.low <= recall.found / recall.wanted <= recall.high + 1e-9 for recall in found.values())
    assert min(recall.found / recall.wanted for recall in found.values()) >= RECALL


def test_a_graph_that_cannot_be_helped_is_given_up(state: State) -> None:
    """Then everything is compared, and the answers are right."""

    class Blind:
        engine, rows, nbytes, filters, inside, coarse, lost = "blind", ROWS, 0, False, True, False, False

        def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
            del query, effort, documents
            return Hits(np.arange(k), np.linspace(1, 0.5, k, dtype=np.float32) * 0)

        def ready(self, timeout_s: float) -> bool:
            return timeout_s >= 0

        def close(self) -> None:
            """Nothing is open."""

    clock = Clock()
    broken = State(1, state.ids, state.owners, None, state.matrix, state.columns, Blind(), 1500, exact_work=0)
    said = watched(Audit(clock), clock, broken, 70)
    assert ("given_up", 3000) in said
    alone = broken.with_effort(None)
    answer = alone.search(unit(np.ones((1, DIMENSIONS), np.float32))[0], 10, alone.allowed(ALL, None, labelled=False))
    assert answer.plan.recall_mode == "exact"


def test_an_interval_says_how_sure_it_is() -> None:
    few, many = Recall(0, 0).and_of(9, 10), Recall(0, 0).and_of(9000, 10_000)
    assert few.low < many.low < 0.9 < many.high < few.high
    assert many.high < RECALL
    assert Recall(0, 0).and_of(10_000, 10_000).low > RECALL
    assert Recall(50_000, 50_000).and_of(0, 10).wanted <= 20_000, "what is long ago weighs less"


def test_filters_of_a_kind_are_counted_together() -> None:
    """Without their values, which are their owners'."""
    one = parse(
        {
            "type": "and",
            "filters": [{"type": "eq", "key": "a", "value": "secret"}, {"type": "gt", "key": "b", "value": 1}],
        }
    )
    other = parse(
        {
            "type": "and",
            "filters": [{"type": "gt", "key": "b", "value": 9}, {"type": "in", "key": "a", "value": ["x", "y"]}],
        }
    )
    assert shape(one) == shape(other) == "and(gt(b),in(a))"
    assert shape(parse({"type": "not", "filter": {"type": "prefix", "key": "a", "value": "s"}})) == "not(prefix(a))"
    assert shape(None) == "none"


def test_what_was_found_and_done_is_counted(state: State) -> None:
    """For who watches all collections: every neighbour of every check, and each repair."""
    clock = Clock()
    audit = Audit(clock, 0.999)
    said = watched(audit, clock, state, 200)
    checks = audit.checks
    assert checks.found + checks.missed == 200 * 10
    assert 0.3 < checks.found / 2000 < 1.0
    assert checks.repairs["raised"] == [verdict for verdict, _ in said].count("raised") > 0
