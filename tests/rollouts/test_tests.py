"""The sequential tests: looked at after every request they keep their promise, and they see what is there to be seen.

Tables of what was seen are printed: docs/rollouts.md quotes those of `make soak`.
"""

import math
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.rollouts import means, proportions, quantiles
from inference.rollouts.wealth import Wealth

ALPHA = 0.05
ENOUGH = math.log(1 / ALPHA)

BUCKETS: dict[str, Callable[[float], int]] = {"share": int, "mean": means.bucket, "p95": quantiles.bucket}

Draw = Callable[[random.Random], float]


class Canary:
    """Two arms and a test between them, fed one request at a time."""

    def __init__(self, seed: int, share: float, champion: Draw, challenger: Draw, test: str, **line: float) -> None:
        self._random = random.Random(seed)
        self._share = share
        self._draws = (champion, challenger)
        self._test = test
        self._line = line
        self._arms: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.asked = [0, 0]
        self.bad = 0

    def next(self) -> None:
        arm = int(self._random.random() < self._share)
        value = self._draws[arm](self._random)
        bucket = BUCKETS[self._test](value)
        self._arms[arm][bucket] = self._arms[arm].get(bucket, 0) + 1
        self.asked[arm] += 1
        self.bad += arm and value >= 1

    def look(self) -> Wealth:
        ours, theirs = self._arms
        match self._test:
            case "share":
                return proportions.compare(
                    ours.get(1, 0), self.asked[0], theirs.get(1, 0), self.asked[1], self._line["margin"]
                )
            case "mean":
                return means.compare(ours, theirs, self._line["factor"], self._line["slack"])
            case _:
                return quantiles.compare(ours, theirs, 0.95, self._line["factor"], self._line["slack"])


def rate(share: float) -> Draw:
    return lambda chance: float(chance.random() < share)


def slow(base_ms: float, spread_ms: float) -> Draw:
    return lambda chance: base_ms + chance.expovariate(1 / spread_ms)


def alarms(runs: int, requests: int, make: Callable[[int], Canary], every: int = 1) -> int:
    """How many of so many canaries are ever rolled back, looked at after every request."""
    found = 0
    for seed in range(runs):
        canary = make(seed)
        for number in range(requests):
            canary.next()
            if number % every == 0 and canary.asked[1] and canary.look().against >= ENOUGH:
                found += 1
                break
    return found


def allowed(runs: int) -> float:
    """What 5 % may look like in so many runs, four deviations and a half up: one suite in 300,000 would fail by chance."""
    return runs * ALPHA + 4.5 * math.sqrt(runs * ALPHA * (1 - ALPHA))


@pytest.mark.parametrize("errors", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_null_canaries_are_left_alone(errors: float, margin: float) -> None:
    """At the very edge of what is permitted: up to 200 canaries, looked at after each of 300 requests."""
    runs = 200 if margin == 0.02 and errors == 0.02 else 60
    found = alarms(
        runs, 300, lambda seed: Canary(seed, 0.3, rate(errors), rate(errors + margin), "share", margin=margin)
    )
    assert found <= allowed(runs)


def test_null_canaries_with_other_measures_are_left_alone() -> None:
    """Means and quantiles keep to the same promise."""
    runs = 60
    by_mean = alarms(
        runs, 200, lambda seed: Canary(seed, 0.3, rate(0.1), rate(0.1), "mean", factor=1, slack=0), every=10
    )
    by_quantile = alarms(
        runs, 200, lambda seed: Canary(seed, 0.3, slow(20, 20), slow(20, 20), "p95", factor=1, slack=0), every=10
    )
    assert max(by_mean, by_quantile) <= allowed(runs)


REGRESSIONS = {
    "every answer fails": (0.05, rate(0.0), rate(1.0), "share", {"margin": 0.02}, 4),
    "10 % of answers fail": (0.05, rate(0.001), rate(0.101), "share", {"margin": 0.02}, 30),
    "10 % of labels wrong": (0.25, rate(0.03), rate(0.13), "mean", {"factor": 1, "slack": 0.02}, 110),
    "200 ms slower": (0.05, slow(20, 20), slow(220, 20), "p95", {"factor": 1.1, "slack": 10}, 12),
    "costs twice as much": (0.25, slow(0.03, 0.02), slow(0.06, 0.04), "mean", {"factor": 1.1, "slack": 0}, 160),
}


@pytest.mark.parametrize("what", REGRESSIONS)
def test_a_regression_is_seen(what: str) -> None:
    """Within so many bad requests (of a slow or costly challenger, requests) as the page promises."""
    share, champion, challenger, test, line, most = REGRESSIONS[what]
    seen = []
    for seed in range(6):
        canary = Canary(seed, share, champion, challenger, test, **line)
        every = 1 if test == "share" else 25
        for number in range(12_000):
            canary.next()
            if number % every == 0 and canary.asked[1] and canary.look().against >= ENOUGH:
                break
        else:
            pytest.fail(f"{what} was never seen")
        seen.append(canary.bad if test != "p95" and challenger(random.Random(0)) in {0.0, 1.0} else canary.asked[1])
    print(f"{what}: {sorted(seen)}")
    assert max(seen) <= most


@pytest.mark.parametrize(
    ("test", "champion", "line"),
    [
        ("share", rate(0.0), {"margin": 0.02}),
        ("mean", rate(0.03), {"factor": 1, "slack": 0.05}),
        ("p95", slow(20, 5), {"factor": 1.2, "slack": 10}),
    ],
)
def test_no_regression_is_proven(test: str, champion: Draw, line: dict[str, float]) -> None:
    """A challenger that is as good passes within some hundred of its requests."""
    canary = Canary(1, 0.25, champion, champion, test, **line)
    for number in range(4_000):
        canary.next()
        if number % 20 == 0 and canary.look().for_ >= ENOUGH:
            assert canary.asked[1] < 600
            return
    pytest.fail(f"never proven: {canary.look()}")


counts = st.integers(0, 400)


@given(counts, counts, counts, counts, st.floats(-0.9, 0.9))
def test_shares_make_sense_of_any_counts(good: int, bad: int, well: int, ill: int, margin: float) -> None:
    """Never both verdicts at once, and never a number that is none."""
    wealth = proportions.compare(bad, good + bad, ill, well + ill, margin)
    assert math.isfinite(wealth.against)
    assert math.isfinite(wealth.for_)
    assert min(wealth.against, wealth.for_) <= 1e-6


histograms = st.dictionaries(st.integers(0, 900), st.integers(1, 500), max_size=12)


@given(histograms, histograms, st.floats(0.2, 3), st.floats(0, 50))
def test_quantiles_make_sense_of_any_counts(
    ours: dict[int, int], theirs: dict[int, int], factor: float, slack: float
) -> None:
    """The same of latencies."""
    wealth = quantiles.compare(ours, theirs, 0.95, factor, slack)
    assert math.isfinite(wealth.against + wealth.for_)
    assert min(wealth.against, wealth.for_) <= ENOUGH


@given(
    st.dictionaries(st.integers(0, means.SCALE), st.integers(1, 500), max_size=8),
    st.dictionaries(st.integers(0, means.SCALE), st.integers(1, 500), max_size=8),
    st.floats(0.2, 3),
    st.floats(0, 0.5),
)
def test_means_make_sense_of_any_counts(
    ours: dict[int, int], theirs: dict[int, int], factor: float, slack: float
) -> None:
    """The same of means."""
    wealth = means.compare(ours, theirs, factor, slack)
    assert math.isfinite(wealth.against + wealth.for_)
    assert min(wealth.against, wealth.for_) <= ENOUGH


@given(st.floats(1e-3, 1e7))
def test_a_latency_is_in_its_bucket(value: float) -> None:
    """Above the end of the bucket before, and not above its own."""
    index = quantiles.bucket(value)
    assert quantiles.end(index - 1) * (1 - 1e-9) < value <= quantiles.end(index) * (1 + 1e-9)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_null_canaries() -> None:
    """At the edge of the margin, looked at after every request: false rollbacks stay below alpha, by a margin of their own."""
    for errors, margin in ((0.01, 0.0), (0.02, 0.02), (0.2, 0.02)):
        runs = 10_000
        make = partial(null_canary, errors=errors, margin=margin)
        found = alarms(runs, 400, make)
        print(f"{errors:.0%} of errors, {margin:.0%} permitted: {found} of {runs:,} null canaries were rolled back")
        assert found <= ALPHA * runs


def null_canary(seed: int, errors: float, margin: float) -> Canary:
    return Canary(seed, 0.25, rate(errors), rate(errors + margin), "share", margin=margin)
