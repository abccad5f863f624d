"""Bets against a claim: what a gambler's money says about it. The arithmetic that the tests of a rollout share.

A bettor who starts with 1 and plays against a true claim, in rounds that are fair or worse, ever has 1/alpha with probability alpha
at most, however often anybody looks (Ville's inequality). So a claim that was made to pay 1/alpha is refused with error alpha at most.
All amounts are natural logarithms.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import exp, inf, lgamma, log
from typing import Final

import msgspec

# A gambler with many purses bets another part of what is permitted from each, and keeps half of the money at home: against a claim
# that holds by far every purse is emptied, and what another gambler has won against the other arm must not be lost with them.
FRACTIONS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)


class Wealth(msgspec.Struct, frozen=True):
    """`against` is what refuses "no worse than the margin", `for_` what refuses "worse by the margin or more"."""

    against: float = 0.0
    for_: float = 0.0


def log_mean(logs: Sequence[float]) -> float:
    """Of amounts by their logarithms; -inf for none."""
    top = max(logs, default=-inf)
    if top in {-inf, inf}:
        return top
    return top + log(sum(exp(one - top) for one in logs) / len(logs))


def hedged(purses: Sequence[float]) -> float:
    """All that a gambler has."""
    return log_mean((0.0, log_mean(purses)))


def few(seen: float, n: float, share: float) -> float:
    """Against "at least `share` of all are such", where `seen` of `n` were: grows as they are fewer. `share` is in (0, 1)."""
    return hedged([seen * such + (n - seen) * other for such, other in _fewer(share)])


def many(seen: float, n: float, share: float) -> float:
    """Against "at most `share` of all are such": grows as they are more."""
    return hedged([seen * such + (n - seen) * other for such, other in _more(share)])


def log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@lru_cache(64)
def _fewer(share: float) -> tuple[tuple[float, float], ...]:
    return tuple(_odds(share, share * (1 - part)) for part in FRACTIONS)


@lru_cache(64)
def _more(share: float) -> tuple[tuple[float, float], ...]:
    return tuple(_odds(share, share + (1 - share) * part) for part in FRACTIONS)


def _odds(claimed: float, other: float) -> tuple[float, float]:
    """What a purse that bets on `other` wins with each that is such, and with each that is not."""
    return log(other / claimed), log((1 - other) / (1 - claimed))
