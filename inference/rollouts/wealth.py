"""Bets against a claim: what a gambler's money says about it. The arithmetic that the tests of a rollout share.

A bettor who starts with 1 and plays against a true claim, in rounds that are fair or worse, ever has 1/alpha with probability alpha
at most, however often anybody looks (Ville's inequality). So a claim that was made to pay 1/alpha is refused with error alpha at most.
All amounts are natural logarithms.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from math import exp, inf, lgamma, log
from typing import Final

import msgspec

# A gambler with many purses bets another part of what is permitted from each, and keeps half of the money at home: against a claim
# that holds by far every purse is emptied, and what another gambler has won against the other arm must not be lost with them. Who bets on
# more than is claimed needs small parts for what is rare: where 3 % were claimed to be 2 %, a purse that bets on 6 % loses.
RISES: Final = (0.003, 0.008, 0.02, 0.05, 0.12, 0.3, 0.65, 0.95)
FALLS: Final = (0.07, 0.16, 0.3, 0.5, 0.8, 0.95)
ODDS: Final = (1.08, 1.2, 1.4, 1.8, 2.6, 6.0, 100.0)  # what bets on shares take the odds to be off by
HALVINGS: Final = 48
CLOSE: Final = 0.05


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


def least(rising: Callable[[int], float], falling: Callable[[int], float], low: int, high: int) -> float:
    """A lower bound of the least value of their sum over the whole numbers from `low` to `high`, by at most CLOSE too low.

    A range has a lower bound by its ends, as both are monotone; the one with the lowest is halved until more would change nothing.
    """
    parts: list[tuple[float, int, int]] = []

    def add(low: int, high: int) -> None:
        heappush(parts, (rising(low) + falling(high), low, high))

    add(low, high)
    for _ in range(HALVINGS):
        bound, low, high = parts[0]
        if low == high or rising(high) + falling(low) - bound < CLOSE:
            break
        heappop(parts)
        middle = (low + high) // 2
        add(low, middle)
        add(middle + 1, high)
    return parts[0][0]


def log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@lru_cache(64)
def _fewer(share: float) -> tuple[tuple[float, float], ...]:
    return tuple(_odds(share, 1 / times) for times in ODDS)


@lru_cache(64)
def _more(share: float) -> tuple[tuple[float, float], ...]:
    return tuple(_odds(share, times) for times in ODDS)


def _odds(claimed: float, times: float) -> tuple[float, float]:
    """What a purse that bets on so many times the odds wins with each that is such, and with each that is not."""
    whole = 1 - claimed + times * claimed
    return log(times / whole), -log(whole)
