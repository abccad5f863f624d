"""Simulated canaries: what the table of `make bench-canaries` is made of."""

import pytest

from benchmarks.canaries import AS_GOOD, KINDS, NULLS, REGRESSIONS, rolled, verdicts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "gates", "most"),
    [
        ("its output breaks the schema", {"invalid_rate", "error_rate"}, 8),
        ("every call fails", {"error_rate"}, 8),
        ("200 ms slower", {"latency_p95_ms"}, 20),
        ("10 % more of its labels are wrong", {"accuracy"}, 60),
    ],
)
def test_a_regression_goes_back_within_so_many_bad_answers(kind: str, what: str, gates: set[str], most: int) -> None:
    """With all gates together, which share alpha, and by the gate that is meant for it."""
    for seed in range(2):
        end = rolled(kind, REGRESSIONS[what], seed, every=2)
        assert end.state == "rolled_back"
        assert end.gate in gates
        assert end.bad <= most


def test_one_that_is_as_good_is_promoted() -> None:
    """With four tight gates at once, well within the 20,000 requests that the page states."""
    end = rolled("classic model", AS_GOOD, seed=1, every=400)
    assert (end.state, end.requests < 15_000) == ("promoted", True), end


def test_at_the_edge_nobody_is_promoted_for_nothing() -> None:
    """Nor sent back: 40 canaries of each kind, looked at after every request."""
    for null in NULLS:
        back, on = verdicts(null, runs=40, requests=100)
        assert back + on <= 8, null.name
