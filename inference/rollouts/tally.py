"""What is counted of outcomes: histograms by step and arm, from which every test is made. The order of outcomes leaves no trace in them."""

from statistics import median
from typing import Final, TypeAlias

import msgspec

from inference.rollouts import means, quantiles
from inference.rollouts.rollout import CHAMPION

PILOT: Final = 20  # costs of the champion that say what is usual; they count nowhere else
TIMES_USUAL: Final = 20.0  # what costs more counts as this much: a mean needs a bound
_PILOTS_KEPT: Final = 2_000

Counts: TypeAlias = dict[int, int]


class Seen(msgspec.Struct, frozen=True):
    """One outcome in the words of gates; None where it says nothing. `wrong` and `regret` are losses in [0, 1]: of a label, of a score."""

    ok: bool | None = None
    valid: bool | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    cost_nanousd: int | None = None
    wrong: float | None = None
    regret: float | None = None
    differs: bool | None = None


class Tally(msgspec.Struct):
    """`counts`: stratum → arm → what → bucket → how many. `cap_nanousd`: the cost that counts as 1, once the pilot is through."""

    counts: dict[int, dict[str, dict[str, Counts]]] = {}
    pilot: list[tuple[int, str, int]] = []
    cap_nanousd: float | None = None

    def of(self, stratum: int, arm: str, what: str) -> Counts:
        return self.counts.get(stratum, {}).get(arm, {}).get(what, {})

    def number(self, arm: str, stratum: int | None = None) -> int:
        """Outcomes of an arm."""
        strata = self.counts if stratum is None else (stratum,)
        return sum(sum(self.of(each, arm, "error").values()) for each in strata)

    def add(self, stratum: int, arm: str, seen: Seen, weight: int = 1) -> None:
        """A `weight` of -1 takes back what was added."""
        flags = {"error": _not(seen.ok), "invalid": _not(seen.valid), "differs": seen.differs}
        for what, bad in flags.items():
            if bad is not None:
                self._count(stratum, arm, what, int(bad), weight)
        for what, loss in (("wrong", seen.wrong), ("regret", seen.regret)):
            if loss is not None:
                self._count(stratum, arm, what, means.bucket(loss), weight)
        for what, ms in (("latency", seen.latency_ms), ("first_token", seen.first_token_ms)):
            if ms is not None:
                self._count(stratum, arm, what, quantiles.bucket(ms), weight)
        if seen.cost_nanousd is not None and weight > 0:
            self._add_cost(stratum, arm, seen.cost_nanousd)

    def _add_cost(self, stratum: int, arm: str, cost: int) -> None:
        if self.cap_nanousd is not None:
            self._count(stratum, arm, "cost", means.bucket(cost / self.cap_nanousd), 1)
            return
        if len(self.pilot) < _PILOTS_KEPT:
            self.pilot.append((stratum, arm, cost))
        pilots = [one for one in self.pilot if one[1] == CHAMPION]
        if len(pilots) >= PILOT:
            self.cap_nanousd = max(1.0, TIMES_USUAL * median(each for *_, each in pilots[:PILOT]))
            waiting = [one for one in self.pilot if one[1] != CHAMPION] + pilots[PILOT:]
            self.pilot = []
            for one in waiting:
                self._add_cost(*one)

    def _count(self, stratum: int, arm: str, what: str, bucket: int, weight: int) -> None:
        counts = self.counts.setdefault(stratum, {}).setdefault(arm, {}).setdefault(what, {})
        counts[bucket] = counts.get(bucket, 0) + weight
        if counts[bucket] <= 0:
            del counts[bucket]


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value
