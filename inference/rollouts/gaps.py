"""Whether a model treats groups differently: the largest gap between the shares of good outcomes of two groups. Valid at every look.

Demographic parity asks how often each group is answered with the positive class, equal opportunity how often those are who deserve it
(fairlearn's `demographic_parity_difference`, and the true positive rates' part of `equalized_odds_difference`). A gap is the challenger's
own: that the champion is no better excuses nothing. Groups come in the order in which they are first seen, and each pair of them is bet
on with a part of the money that is fixed by its place in that order. A group of less than 30 proves nothing, nor is anything asked of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, log, sqrt

import msgspec

from inference.rollouts import proportions
from inference.rollouts.wealth import Wealth

LEAST = 30
MOST_GROUPS = 20
_HALVINGS = 14

Group = tuple[int, int]  # good outcomes, all


class Gap(msgspec.Struct, frozen=True):
    """`low` and `high` hold the gap with the confidence that was asked for, however often it is looked at. `noise`: a deviation of it."""

    groups: tuple[str, str]
    gap: float
    noise: float
    low: float
    high: float


def compare(groups: Mapping[str, Group], margin: float) -> Wealth:
    """Against "no gap is larger than the margin", and for it."""
    against, for_ = _against(list(groups.values()), margin), _for(list(groups.values()), margin)
    return Wealth(against, for_)


def largest(groups: Mapping[str, Group], alpha: float) -> Gap | None:
    """None before two groups are large enough."""
    known = {name: group for name, group in groups.items() if group[1] >= LEAST}
    if len(known) < 2:
        return None
    rates = {name: good / n for name, (good, n) in known.items()}
    worst, best = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    every, line = list(groups.values()), log(1 / alpha)
    low = _edge(lambda margin: _against(every, margin) >= line)
    high = 1 - _edge(lambda back: _for(every, 1 - back) >= line)
    noise = sqrt(0.25 / known[worst][1] + 0.25 / known[best][1])
    return Gap((worst, best), rates[best] - rates[worst], noise, low, high)


def _against(groups: Sequence[Group], margin: float) -> float:
    bets = [(0.0, 1.0)]
    left = 1.0
    for place, pair in enumerate(_pairs(groups), 1):
        part = 1 / (place * (place + 1))  # of the money: together, ever so many make one
        left -= part
        bets += [(bet.against, part / 2) for bet in _both(pair, margin)]
    bets[0] = (0.0, left)
    top = max(amount for amount, _ in bets)
    return top + log(sum(part * exp(amount - top) for amount, part in bets))


def _for(groups: Sequence[Group], margin: float) -> float:
    known = [group for group in groups if group[1] >= LEAST]
    return min((bet.for_ for pair in combinations(known, 2) for bet in _both(pair, margin)), default=0.0)


def _both(pair: tuple[Group, Group], margin: float) -> Iterator[Wealth]:
    for one, other in (pair, pair[::-1]):
        yield proportions.compare(*one, *other, min(margin, 1 - 1e-9))


def _pairs(groups: Sequence[Group]) -> Iterator[tuple[Group, Group]]:
    """In an order that a group that comes later does not change."""
    for later in range(len(groups)):
        for earlier in range(later):
            yield groups[earlier], groups[later]


def _edge(holds: Callable[[float], bool]) -> float:
    """The largest of [0, 1] for which it holds, which it does up to there; 0 if for none."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
