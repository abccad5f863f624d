"""How a search goes about it, decided before it begins from exact numbers: how many passages there are and how many may be found. Pure.

A filter is resolved first. What is left over is scanned exactly while that costs less than a graph would; beyond, the graph is asked
for so many neighbours that the wanted ones should be among them, and for more until they are. As the nearest that pass a filter are the
first of all neighbours that pass it, k of them found so are the k that were wanted, as far as the graph can be trusted at all.
"""

from typing import Final, Literal

import msgspec

PlanName = Literal["empty", "all", "exact", "graph", "widen"]
RecallMode = Literal["exact", "estimated"]

EXACT_WORK: Final = 20_000 * 384  # numbers to multiply: about 2 ms of one core
WIDEST: Final = 4096  # neighbours; a graph asked for more costs more than to look at everything
MARGIN: Final = 1.5


class Plan(msgspec.Struct, frozen=True):
    """`fetch`: how many neighbours the graph is asked for at first. `matching` of `rows` may be found."""

    name: PlanName
    rows: int
    matching: int
    fetch: int = 0

    @property
    def recall_mode(self) -> RecallMode:
        return "estimated" if self.name in ("graph", "widen") else "exact"


def plan(*, rows: int, matching: int, k: int, graph_rows: int, dimensions: int, exact_work: int = EXACT_WORK) -> Plan:
    """`rows` in the index, dead ones included; the graph knows the first `graph_rows` of them."""
    if matching == 0 or k == 0:
        return Plan("empty", rows, matching)
    if matching <= k:
        return Plan("all", rows, matching)
    if graph_rows == 0 or matching * dimensions <= exact_work:
        return Plan("exact", rows, matching)
    if matching == rows:
        return Plan("graph", rows, matching, k)
    fetch = int(k * rows / matching * MARGIN) + k
    if fetch > WIDEST:
        return Plan("exact", rows, matching)
    return Plan("widen", rows, matching, fetch)
