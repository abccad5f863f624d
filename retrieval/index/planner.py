"""How a search goes about it, decided before it begins from exact numbers: how many passages there are and how many may be found. Pure.

A filter is resolved first. What is left over is scanned exactly while that costs less than a graph would; beyond, the graph is asked
for so many neighbours that the wanted ones should be among them, and for more until they are. As the nearest that pass a filter are the
first of all neighbours that pass it, k of them found so are the k that were wanted, as far as the graph can be trusted at all.
An engine that filters by itself is told which documents to search, as long as those are not too many to say.
"""

from typing import Final, Literal

import msgspec

PlanName = Literal["empty", "all", "exact", "graph", "widen", "pushed"]
RecallMode = Literal["exact", "estimated"]

EXACT_WORK: Final = 20_000 * 384  # numbers to multiply: about 2 ms of one core
WIDEST: Final = 4096  # neighbours; a graph asked for more costs more than to look at everything
MARGIN: Final = 1.5
WORTH: Final = 8  # times the price of an estimate is paid for an exact answer
CERTAIN: Final = 0.8  # of what a graph found: the farthest of it may have nearer ones beside them that it did not see


class Costs(msgspec.Struct, frozen=True):
    """Measured where a graph was made: `step_us` for each candidate that it keeps in sight, `row_us` for each row picked and compared."""

    step_us: float
    row_us: float


class Plan(msgspec.Struct, frozen=True, gc=False):
    """`fetch`: how many neighbours the graph is asked for at first. `matching` of `rows` may be found."""

    name: PlanName
    rows: int
    matching: int
    fetch: int = 0

    @property
    def recall_mode(self) -> RecallMode:
        return "estimated" if self.name in ("graph", "widen", "pushed") else "exact"


def plan(
    *,
    rows: int,
    matching: int,
    k: int,
    graph_rows: int,
    dimensions: int,
    exact_work: int = EXACT_WORK,
    pushed: bool = False,
    effort: int = 0,
    costs: Costs | None = None,
) -> Plan:
    """`rows` in the index, dead ones included; the graph knows the first `graph_rows` of them. `pushed`: it can be told which ones."""
    if matching == 0 or k == 0:
        return Plan("empty", rows, matching)
    if matching <= k:
        return Plan("all", rows, matching)
    many = matching * dimensions > exact_work
    if graph_rows and many and matching == rows:
        return Plan("graph", rows, matching, k)
    if graph_rows and many and pushed:
        return Plan("pushed", rows, matching, int(k / CERTAIN) + 2)
    fetch = int(k * rows / matching * MARGIN) + k
    if graph_rows and fetch <= WIDEST and (many or _dearer(matching, rows, effort, fetch, costs)):
        return Plan("widen", rows, matching, fetch)
    return Plan("exact", rows, matching)


def _dearer(matching: int, rows: int, effort: int, fetch: int, costs: Costs | None) -> bool:
    """Whether it is known that to compare them costs more than to walk until some of them are passed."""
    if costs is None or matching == rows:
        return False
    return WORTH * costs.step_us * sight(effort, fetch) < costs.row_us * matching


def sight(effort: int, fetch: int) -> int:
    """How many candidates a graph keeps in sight for neighbours of which some will pass: twice as many, so that the last are certain."""
    return 2 * max(effort, fetch)
