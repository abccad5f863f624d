"""Two tests of how vectors are spread: they see a shift, and they are wrong as seldom as they say."""

import numpy as np
import pytest

from inference.monitors.monitor import TESTS
from inference.monitors.spread import of_corpus, of_queries
from tests.monitors.topics import EVEN, asked

SHIFTED = np.array([0.02] * 4 + [0.23] * 4)


def alarms(alpha: float, windows: int, rows: int, shares: np.ndarray = EVEN) -> int:
    random = np.random.default_rng(7)
    found = 0
    for seed in range(windows):
        reference, current, corpus = asked(random, rows), asked(random, rows, shares), asked(random, rows)
        found += any(each.drifted for each in of_queries(reference, current, corpus, TESTS, alpha, seed))
    return found


def test_without_a_shift_alarms_are_as_rare_as_promised() -> None:
    """Of 120 windows at 5 %, 6 are expected, and fewer than 17 with a probability of 99.98 %."""
    assert alarms(0.05, 120, 40) < 17


def test_a_shift_of_topics_is_found() -> None:
    assert alarms(0.01, 20, 120, SHIFTED) >= 19


def test_questions_that_the_corpus_answers_less_are_told_by_the_column() -> None:
    """They lie around the same topics, and farther from every passage."""
    random = np.random.default_rng(3)
    corpus, reference = asked(random, 300, spread=0.3), asked(random, 200, spread=0.3)
    farther = asked(random, 200, spread=1.5)
    found = {each.column: each for each in of_queries(reference, farther, corpus, TESTS, 0.01, 0)}
    assert found["nearest"].drifted
    assert found["nearest"].statistic > 0.5


@pytest.mark.parametrize(("shares", "drifted"), [(EVEN, False), (SHIFTED, True)])
def test_new_documents_are_held_against_old_ones(shares: np.ndarray, drifted: bool) -> None:
    random = np.random.default_rng(5)
    (found,) = of_corpus(asked(random, 500), asked(random, 100, shares), 0.01, 0)
    assert (found.column, found.drifted) == ("embedding", drifted)
    assert found.threshold == 0.01


def test_only_the_tests_that_are_asked_for_share_alpha() -> None:
    random = np.random.default_rng(6)
    (found,) = of_queries(asked(random, 40), asked(random, 40), asked(random, 40), ("ks",), 0.01, 0)
    assert (found.test, found.threshold) == ("ks", 0.01)


def test_rows_that_are_all_the_same_are_no_drift() -> None:
    """A median distance of 0 is no width of a kernel."""
    one = np.tile(asked(np.random.default_rng(8), 1), (40, 1))
    assert not any(each.drifted for each in of_queries(one, one, one, TESTS, 0.05, 0))
