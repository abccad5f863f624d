"""Whether a mean of bounded values (a score's loss, a capped cost) is higher in the challenger than a line over the champion's.

For the champion's true mean θ one gambler bets against "it is θ or more", another against "the challenger's is at most line(θ)"; θ is
unknown, so what counts is the least that the two have over all θ (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2024). Both amounts are monotone in θ, so an interval of θ has a lower bound by its ends, and the one
with the lowest is halved until more would change nothing. Valid at every look, for any distribution in [0, 1].
"""

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from math import log1p
from typing import Final

from inference.rollouts.wealth import FRACTIONS, Wealth, hedged

SCALE: Final = 10_000  # values are whole ten-thousandths of their range
_HALVINGS: Final = 40
_CLOSE: Final = 0.05

Histogram = Mapping[int, int]  # ten-thousandths → values


def bucket(value: float) -> int:
    return round(min(1.0, max(0.0, value)) * SCALE)


def mean(histogram: Histogram) -> float | None:
    n = sum(histogram.values())
    return sum(each * count for each, count in histogram.items()) / (SCALE * n) if n else None


def compare(champion: Histogram, challenger: Histogram, factor: float, slack: float) -> Wealth:
    """The line is `factor * θ + slack`; higher is worse."""
    if not champion or not challenger:
        return Wealth()

    def line(theta: float) -> float:
        return factor * theta + slack

    # Rising in θ, and falling in it: the claim against the challenger is the harder to refuse the more the champion may have.
    against = _least(lambda theta: _below(champion, theta), lambda theta: _above(challenger, line(theta)))
    # The other way round, mirrored so that the first rises again: the champion has more than θ, the challenger less than line(θ).
    for_ = _least(lambda back: _above(champion, 1 - back), lambda back: _below(challenger, line(1 - back)))
    return Wealth(against, for_)


def ceiling(champion: Histogram, challenger: Histogram, factor: float, slack: float) -> float:
    """What `compare` can say against the challenger at most, for a fraction of its price: at the champion's own mean alone."""
    theta = mean(champion)
    if theta is None or not challenger:
        return 0.0
    return _below(champion, theta) + _above(challenger, factor * theta + slack)


def _least(rising: Callable[[float], float], falling: Callable[[float], float]) -> float:
    """A lower bound of the least value of their sum over [0, 1]."""
    parts: list[tuple[float, float, float]] = []

    def add(low: float, high: float) -> None:
        heappush(parts, (rising(low) + falling(high), low, high))

    add(0.0, 1.0)
    for _ in range(_HALVINGS):
        bound, low, high = parts[0]
        if rising(high) + falling(low) - bound < _CLOSE:
            break
        heappop(parts)
        middle = (low + high) / 2
        add(low, middle)
        add(middle, high)
    return parts[0][0]


def _below(values: Histogram, claimed: float) -> float:
    """Against "the mean is `claimed` or more"."""
    if claimed <= 0:
        return 0.0
    if claimed >= 1:
        claimed = 1.0
    return hedged([_purse(values, claimed, -part / max(1 - claimed, 1e-6)) for part in FRACTIONS])


def _above(values: Histogram, claimed: float) -> float:
    """Against "the mean is `claimed` or less"."""
    if claimed >= 1:
        return 0.0
    claimed = max(claimed, 0.0)
    return hedged([_purse(values, claimed, part / max(claimed, 1e-6)) for part in FRACTIONS])


def _purse(values: Histogram, claimed: float, stake: float) -> float:
    return sum(count * log1p(stake * (each / SCALE - claimed)) for each, count in values.items())
