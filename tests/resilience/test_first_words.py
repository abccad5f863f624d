"""When a call is slow: longer than 95 % of the last ones."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from gateway.first_words import ENOUGH, KEPT, FirstWords


@given(st.lists(st.floats(0, 1000), max_size=2 * KEPT))
def test_it_is_the_percentile_of_the_last_ones(seconds: list[float]) -> None:
    """By sorting them; unknown while there are few."""
    seen = FirstWords()
    for one in seconds:
        seen.note(one)
    last = sorted(seconds[-KEPT:])
    expected = last[ceil(len(last) * 0.95) - 1] if len(last) >= ENOUGH else None
    assert seen.p95_s == expected


def test_one_in_twenty_is_slow() -> None:
    """And what is given up at that moment does not make the next one's moment come earlier."""
    seen = FirstWords()
    for number in range(200):
        seen.note(5.0 if number % 20 == 0 else 1.0)
    assert seen.p95_s == 1.0
    for number in range(2000):
        seen.note(1.0 if number % 20 == 0 else 0.2 + number % 19 / 100)
    assert 0.37 <= (seen.p95_s or 0) <= 0.39
