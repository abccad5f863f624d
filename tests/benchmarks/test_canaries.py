"""Simulated canaries: what the table of `make bench-canaries` is made of."""

import pytest

from benchmarks.canaries import KINDS, REGRESSIONS, rolled


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
