"""What a mean over some questions says about all questions: bootstrap intervals, and whether two searches differ."""

from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Final

import msgspec

RESAMPLES: Final = 2000
LEVEL: Final = 0.95


class Mean(msgspec.Struct, frozen=True):
    """`low` to `high` is the interval at the 95 % level."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """Of two searches over the same questions: the mean of (second − first), its interval, and how likely so large a one is by chance."""

    value: float
    low: float
    high: float
    p: float

    @property
    def certain(self) -> bool:
        return self.p < 1 - LEVEL


def mean(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Mean:
    """Percentile bootstrap (Efron 1979) over questions. The same seed gives the same interval. Raises ValueError for no values."""
    if not values:
        raise ValueError("there is nothing to take a mean of")
    low, high = _interval(values, Random(seed), resamples)  # noqa: S311 — resampling, no secret
    return Mean(fmean(values), low, high)


def difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Paired: the bootstrap resamples questions, the test flips signs (Fisher's randomisation test; Smucker, Allan and Carterette 2007)."""
    if len(first) != len(second) or not first:
        raise ValueError("two searches are compared over the same questions")
    gaps = [after - before for before, after in zip(first, second, strict=True)]
    random = Random(seed)  # noqa: S311 — resampling, no secret
    low, high = _interval(gaps, random, RESAMPLES)
    observed = abs(sum(gaps))
    moved = [gap for gap in gaps if gap]
    extreme = sum(
        abs(sum(gap if random.getrandbits(1) else -gap for gap in moved)) >= observed - 1e-12 for _ in range(RESAMPLES)
    )
    return Difference(fmean(gaps), low, high, (extreme + 1) / (RESAMPLES + 1))


def _interval(values: Sequence[float], random: Random, resamples: int) -> tuple[float, float]:
    means = sorted(fmean(random.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - LEVEL) / 2
    return means[round(tail * (resamples - 1))], means[round((1 - tail) * (resamples - 1))]
