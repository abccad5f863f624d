"""The measures are trec_eval's; ties are what every order of them comes to on average; intervals cover what they should."""

from collections.abc import Sequence
from itertools import permutations
from random import Random
from statistics import fmean

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.grounding import ground
from retrieval.evaluation.intervals import difference, mean
from retrieval.evaluation.measures import measure, ordered

DOCUMENTS = [f"d{place}" for place in range(12)]
NAMES = {"recall@5": "recall_5", "ndcg@10": "ndcg_cut_10", "mrr@12": "recip_rank"}


@given(
    st.permutations(DOCUMENTS),
    st.integers(0, 12),
    st.dictionaries(st.sampled_from([*DOCUMENTS, "unfound"]), st.integers(0, 3), min_size=1),
)
def test_the_measures_are_those_of_trec_eval(order: list[str], found: int, grades: dict[str, int]) -> None:
    """With graded judgements, documents that were not found, and questions that found nothing."""
    if not any(grades.values()):
        grades["d0"] = 1
    ranking = ordered(order[:found])
    theirs = pytrec_eval.RelevanceEvaluator({"q": grades}, {"recall", "ndcg_cut", "recip_rank"})
    expected = theirs.evaluate({"q": dict(ranking)}).get("q", {})
    for ours, name in NAMES.items():
        assert measure(ours, ranking, grades) == pytest.approx(expected.get(name, 0.0), abs=1e-9)


@given(
    st.dictionaries(st.sampled_from(DOCUMENTS[:6]), st.sampled_from([1.0, 2.0, 3.0]), min_size=1),
    st.dictionaries(st.sampled_from(DOCUMENTS[:7]), st.integers(0, 2), min_size=1),
    st.sampled_from(["recall@2", "recall@4", "mrr@3", "mrr@6", "ndcg@3", "ndcg@10"]),
)
def test_ties_are_the_mean_over_all_their_orders(ranking: dict[str, float], grades: dict[str, int], name: str) -> None:
    """No document gains from the order in which equals happened to come."""
    if not any(grades.values()):
        grades["d0"] = 1
    orders = [list(order) for order in permutations(ranking) if _sorted(order, ranking)]
    assert measure(name, ranking, grades) == pytest.approx(
        fmean(measure(name, ordered(order), grades) for order in orders)
    )


def _sorted(order: Sequence[str], ranking: dict[str, float]) -> bool:
    scores = [ranking[document] for document in order]
    return scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@x", "map@10", "@5"])
def test_an_unknown_measure_is_refused(name: str) -> None:
    """A typing error is no zero."""
    with pytest.raises(ValueError, match="none of"):
        measure(name, {}, {"d": 1})


def test_a_question_without_an_answer_is_refused() -> None:
    """It would count as a failure of every search."""
    with pytest.raises(ValueError, match="cannot be measured"):
        measure("recall@5", {"d": 1.0}, {"d": 0})


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of 200 samples of 60 questions, the interval of 95 % holds the true mean in 90 % to 99 %."""
    random = Random(5)
    covered = 0
    for seed in range(200):
        sample = mean([float(random.random() < 0.7) for _ in range(60)], seed, resamples=300)
        covered += sample.low <= 0.7 <= sample.high
    assert 180 <= covered <= 198


def test_a_difference_is_told_from_chance() -> None:
    """A search that is better on most questions is; two that differ by noise are not."""
    random = Random(3)
    base = [random.random() for _ in range(100)]
    better = [min(1.0, value + 0.1 + 0.1 * random.random()) for value in base]
    noisy = [value + random.gauss(0, 0.1) for value in base]
    assert difference(base, better).certain
    assert difference(base, better).low > 0
    assert not difference(base, noisy).certain
    assert difference(base, base).p == 1
    assert difference(base, better) == difference(base, better)
    with pytest.raises(ValueError, match="same questions"):
        difference(base, better[1:])


def test_searches_are_compared_question_by_question() -> None:
    """A question that a search found nothing for is a zero, not left out."""
    judged = {f"q{place}": {"a": 1} for place in range(30)}
    good = {question: ordered(["a", "b"]) for question in judged}
    bad = {question: ordered(["b", "c", "a"]) for question in list(judged)[:20]}
    found = compare({"words": bad, "both": good}, judged, ["recall@5", "mrr@10"])
    assert found.questions == 30
    assert [row.means["recall@5"].value for row in found.rows] == [pytest.approx(2 / 3), 1.0]
    assert "| both | 1.000* (1.000 to 1.000) | 1.000* (1.000 to 1.000) |" in found.table()
    assert found.rows[0].differences is None


PASSAGES = ["The north gate closes in four seconds.", "Lunch is served at noon in the hall."]


@pytest.mark.parametrize(
    ("answer", "supported"),
    [
        ("The north gate closes in four seconds [1].", [True]),
        ("The north gate closes in four seconds. [1] Lunch is at noon. [2]", [True, True]),
        ("“Lunch is served at noon in the hall.” [2]\n\n[2] manual.md, line 3", [True]),
        ("The north gate closes in nine minutes [1].", [False]),
        ("Lunch is served at noon in the hall [1].", [False]),
        ("Lunch is served at noon in the hall.", [False]),
        ("Lunch is served at noon in the hall [3].", [False]),
        ("Both are true [1, 2].", [False]),
        ("", []),
    ],
)
async def test_a_claim_holds_if_what_it_cites_says_it(answer: str, supported: list[bool]) -> None:
    """Another number, another passage, no citation or an invented one: not supported."""
    found = await ground(answer, PASSAGES)
    assert [claim.supported for claim in found.claims] == supported


async def test_meaning_supports_a_claim_in_other_words() -> None:
    """With half of the words, the rest is the embedding's to say."""

    async def similar(claim: str, said: Sequence[str]) -> list[float]:
        assert said == [PASSAGES[0]]
        return [0.9 if "shut" in claim else 0.2]

    near = await ground("The north gate shut in four moments [1].", PASSAGES, similar)
    assert (near.claims[0].similar, near.supported, near.cited) == (0.9, 1.0, 1.0)
    far = await ground("The north gate rusts in four years [1].", PASSAGES, similar)
    assert far.supported == 0.0
