"""The highest of many scores, against a plain sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.index.matrix import MANY, best


@pytest.mark.parametrize("count", [1, 9, 10, 11, 40, 160, MANY - 1, MANY, MANY + 1, 1000, 4095, 70_000])
@pytest.mark.parametrize("k", [1, 10, 100, 1000])
@pytest.mark.parametrize("kind", ["random", "rising", "falling", "equal", "few", "low"])
def test_they_are_those_that_a_sort_finds(count: int, k: int, kind: str) -> None:
    random = np.random.default_rng(count * k)
    scores = {
        "random": random.standard_normal(count),
        "rising": np.arange(count) / count,
        "falling": -np.arange(count) / count,
        "equal": np.zeros(count),
        "few": random.integers(0, 3, count) / 3,
        "low": np.full(count, -np.inf),
    }[kind].astype(np.float32)
    slots = random.permutation(10 * count)[:count]
    found = best(slots, scores, k)
    assert found.scores.tolist() == sorted(scores.tolist(), reverse=True)[:k]
    assert len(set(found.slots.tolist())) == len(found) == min(k, count)
    of_slot = dict(zip(slots.tolist(), scores.tolist(), strict=True))
    assert [of_slot[slot] for slot in found.slots.tolist()] == found.scores.tolist()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_of_any_number_of_them(count: int, k: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(-50, 50, count).astype(np.float32)
    found = best(np.arange(count), scores, k)
    assert found.scores.tolist() == sorted(scores.tolist(), reverse=True)[:k]


def test_what_is_no_number_hides_nothing() -> None:
    """A search has a few answers too many rather than none."""
    scores = np.full(2000, np.nan, np.float32)
    scores[7] = 1.0
    assert len(best(np.arange(2000), scores, 10)) == 10
