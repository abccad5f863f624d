"""How often an answer by meaning was right, how sure that is, and how near a question has to be so that it stays as often as declared.

Some hits are asked again in the background and judged. Where it is likely that fewer are right than declared, the threshold rises until it
is no longer; where it is likely that enough are, it falls back towards what is configured, never below it.
"""

from collections import deque
from math import sqrt
from typing import Final, NamedTuple, final

WINDOW: Final = 500
STEP: Final = 0.005
HIGHEST: Final = 0.999
Z: Final = 1.96  # of a 95 % interval


class Interval(NamedTuple):
    """Of a share, between 0 and 1."""

    lower: float
    upper: float


def wilson(right: int, count: int) -> Interval:
    """Wilson's score interval (1927): honest where the share is near 1 and the count small. Everything is possible of nothing."""
    if not count:
        return Interval(0.0, 1.0)
    share, spread = right / count, Z * Z / count
    centre = share + spread / 2
    margin = Z * sqrt(share * (1 - share) / count + spread / (4 * count))
    return Interval(max(0.0, (centre - margin) / (1 + spread)), min(1.0, (centre + margin) / (1 + spread)))


@final
class Precision:
    """Of one model. `floor` is the configured threshold, `declared` the share that is to be right."""

    def __init__(self, floor: float, declared: float) -> None:
        self._floor = floor
        self._declared = declared
        self._judged: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self.threshold = floor
        self.right = 0
        self.wrong = 0

    def configure(self, floor: float, declared: float) -> None:
        """Follows a changed configuration."""
        if (floor, declared) != (self._floor, self._declared):
            self._floor, self._declared = floor, declared
            self.threshold = max(floor, self.threshold)
            self._move()

    def judge(self, similarity: float, *, right: bool) -> None:
        self._judged.append((similarity, right))
        self.right += right
        self.wrong += not right
        self._move()

    @property
    def interval(self) -> Interval:
        """Of the hits that the threshold would still allow."""
        return self._interval(self.threshold)

    def _interval(self, threshold: float) -> Interval:
        judged = [right for similarity, right in self._judged if similarity >= threshold]
        return wilson(sum(judged), len(judged))

    def _move(self) -> None:
        while self.threshold < HIGHEST and self._interval(self.threshold).upper < self._declared:
            self.threshold = min(HIGHEST, self.threshold + STEP)
        lower = max(self._floor, self.threshold - STEP)
        if (
            lower < self.threshold
            and self._interval(self.threshold).lower >= self._declared
            and self._interval(lower).upper >= self._declared
        ):
            self.threshold = lower
