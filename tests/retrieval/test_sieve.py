"""A sieve lets through whatever can be among the nearest: what it leaves out, comparing everything would have left out as well."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.access import Caller
from retrieval.document_store import Described
from retrieval.filters import parse
from retrieval.index import partition, sieve
from retrieval.index.admitted import KEPT_BYTES, Admitted, Allowed
from retrieval.index.columns import Columns
from retrieval.index.matrix import Matrix
from retrieval.index.partition import Beside
from retrieval.index.planner import Plan
from retrieval.index.ports import Hits
from retrieval.index.sieve import Sieve
from retrieval.index.state import State
from tests.fixtures.retrieval import unit

Vectors = NDArray[np.float32]

KINDS = (
    "random",
    "topics",
    "narrow",
    "alike",
    "same",
    "one number each",
    "one large number",
    "halves",
    "zeros",
    "some zeros",
    "tiny",
    "huge",
)


def made(kind: str, count: int, dimensions: int, random: np.random.Generator) -> Vectors:
    noise = random.standard_normal((count, dimensions), np.float32)
    topics = random.standard_normal((max(1, count // 50), dimensions), np.float32)
    middle = np.ones(dimensions, np.float32)
    rows: Vectors
    match kind:
        case "random":
            rows = unit(noise)
        case "topics":
            rows = unit(topics[random.integers(0, len(topics), count)] + np.float32(0.3) * noise)
        case "narrow":
            rows = unit(middle + np.float32(0.05) * noise)
        case "alike":  # two places, and differences that eight bits do not show
            rows = unit(np.where(np.arange(count)[:, None] % 2, middle, -middle) + np.float32(1e-4) * noise)
        case "same":
            rows = unit(np.repeat(noise[:1], count, axis=0))
        case "one number each":
            rows = np.eye(dimensions, dtype=np.float32)[random.integers(0, dimensions, count)]
        case "one large number":
            noise[:, 0] += np.float32(1000)
            rows = unit(noise)
        case "halves":
            rows = unit(np.sign(noise))
        case "zeros":
            rows = np.zeros((count, dimensions), np.float32)
        case "some zeros":
            noise[::2] = 0
            rows = (noise / np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1)).astype(np.float32)
        case "tiny":
            rows = (noise * np.float32(1e-20)).astype(np.float32)
        case _:
            rows = (noise * np.float32(1e12)).astype(np.float32)
    return rows


def sieved(rows: Vectors, slots: NDArray[np.int64] | None = None) -> Sieve:
    library = sieve.products()
    assert library is not None
    return Sieve(Matrix(rows), np.arange(len(rows)) if slots is None else slots, library)


def holds(rows: Vectors, query: Vectors, k: int) -> int:
    """How many were let through."""
    one = sieved(rows)
    scores = rows @ query
    least = np.sort(scores)[-min(k, len(rows))]
    passed = one.passed(query, k)
    if passed is not None:
        assert set(np.flatnonzero(scores >= least)) <= set(passed.tolist()), "all that are as near as the k-th"
    found = one.nearest(query, k)
    wanted = np.sort(scores)[::-1][:k]
    scale = float(np.abs(scores).max()) or 1.0
    assert np.allclose(found.scores / scale, wanted / scale, atol=1e-6)
    assert len(set(found.slots.tolist())) == min(k, len(rows))
    return len(rows) if passed is None else len(passed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "dimensions"), [(5000, 128), (1000, 384), (300, 1024), (6000, 7)])
def test_nothing_that_is_near_enough_is_left_out(kind: str, count: int, dimensions: int) -> None:
    random = np.random.default_rng(count)
    rows = made(kind, count, dimensions, random)
    questions = [
        *made("random", 4, dimensions, random),
        rows[3],
        unit(rows[5:6] + np.float32(0.1 / dimensions**0.5) * made("random", 1, dimensions, random))[0],
        np.zeros(dimensions, np.float32),
        np.eye(dimensions, dtype=np.float32)[0],
    ]
    for query in questions:
        for k in (1, 10, 100):
            holds(rows, query, k)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.integers(2, 3000), st.integers(1, 200), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_of_any_number_of_rows(kind: str, count: int, dimensions: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = made(kind, count, dimensions, random)
    holds(rows, unit(rows[:1] + np.float32(0.7) * made("random", 1, dimensions, random))[0], k)


def test_few_are_let_through() -> None:
    """Of vectors as models make them; else there would be no point in it."""
    random = np.random.default_rng(7)
    for kind in ("random", "topics", "narrow"):
        rows = made(kind, 10_000, 128, random)
        query = unit(rows[9:10] + np.float32(0.03) * random.standard_normal((1, 128), np.float32))[0]
        assert holds(rows, query, 10) < 500, kind


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_number_hides_nothing(wrong: float) -> None:
    rows = made("random", 2000, 32, np.random.default_rng(1))
    rows[7, 3] = wrong
    assert sieved(rows).passed(rows[5], 10) is None
    sound = made("random", 2000, 32, np.random.default_rng(1))
    assert sieved(sound).passed(rows[7], 10) is None


def test_it_is_of_the_rows_that_it_was_made_of() -> None:
    """Some of a matrix with a part that was written and one that came since."""
    random = np.random.default_rng(2)
    rows = made("topics", 6000, 64, random)
    matrix = Matrix(rows[:4000]).extended(rows[4000:])
    slots = np.flatnonzero(random.random(6000) < 0.5)
    library = sieve.products()
    assert library is not None
    one, other = Sieve(matrix, slots, library), Beside(matrix, slots)
    for query in made("random", 20, 64, random):
        found, wanted = one.nearest(query, 10), other.nearest(query, 10)
        assert found.slots.tolist() == wanted.slots.tolist()
        assert np.allclose(found.scores, wanted.scores, atol=1e-6)


def test_threads_share_one() -> None:
    random = np.random.default_rng(9)
    rows, questions = made("topics", 50_000, 64, random), made("random", 64, 64, random)
    one = sieved(rows)
    wanted = [one.nearest(query, 10).slots.tolist() for query in questions]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            assert [
                found.slots.tolist() for found in pool.map(lambda query: one.nearest(query, 10), questions)
            ] == wanted


@pytest.mark.parametrize("dimensions", [1, 7, 63, 64, 65, 100, 128, 256, 384, 512, 1000, 1024])
def test_it_takes_no_more_memory_than_it_says(dimensions: int) -> None:
    rows = made("random", 5000, dimensions, np.random.default_rng(3))
    assert 0.9 * sieve.room(5000, dimensions) < sieved(rows).nbytes <= sieve.room(5000, dimensions)


def test_a_partition_has_a_form_that_fits() -> None:
    assert partition.form(100, 384, sieves=True) == partition.Form(sieved=False, nbytes=100 * 384 * 4)
    large = partition.form(10_000, 128, sieves=True)
    assert large is not None
    assert large.sieved
    assert partition.form(10_000, 128, sieves=False) == partition.Form(sieved=False, nbytes=10_000 * 128 * 4)
    for sieves in (True, False):
        assert partition.form(1_000_000, 384, sieves=sieves) is None
        for count in (1, 1000, 20_000, 50_000, 100_000):
            known = partition.form(count, 384, sieves=sieves)
            assert known is None or known.nbytes <= partition.COPIED_BYTES


def test_what_is_admitted_is_the_same_before_and_after_it_is_cut() -> None:
    random = np.random.default_rng(4)
    rows = made("topics", 60_000, 64, random)
    matrix, mask = Matrix(rows), random.random(60_000) < 0.1
    allowed = Allowed(mask, int(mask.sum()), None, 64)
    admitted = Admitted()
    admitted.get((None, False, ""), lambda: allowed)
    query = made("random", 1, 64, random)[0]
    first = allowed.nearest(matrix, query, 10, admitted.keeps)
    whole = allowed.count * 64
    assert allowed.work(64) > whole, "the next search makes a partition, which no event loop waits for"
    for _ in range(4):
        again = allowed.nearest(matrix, query, 10, admitted.keeps)
        assert again.slots.tolist() == first.slots.tolist()
        assert np.allclose(again.scores, first.scores, atol=1e-6)
    assert allowed.work(64) < whole


def test_those_that_are_kept_stay_within_their_budget() -> None:
    random = np.random.default_rng(5)
    matrix = Matrix(made("random", 200_000, 64, random))
    admitted, held = Admitted(), []
    for number in range(12):
        mask = random.random(200_000) < 0.2
        allowed = admitted.get((None, False, str(number)), partial(Allowed, mask, int(mask.sum()), None, 64))
        for query in made("random", 6, 64, random):
            allowed.nearest(matrix, query, 10, admitted.keeps)
        assert admitted.nbytes <= KEPT_BYTES
        assert admitted.known((None, False, str(number))) is allowed
        held.append(allowed)
    assert admitted.nbytes == sum(each.nbytes for at, each in enumerate(held) if admitted.known((None, False, str(at))))


def test_who_only_looks_on_earns_no_partition() -> None:
    """An audit compares what a graph has found; the memory is for searches."""
    random = np.random.default_rng(8)
    matrix, mask = Matrix(made("random", 40_000, 64, random)), np.arange(40_000) % 5 == 0
    admitted = Admitted()
    allowed = admitted.get((None, False, ""), partial(Allowed, mask, int(mask.sum()), None, 64))
    before = admitted.nbytes
    for query in made("random", 20, 64, random):
        allowed.nearest(matrix, query, 10, None)
    assert admitted.nbytes == allowed.nbytes == before


def test_what_is_too_large_or_not_known_is_not_kept() -> None:
    admitted, mask = Admitted(), np.arange(1000) % 5 == 0
    allowed = admitted.get((None, False, ""), partial(Allowed, mask, 200, None, 64))
    assert not admitted.keeps(allowed, KEPT_BYTES)
    assert not admitted.keeps(Allowed(mask, 200, None, 64), 1)
    assert admitted.keeps(allowed, KEPT_BYTES - allowed.nbytes)


class Walked:
    """A graph that knows what it will be asked, and takes its time."""

    engine = "walked"
    filters = coarse = lost = False
    inside = True
    nbytes = 0

    def __init__(self, matrix: Matrix, questions: Vectors, takes_s: float) -> None:
        self._known = {each.tobytes(): matrix.search(each, 2000, None, matrix.rows) for each in questions}
        self._takes_s = takes_s
        self.rows = matrix.rows

    def search(self, query: Vectors, k: int, effort: int, documents: NDArray[np.int64] | None = None) -> Hits:
        del effort, documents
        if self._takes_s:
            time.sleep(self._takes_s)
        found = self._known[query.tobytes()]
        return Hits(found.slots[:k], found.scores[:k])

    def ready(self, timeout_s: float) -> bool:
        return timeout_s > 0

    def close(self) -> None:
        """It holds nothing."""


@pytest.mark.parametrize(("takes_s", "plan"), [(0.005, "exact"), (0.0, "widen")])
def test_a_graph_that_takes_long_for_a_filter_gives_way_to_a_sieve(takes_s: float, plan: str) -> None:
    """And only such a one: a sieve takes memory."""
    random = np.random.default_rng(6)
    matrix, ids = Matrix(made("topics", 60_000, 64, random)), np.arange(60_000)
    questions = made("random", 30, 64, random)
    noise = random.permutation(300)
    columns = Columns({row: Described(row, {"random": float(noise[row])}, frozenset()) for row in range(300)})
    graph = Walked(matrix, questions, takes_s)
    state = State(1, ids, ids // 200, None, matrix, columns, graph, exact_work=1000)
    wanted = parse({"type": "lt", "key": "random", "value": 30})
    plans: list[Plan] = []
    for query in questions:
        allowed = state.allowed(Caller("key_all", labels=frozenset("*")), wanted, labelled=False)
        answer = state.search(query, 10, allowed)
        truth = matrix.search(query, 10, allowed.mask, allowed.count)
        assert np.allclose(answer.hits.scores, truth.scores, atol=1e-6)
        plans.append(answer.plan)
    assert plans[0].name == "widen"
    assert plans[-1].name == plan
    assert plans[-1].recall_mode == ("exact" if plan == "exact" else "estimated")
