"""What is counted of outcomes: histograms by step and arm, from which every test is made. The order of outcomes leaves no trace in them."""

from statistics import median
from typing import Final, TypeAlias

import msgspec

from inference.rollouts import means, quantiles
from inference.rollouts.rollout import CHALLENGER, CHAMPION
from inference.rollouts.values import Value, bucket, edges_of

PILOT: Final = 20  # costs of the champion that say what is usual; they count nowhere else
TIMES_USUAL: Final = 20.0  # what costs more counts as this much: a mean needs a bound
_PILOTS_KEPT: Final = 2_000
SHAPED: Final = 50  # values of the champion that say where its deciles are; they count nowhere else
MOST_GROUPS: Final = 20

Counts: TypeAlias = dict[int, int]


class Seen(msgspec.Struct, frozen=True):
    """One outcome in the words of gates; None where it says nothing. `wrong`, `regret` and `judged` are losses in [0, 1]: of a label, of a
    score, of what a judge says; `lost`, of the challenger, whichever arm answered: against the
    champion's answer to the same. `inputs` and `outputs` are one row's, `group` its group, and `positive` whether it was answered with the
    positive class; `hit` is that of a row which deserved it."""

    ok: bool | None = None
    valid: bool | None = None
    empty: bool | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    cost_nanousd: int | None = None
    wrong: float | None = None
    regret: float | None = None
    differs: bool | None = None
    judged: float | None = None
    lost: float | None = None
    inputs: dict[str, Value] | None = None
    outputs: dict[str, Value] | None = None
    group: str | None = None
    positive: bool | None = None
    hit: bool | None = None


class Tally(msgspec.Struct):
    """`counts`: stratum → arm → what → bucket → how many. `cap_nanousd`: the cost that counts as 1, once the pilot is through.

    `edges`: by `inputs` and `outputs`, where each column is cut, once there are enough values to know; `texts`: columns without an order.
    """

    counts: dict[int, dict[str, dict[str, Counts]]] = {}
    pilot: list[tuple[int, str, int]] = []
    cap_nanousd: float | None = None
    edges: dict[str, dict[str, tuple[float, ...]]] = {}
    texts: dict[str, list[str]] = {}
    shapes: dict[str, list[tuple[int, str, dict[str, Value]]]] = {}

    def of(self, stratum: int, arm: str, what: str) -> Counts:
        return self.counts.get(stratum, {}).get(arm, {}).get(what, {})

    def number(self, arm: str, stratum: int | None = None) -> int:
        """Outcomes of an arm."""
        strata = self.counts if stratum is None else (stratum,)
        return sum(sum(self.of(each, arm, "error").values()) for each in strata)

    @property
    def asked(self) -> int:
        """Outcomes of both arms."""
        return self.number(CHAMPION) + self.number(CHALLENGER)

    def add(self, stratum: int, arm: str, seen: Seen, weight: int = 1) -> None:
        """A `weight` of -1 takes back what was added."""
        flags = {"error": _not(seen.ok), "invalid": _not(seen.valid), "differs": seen.differs, "empty": seen.empty}
        for what, bad in flags.items():
            if bad is not None:
                self._count(stratum, arm, what, int(bad), weight)
        for what, loss in (
            ("wrong", seen.wrong),
            ("regret", seen.regret),
            ("judged", seen.judged),
            ("lost", seen.lost),
        ):
            if loss is not None:
                self._count(stratum, arm, what, means.bucket(loss), weight)
        for what, ms in (("latency", seen.latency_ms), ("first_token", seen.first_token_ms)):
            if ms is not None:
                self._count(stratum, arm, what, quantiles.bucket(ms), weight)
        if seen.cost_nanousd is not None and weight > 0:
            self._add_cost(stratum, arm, seen.cost_nanousd)
        if seen.group is not None:
            self._add_group(stratum, arm, seen, weight)
        if weight > 0:
            for side, values in (("inputs", seen.inputs), ("outputs", seen.outputs)):
                if values is not None:
                    self._add_values(stratum, arm, side, values)

    def shape(self, side: str, edges: dict[str, tuple[float, ...]], texts: list[str]) -> None:
        """From now on these columns are counted, cut there."""
        self.edges[side], self.texts[side] = edges, texts

    def groups(self, stratum: int, arm: str, what: str) -> dict[str, tuple[int, int]]:
        """How many good outcomes of how many, by group, in the order of their appearance. `what`: parity or opportunity."""
        found = {}
        for name, counts in self.counts.get(stratum, {}).get(arm, {}).items():
            kind, _, group = name.partition(" ")
            if kind == what:
                found[group] = (counts.get(1, 0), sum(counts.values()))
        return found

    def _add_group(self, stratum: int, arm: str, seen: Seen, weight: int) -> None:
        for what, good in (("parity", seen.positive), ("opportunity", seen.hit)):
            if good is None:
                continue
            name = f"{what} {seen.group}"
            if self.of(stratum, arm, name) or len(self.groups(stratum, arm, what)) < MOST_GROUPS:
                self._count(stratum, arm, name, int(good), weight)

    def _add_values(self, stratum: int, arm: str, side: str, values: dict[str, Value]) -> None:
        edges = self.edges.get(side)
        if edges is not None:
            for column, cuts in edges.items():
                self._count(stratum, arm, f"{side} {column}", bucket(values.get(column), cuts), 1)
            return
        waiting = self.shapes.setdefault(side, [])
        if len(waiting) < _PILOTS_KEPT:
            waiting.append((stratum, arm, values))
        pilots = [one for one in waiting if one[1] == CHAMPION]
        if len(pilots) < SHAPED:
            return
        first = [one[2] for one in pilots[:SHAPED]]
        columns = {name: [each.get(name) for each in first] for each in first for name in each}
        texts = [name for name, seen in columns.items() if any(isinstance(each, str) for each in seen)]
        self.shape(side, {name: () if name in texts else edges_of(seen) for name, seen in columns.items()}, texts)
        del self.shapes[side]
        for one in [one for one in waiting if one[1] != CHAMPION] + pilots[SHAPED:]:
            self._add_values(one[0], one[1], side, one[2])

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
