"""Whether a mean of bounded values (a score's loss, a capped cost) is higher in the challenger than a line over the champion's.

For the champion's true mean θ one gambler bets against "it is θ or more", another against "the challenger's is at most line(θ)"; θ is
unknown, so what counts is the least that the two have over all θ (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2024). Both amounts are monotone in θ, so an interval of θ has a lower bound by its ends, and the one
with the lowest is halved until more would change nothing. Valid at every look, for any distribution in [0, 1].
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import log1p
from typing import Final

from inference.rollouts.wealth import FALLS, RISES, Wealth, hedged, least

SCALE: Final = 10_000  # values are whole ten-thousandths of their range
_CELLS: Final = 1 << 20
_NODES: Final = tuple(round(SCALE * (each / 48) ** 2) for each in range(49))

Histogram = Mapping[int, int]  # ten-thousandths → values
Weights = Mapping[int, float]


def bucket(value: float) -> int:
    return round(min(1.0, max(0.0, value)) * SCALE)


def mean(histogram: Histogram) -> float | None:
    n = sum(histogram.values())
    return sum(each * count for each, count in histogram.items()) / (SCALE * n) if n else None


def compare(champion: Histogram, challenger: Histogram, factor: float, slack: float) -> Wealth:
    """The line is `factor * θ + slack`; higher is worse."""
    if not champion or not challenger:
        return Wealth()
    ours, theirs = _gathered(champion), _gathered(challenger)

    def line(theta: float) -> float:
        return factor * theta + slack

    # Rising in θ, and falling in it: the claim against the challenger is the harder to refuse the more the champion may have.
    against = _least(lambda theta: _below(ours, theta), lambda theta: _above(theirs, line(theta)))
    # The other way round, mirrored so that the first rises again: the champion has more than θ, the challenger less than line(θ).
    for_ = _least(lambda back: _above(ours, 1 - back), lambda back: _below(theirs, line(1 - back)))
    return Wealth(against, for_)


def alone(values: Histogram, limit: float) -> Wealth:
    """Whether the mean of one arm's values is higher than `limit`, in (0, 1)."""
    if not values:
        return Wealth()
    weights = _gathered(values)
    return Wealth(_above(weights, limit), _below(weights, limit))


def ceiling(champion: Histogram, challenger: Histogram, factor: float, slack: float) -> Wealth:
    """What `compare` can say at most, for a fraction of its price: at the champion's own mean alone."""
    theta = mean(champion)
    if theta is None or not challenger:
        return Wealth()
    line = factor * theta + slack
    return Wealth(
        _below(champion, theta) + _above(challenger, line), _above(champion, theta) + _below(challenger, line)
    )


def _gathered(values: Histogram) -> Weights:
    """At some fifty values, each count divided between its neighbours so that the mean stays.

    What a purse wins is concave in a value, so that it never wins more by that.
    """
    found: dict[int, float] = {}
    for each, count in values.items():
        place = bisect_left(_NODES, each)
        high, low = _NODES[place], _NODES[max(0, place - 1)]
        part = (high - each) / (high - low) if high > each else 0.0
        found[high] = found.get(high, 0.0) + count * (1 - part)
        if part:
            found[low] = found.get(low, 0.0) + count * part
    return found


def _least(rising: Callable[[float], float], falling: Callable[[float], float]) -> float:
    """A lower bound of the least value of their sum over [0, 1]."""
    return least(lambda cell: rising(cell / _CELLS), lambda cell: falling((cell + 1) / _CELLS), 0, _CELLS - 1)


def _below(values: Weights, claimed: float) -> float:
    """Against "the mean is `claimed` or more"."""
    if claimed <= 0:
        return 0.0
    if claimed >= 1:
        claimed = 1.0
    return hedged([_purse(values, claimed, -part / max(1 - claimed, 1e-6)) for part in FALLS])


def _above(values: Weights, claimed: float) -> float:
    """Against "the mean is `claimed` or less"."""
    if claimed >= 1:
        return 0.0
    claimed = max(claimed, 0.0)
    return hedged([_purse(values, claimed, part / max(claimed, 1e-6)) for part in RISES])


def _purse(values: Weights, claimed: float, stake: float) -> float:
    return sum(count * log1p(stake * (each / SCALE - claimed)) for each, count in values.items())
