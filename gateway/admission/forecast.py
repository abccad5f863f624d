"""How long a call will wait, and whether that is too long: arithmetic on what the last calls took."""

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, final

import msgspec

KEPT: Final = 20
MOST_RETRY_S: Final = 60

Reason = Literal["full", "deadline", "displaced", "timeout", "draining"]


@final
class Pace:
    """What the last calls of a model took, in seconds."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=KEPT)

    def note(self, seconds: float) -> None:
        self._last.append(seconds)

    @property
    def mean_s(self) -> float:
        """0 as long as nothing is known: nobody is sent away on a guess."""
        return sum(self._last) / len(self._last) if self._last else 0.0

    @property
    def least_s(self) -> float:
        """What even a quick one took."""
        return min(self._last, default=0.0)


def wait_s(ahead: int, ages: Sequence[float], mean_s: float) -> float:
    """Until a place is free for one with `ahead` before it, where calls of these ages have the places and each takes `mean_s`.

    Leans to the short side: a call that is older than the mean counts as about to end. No ages: the places are not what it waits for.
    """
    if not ages:
        return 0.0
    left = sorted(max(0.0, mean_s - age) for age in ages)
    rounds, place = divmod(ahead, len(left))
    return left[place] + rounds * mean_s


class Outlook(msgspec.Struct, frozen=True):
    """What one that comes now has to expect: seconds until it begins, and how long it would take at least from there."""

    begins_s: float
    takes_s: float


def hopeless(outlook: Outlook, *, left_s: float, patience_s: float) -> bool:
    """Whether it cannot be answered in what is left of its time, or not begin as soon as anybody may be kept waiting."""
    return outlook.begins_s > patience_s or outlook.begins_s + outlook.takes_s > left_s


def retry_after_s(outlook: Outlook) -> int:
    """Whole seconds after which it is worth coming again."""
    return max(1, min(MOST_RETRY_S, int(outlook.begins_s + 0.999)))
