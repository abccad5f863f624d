"""How much was used in the last minute, never told too low: slots of five seconds, forgotten only once they are wholly past."""

from typing import Final, final

SLOT_S: Final = 5.0
SLOTS: Final = 13  # twelve make a minute, and the oldest of them is only in part over


@final
class Minute:
    """Times are monotonic seconds and never go back."""

    __slots__ = ("_amounts", "_slot", "_total")

    def __init__(self) -> None:
        self._amounts = [0] * SLOTS
        self._slot = 0
        self._total = 0

    def used(self, now: float) -> int:
        self._turn(now)
        return self._total

    def add(self, now: float, amount: int) -> None:
        """Also a correction: a negative one is not taken below what its slot has."""
        self._turn(now)
        index = self._slot % SLOTS
        amount = max(amount, -self._amounts[index])
        self._amounts[index] += amount
        self._total += amount

    def frees_s(self, now: float) -> float:
        """Until the oldest use is forgotten; 0 where there is none."""
        self._turn(now)
        for age in range(SLOTS - 1, -1, -1):
            if self._amounts[(self._slot - age) % SLOTS]:
                return (self._slot - age + SLOTS) * SLOT_S - now
        return 0.0

    def _turn(self, now: float) -> None:
        slot = int(now / SLOT_S)
        gone = slot - self._slot
        if gone <= 0:
            return
        for number in range(min(gone, SLOTS)):
            index = (slot - number) % SLOTS
            self._total -= self._amounts[index]
            self._amounts[index] = 0
        self._slot = slot
