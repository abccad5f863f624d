"""How long calls wait for their first token: the 95th percentile over the last ones, to tell a slow one from a usual one."""

from bisect import bisect_left, insort
from collections import deque
from math import ceil
from typing import Final, final

KEPT: Final = 200
ENOUGH: Final = 20  # fewer tell nothing of one in twenty
SHARE: Final = 0.95


@final
class FirstWords:
    """Of calls of one kind. Seconds."""

    __slots__ = ("_last", "_sorted")

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Of one that was given up: so long it waited, and nobody knows how much longer it would have."""
        if len(self._last) == KEPT:
            oldest = self._last.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._last.append(seconds)
        insort(self._sorted, seconds)

    @property
    def p95_s(self) -> float | None:
        """The smallest that 95 % of the last calls were not above; None as long as there were too few."""
        count = len(self._sorted)
        return self._sorted[ceil(count * SHARE) - 1] if count >= ENOUGH else None
