"""Whether a quantile (the 95th percentile of latency) is higher in the challenger than a line over the champion's. Valid at every look.

For the champion's true quantile x, at least 5 % of its requests take x or longer; if the challenger kept to the line, at most 5 % of
its own take longer than line(x). One gambler bets against each; x is unknown, so what counts is the least that the two have over all x.
Howard and Ramdas, "Sequential estimation of quantiles" (2022), do it for one sample. Values stand in buckets, and a value that could
be on either side of a line is counted on the side that proves less.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import ceil, log
from typing import Final, final

from inference.rollouts.wealth import Wealth, few, least, many

WIDTH: Final = 1.0025  # each bucket ends a quarter of a percent higher than the one before
_LOG_WIDTH: Final = log(WIDTH)
_LEAST: Final = 1e-3
_LOWEST: Final = ceil(log(_LEAST) / _LOG_WIDTH)
_HIGHEST: Final = -5 * _LOWEST  # beyond any value

Histogram = Mapping[int, int]  # bucket → values


def bucket(value: float) -> int:
    """The bucket whose end is the first that is not below the value."""
    return ceil(log(max(value, _LEAST)) / _LOG_WIDTH - 1e-9)


def end(index: int) -> float:
    """The largest value of a bucket."""
    return float(WIDTH**index)


def quantile(histogram: Histogram, share: float) -> float | None:
    """The end of the bucket that the quantile lies in."""
    wanted, seen = share * sum(histogram.values()), 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= wanted:
            return end(index)
    return None


def compare(champion: Histogram, challenger: Histogram, share: float, factor: float, slack: float) -> Wealth:
    """The line is `factor * x + slack`. `share` is 0.95 for the 95th percentile."""
    if not champion or not challenger:
        return Wealth()
    ours, theirs = _Tail(champion, 1 - share), _Tail(challenger, 1 - share)

    def shown(index: int) -> float:  # that the champion's quantile is below this bucket; rises with it
        return ours.few(ours.from_(index))

    def slow(index: int) -> float:  # that the challenger's is over the line, if the champion's is in this bucket; falls
        return theirs.many(theirs.above(bucket(factor * end(index) + slack)))

    def higher(back: int) -> float:  # that the champion's is above this bucket; falls with the bucket
        return ours.many(ours.above(-back))

    def quick(back: int) -> float:  # that the challenger is below the line, if the champion is in here; rises
        return theirs.few(theirs.from_(bucket(factor * end(-back - 1) + slack)))

    return Wealth(least(shown, slow, _LOWEST, _HIGHEST), least(higher, quick, -_HIGHEST, -_LOWEST))


def ceiling(champion: Histogram, challenger: Histogram, share: float, factor: float, slack: float) -> Wealth:
    """What `compare` can say at most, for a fraction of its price: at the champion's own quantile alone."""
    here = quantile(champion, share)
    if here is None or not challenger:
        return Wealth()
    ours, theirs = _Tail(champion, 1 - share), _Tail(challenger, 1 - share)
    index = bucket(here)
    slow = theirs.many(theirs.above(bucket(factor * end(index) + slack)))
    quick = theirs.few(theirs.from_(bucket(factor * end(index - 1) + slack)))
    return Wealth(ours.few(ours.from_(index)) + slow, ours.many(ours.above(index)) + quick)


@final
class _Tail:
    """How many values are in a bucket or beyond it, and what gamblers have who bet on that; many buckets share an answer."""

    def __init__(self, histogram: Histogram, tail: float) -> None:
        self.buckets = sorted(histogram)
        self._n = sum(histogram.values())
        self._tail = tail
        self._upto = [0, *accumulate(histogram[each] for each in self.buckets)]
        self._few: dict[int, float] = {}
        self._many: dict[int, float] = {}

    def from_(self, index: int) -> int:
        return self._n - self._upto[bisect_left(self.buckets, index)]

    def above(self, index: int) -> int:
        return self.from_(index + 1)

    def few(self, seen: int) -> float:
        if seen not in self._few:
            self._few[seen] = few(seen, self._n, self._tail)
        return self._few[seen]

    def many(self, seen: int) -> float:
        if seen not in self._many:
            self._many[seen] = many(seen, self._n, self._tail)
        return self._many[seen]
