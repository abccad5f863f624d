"""Whether an arm's inputs or outputs are distributed otherwise than the champion's, or than the training data. Valid at every look.

The distance is the largest difference of a share: of the rows up to a cut (Kolmogorov and Smirnov's, at the champion's deciles), or of
those with one text. Who bets against "it is at most the margin" bets on every cut in both directions with equal parts of the money; who
bets against "it is more" has to win at every cut, so the least of those bets counts. Each bet is one of shares (`proportions`). PSI has
no such test without assumptions on rare values; it is told beside the distance. By Pinsker's inequality PSI is at least 4 distance²:
where the distance is proven to be over 0.16, PSI is over 0.1.
"""

from collections.abc import Iterator, Mapping
from math import log, sqrt
from typing import Final

import msgspec

from inference.rollouts import proportions
from inference.rollouts.wealth import Wealth, log_mean

NOISE: Final = 1.63  # times sqrt(1/n + 1/m): what 99 of 100 distances stay below where there is none (Smirnov, 1939)
LEAST_SHARE: Final = 1e-4  # for PSI, of what was never seen

Counts = Mapping[int, int]
Columns = Mapping[str, tuple[Counts, Counts]]  # the champion's, or the reference's, and the challenger's


class Distance(msgspec.Struct, frozen=True):
    """Of the column that is furthest. `noise`: how far it would look by chance alone."""

    column: str
    distance: float
    psi: float
    noise: float


def compare(columns: Columns, texts: frozenset[str], margin: float) -> Wealth:
    """`texts`: the columns whose buckets have no order."""
    against: list[float] = []
    for_: list[float] = []
    for name, (ours, theirs) in columns.items():
        n, m = sum(ours.values()), sum(theirs.values())
        if not n or not m:
            return Wealth()
        for here, there in _parts(ours, theirs, ordered=name not in texts):
            for one, other in (((here, n), (there, m)), ((there, m), (here, n))):
                bet = proportions.compare(*one, *other, margin)
                against.append(bet.against)
                for_.append(bet.for_)
    return Wealth(log_mean(against), min(for_)) if against else Wealth()


def furthest(columns: Columns, texts: frozenset[str]) -> Distance | None:
    """As far as it can be seen; None before there is anything of both."""
    found: list[Distance] = []
    for name, (ours, theirs) in columns.items():
        n, m = sum(ours.values()), sum(theirs.values())
        if not n or not m:
            return None
        parts = list(_parts(ours, theirs, ordered=name not in texts))
        distance = max((abs(there / m - here / n) for here, there in parts), default=0.0)
        found.append(Distance(name, distance, psi(ours, theirs), NOISE * sqrt(1 / n + 1 / m)))
    return max(found, key=lambda one: one.distance - one.noise, default=None)


def psi(ours: Counts, theirs: Counts) -> float:
    """Population stability index over the buckets, natural logarithm."""
    n, m = sum(ours.values()), sum(theirs.values())
    total = 0.0
    for each in ours.keys() | theirs.keys():
        here, there = max(LEAST_SHARE, ours.get(each, 0) / n), max(LEAST_SHARE, theirs.get(each, 0) / m)
        total += (there - here) * log(there / here)
    return total


def _parts(ours: Counts, theirs: Counts, *, ordered: bool) -> Iterator[tuple[int, int]]:
    """How many of each arm are in a part: up to each cut where there is an order, else in each bucket."""
    buckets = sorted(ours.keys() | theirs.keys())
    if not ordered:
        yield from ((ours.get(each, 0), theirs.get(each, 0)) for each in buckets)
        return
    here = there = 0
    for each in buckets[:-1]:
        here, there = here + ours.get(each, 0), there + theirs.get(each, 0)
        yield here, there
