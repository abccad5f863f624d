"""How far values are from a profile: PSI, Kolmogorov-Smirnov, shares. Pure; each has a threshold that knows how many rows there were.

A fixed PSI of 0.1 or 0.25 is an accident of rows and bins: without any change it is about (1/n + 1/m) times a chi-squared variable with
bins - 1 degrees of freedom (Yurdakul 2018), so that is the least that is called a shift, and the policy's number the other.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Final

HALF: Final = 0.5  # of a row, to each bin: a share of nothing has no logarithm
EXPECTED: Final = 5.0  # rows that a bin has to expect, or chance alone fills it too unevenly
TERMS: Final = 101


def psi(reference: Sequence[float], current: Sequence[float]) -> float:
    """The population stability index of two histograms over the same bins, as counts."""
    n, m, bins = sum(reference), sum(current), len(reference)
    total = 0.0
    for one, other in zip(reference, current, strict=True):
        p, q = (one + HALF) / (n + HALF * bins), (other + HALF) / (m + HALF * bins)
        total += (p - q) * log(p / q)
    return total


def merged(reference: Sequence[float], current: Sequence[float]) -> tuple[list[float], list[float]]:
    """Neighbouring bins together, so that each expects EXPECTED rows of the current ones at least."""
    n, m = sum(reference), sum(current)
    old, new = [0.0], [0.0]
    for one, other in zip(reference, current, strict=True):
        if old[-1] * m / n >= EXPECTED:
            old.append(0.0)
            new.append(0.0)
        old[-1] += one
        new[-1] += other
    if len(old) > 1 and old[-1] * m / n < EXPECTED:
        last, lately = old.pop(), new.pop()
        old[-1] += last
        new[-1] += lately
    return old, new


def psi_of_chance(rows_reference: int, rows: int, bins: int, alpha: float) -> float:
    """What PSI exceeds with probability `alpha` where nothing has changed."""
    return (1 / rows_reference + 1 / rows) * chi_squared(1 - alpha, bins - 1) if bins > 1 else 0.0


def distance(reference: Sequence[float], current: Sequence[float]) -> float:
    """The largest difference of both distributions at the edges of their bins: Kolmogorov-Smirnov's D is at least that."""
    n, m = sum(reference), sum(current)
    most, p, q = 0.0, 0.0, 0.0
    for one, other in zip(reference, current, strict=True):
        p, q = p + one / n, q + other / m
        most = max(most, abs(p - q))
    return most


def kolmogorov(statistic: float, rows_reference: int, rows: int) -> float:
    """How likely so much of a difference is by chance (Stephens' approximation)."""
    root = sqrt(rows_reference * rows / (rows_reference + rows))
    scaled = (root + 0.12 + 0.11 / root) * statistic
    if scaled < 0.2:
        return 1.0
    terms = (exp(-2 * k * k * scaled * scaled) * (1 if k % 2 else -1) for k in range(1, TERMS))
    total = sum(terms)
    return min(1.0, max(0.0, 2 * total))


def proportions(share_reference: float, rows_reference: int, share: float, rows: int) -> float:
    """How likely two shares differ so much by chance: the two-sided test of two proportions."""
    pooled = (share_reference * rows_reference + share * rows) / (rows_reference + rows)
    spread = sqrt(pooled * (1 - pooled) * (1 / rows_reference + 1 / rows))
    if not spread:
        return 1.0
    return 2 * (1 - NormalDist().cdf(abs(share - share_reference) / spread))


def chi_squared(level: float, freedom: int) -> float:
    """Its quantile, by Wilson and Hilferty: within three percent."""
    if freedom == 1:
        root = NormalDist().inv_cdf((1 + level) / 2)
        return root * root
    z = NormalDist().inv_cdf(level)
    part = 2 / (9 * freedom)
    root = max(0.0, 1 - part + z * sqrt(part))
    return freedom * root * root * root
