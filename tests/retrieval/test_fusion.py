"""How several rankings become one, without a server: blends, and the reciprocal ranks of weights that a client gives."""

import numpy as np
import pytest

from admin.api.search_wire import SearchBody
from retrieval.fusion import Ranking, Voice, blended, fused, meant, worded
from retrieval.index.columns import Columns
from retrieval.index.matrix import Matrix
from retrieval.index.state import SAMPLED, State


def slots(*given: int) -> np.ndarray:
    return np.array(given, np.int64)


def scores(*given: float) -> np.ndarray:
    return np.array(given, np.float32)


def test_what_is_good_in_both_is_before_what_is_best_in_one() -> None:
    """Even where neither ranking had it among its first: each says something of every candidate."""
    found = blended(slots(1, 2, 3), [Voice(0.5, scores(1.0, 0.0, 0.8)), Voice(0.5, scores(0.0, 1.0, 0.7))])
    assert [slot for slot, _ in found] == [3, 1, 2]
    assert [score for _, score in found] == pytest.approx([0.75, 0.5, 0.5])


def test_a_blend_is_between_0_and_1_and_equals_stay_in_their_order() -> None:
    found = blended(slots(9, 4, 7), [Voice(0.75, scores(-1.0, 1.0, 1.2)), Voice(0.25, scores(0.0, 1.0, 1.0))])
    assert found == [(4, 1.0), (7, 1.0), (9, 0.0)]
    assert blended(slots(), []) == []


def test_cosines_count_from_what_is_usual() -> None:
    """A model whose cosines lie between 0.7 and 1 says as much as one whose cosines lie between 0 and 1."""
    wide = meant(scores(0.0, 0.5, 1.0), usual=0.0)
    narrow = meant(scores(0.7, 0.85, 1.0), usual=0.7)
    assert wide == pytest.approx([0.0, 0.5, 1.0])
    assert narrow == pytest.approx(wide, abs=1e-6)
    assert np.isfinite(meant(scores(1.0), usual=1.0)).all()


def test_words_count_as_a_share_of_the_best() -> None:
    ranking = Ranking("lexical", 1.0, [5, 3], [8.0, 2.0])
    assert worded(ranking, slots(3, 4, 5), absent=0.0) == pytest.approx([0.25, 0.0, 1.0])
    assert worded(ranking, slots(4), absent=2.0) == pytest.approx([0.25]), "what was cut off counts like the last one"


def test_a_state_knows_what_is_usual_and_how_near_each_is() -> None:
    rows = 3 * SAMPLED
    vectors = np.random.default_rng(3).normal(size=(rows, 8)).astype(np.float32) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(rows, dtype=np.int64)
    state = State(1, ids, ids * 0, None, Matrix(vectors), Columns())
    query = vectors[7]
    assert state.nearness(query, slots(7, 9)) == pytest.approx([1.0, float(vectors[9] @ query)], abs=1e-5)
    assert state.usual(query) == pytest.approx(float((vectors @ query).mean()), abs=0.05)
    alone = State(1, ids[:1], ids[:1] * 0, None, Matrix(vectors[:1]), Columns())
    assert alone.usual(vectors[0]) < 0.05, "one passage is not what is usual"
    empty = State(1, slots(), slots(), None, None, Columns())
    assert empty.usual(query) == 0
    assert empty.nearness(query, slots(1)).tolist() == [0]


def test_ranks_are_fused_by_the_weights_that_were_given() -> None:
    """First in both is 1; the heavier ranking wins where they differ."""
    dense, lexical = Ranking("dense", 3.0, [1, 2], [0.9, 0.8]), Ranking("lexical", 1.0, [2, 1], [7.0, 6.0])
    assert [slot for slot, _ in fused([dense, lexical])] == [1, 2]
    (first, score), *_ = fused([dense, Ranking("lexical", 1.0, [1], [7.0])])
    assert (first, round(score, 6)) == (1, 1.0)
    assert fused([Ranking("dense", 0.0, [1], [1.0])]) == []


def test_who_gives_weights_has_ranks_and_who_gives_none_a_blend() -> None:
    weights = {"embedding_weight": 1, "text_weight": 1}
    given = SearchBody.model_validate({"query": "q", "ranking_options": {"hybrid_search": weights}})
    assert given.question().fusion == "ranks"
    assert SearchBody.model_validate({"query": "q"}).question().fusion == "blend"
