"""Recall that is watched: some searches that a graph answered are done again exactly, beside the traffic, and what they missed is counted.

Kept for each collection and kind of filter, with an interval (Wilson, 1927). Where recall is certainly below what is promised, the graph
has to make more of an effort, and where less is certainly enough as well, less. Where more does not help, it is given up, and everything is
compared until a new one is made.
"""

import threading
from collections.abc import Callable
from math import sqrt
from typing import Final, Literal, final

import msgspec
import structlog

from retrieval.filters import AnyOf, Compare, Every, Exists, Filter, Not, Prefix, Some
from retrieval.index.admitted import Allowed
from retrieval.index.ports import Hits, Vector
from retrieval.index.settings import RECALL
from retrieval.index.state import Answer, State

log = structlog.stdlib.get_logger(__name__)

EVERY_S: Final = 0.5  # a check at most, for all collections of the process
Z: Final = 2.58  # 99 %
ENOUGH: Final = (
    300  # neighbours: those of one search are found or missed together, so that a few searches prove nothing
)
KEPT: Final = 20_000  # neighbours: older ones weigh less, so that a repair shows
MOST_EFFORT: Final = 2048
EQUAL: Final = 1e-5  # of equals any will do

LEAST_EFFORT: Final = 12
LESS: Final = 0.9  # of the effort, to see whether that would do: the last step costs as much as all of them are worth

Verdict = Literal["fine", "raised", "lowered", "given_up"]


class Recall(msgspec.Struct, frozen=True):
    """Of `wanted` neighbours `found` were found. `low` and `high` bound the recall with 99 % confidence."""

    found: float
    wanted: float

    @property
    def low(self) -> float:
        return _wilson(self.found, self.wanted)[0]

    @property
    def high(self) -> float:
        return _wilson(self.found, self.wanted)[1]

    def and_of(self, found: int, wanted: int) -> "Recall":
        share = min(1.0, KEPT / (self.wanted + wanted))
        return Recall(share * (self.found + found), share * (self.wanted + wanted))


@final
class Checks:
    """Of this process since its start: nearest neighbours that searches found and missed, and what was done about it."""

    __slots__ = ("found", "missed", "repairs")

    def __init__(self) -> None:
        self.found = 0
        self.missed = 0
        self.repairs: dict[Verdict, int] = {"raised": 0, "lowered": 0, "given_up": 0}


class Repair(msgspec.Struct, frozen=True):
    """What is to be done with a collection's graph."""

    verdict: Verdict
    effort: int


@final
class Audit:
    """One per process, for any thread. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float], floor: float = RECALL) -> None:
        self._floor = floor
        self._now = now
        self._next = 0.0
        self._turn = threading.Lock()
        self._known: dict[tuple[str, str], Recall] = {}
        self._tried: dict[tuple[str, int], Recall] = {}
        self.checks = Checks()

    def due(self, answer: Answer) -> bool:
        """Whether this one is to be checked. Cheap."""
        return answer.plan.recall_mode == "estimated" and self._now() >= self._next

    def check(
        self,
        collection_id: str,
        state: State,
        query: Vector,
        k: int,
        wanted: Filter | None,
        allowed: Allowed,
        answer: Answer,
    ) -> Repair:
        """Blocks for an exact search."""
        self._next = self._now() + EVERY_S
        truth = state.search(query, k, allowed, exactly=True).hits
        if not len(truth):
            return Repair("fine", state.effort)
        worst = float(truth.scores[-1]) - EQUAL
        found = int((answer.hits.scores >= worst).sum())
        kind = shape(wanted)
        self.checks.found += min(found, len(truth))
        self.checks.missed += max(0, len(truth) - found)
        with self._turn:
            recall = self._known.get((collection_id, kind), Recall(0, 0)).and_of(min(found, len(truth)), len(truth))
            self._known[collection_id, kind] = recall
            certain = recall.high < self._floor and recall.wanted >= ENOUGH
        if not certain:
            return self._lowered(collection_id, state, query, k, allowed, truth) or Repair("fine", state.effort)
        with self._turn:
            del self._known[collection_id, kind]  # what follows is another graph, as far as this one could be trusted
        effort = 2 * state.effort
        verdict: Verdict = "raised" if effort <= MOST_EFFORT else "given_up"
        self.checks.repairs[verdict] += 1
        log.warning(
            "index.recall",
            collection=collection_id,
            filter=kind,
            recall=round(recall.found / recall.wanted, 4),
            verdict=verdict,
        )
        return Repair(verdict, effort)

    def _lowered(
        self, collection_id: str, state: State, query: Vector, k: int, allowed: Allowed, truth: Hits
    ) -> Repair | None:
        """Whether less of an effort is certainly enough: of searches that everything may answer, tried beside them."""
        less = max(LEAST_EFFORT, int(LESS * state.effort))
        if allowed.mask is not None or less >= state.effort or k > less:
            return None
        found = state.with_effort(less).search(query, k, allowed)
        if found.plan.recall_mode == "exact":
            return None
        hits = int((found.hits.scores >= float(truth.scores[-1]) - EQUAL).sum())
        tried = collection_id, less
        with self._turn:
            recall = self._tried.get(tried, Recall(0, 0)).and_of(min(hits, len(truth)), len(truth))
            self._tried[tried] = recall
            if recall.low < self._floor:
                return None
            del self._tried[tried]
            self._known.pop((collection_id, shape(None)), None)  # of another effort
        self.checks.repairs["lowered"] += 1
        log.info("index.effort", collection=collection_id, effort=less, recall=round(recall.found / recall.wanted, 4))
        return Repair("lowered", less)

    def of(self, collection_id: str) -> dict[str, Recall]:
        """By kind of filter."""
        with self._turn:
            return {kind: recall for (id_, kind), recall in self._known.items() if id_ == collection_id}

    def forget(self, collection_id: str) -> None:
        with self._turn:
            for key in [key for key in self._known if key[0] == collection_id]:
                del self._known[key]
            for tried in [tried for tried in self._tried if tried[0] == collection_id]:
                del self._tried[tried]


def shape(wanted: Filter | None) -> str:  # noqa: PLR0911 — a table
    """A filter without its values: which attributes it asks for, and how."""
    match wanted:
        case None:
            return "none"
        case AnyOf(key, _):
            return f"in({key})"
        case Compare(key, order, _):
            return f"{order}({key})"
        case Exists(key):
            return f"exists({key})"
        case Prefix(key, _):
            return f"prefix({key})"
        case Not(part):
            return f"not({shape(part)})"
        case Every(parts):
            return f"and({','.join(sorted(map(shape, parts)))})"
        case Some(parts):
            return f"or({','.join(sorted(map(shape, parts)))})"


def _wilson(found: float, wanted: float) -> tuple[float, float]:
    """E. B. Wilson, JASA 22 (1927)."""
    if wanted <= 0:
        return 0.0, 1.0
    share = found / wanted
    middle = (share + Z * Z / (2 * wanted)) / (1 + Z * Z / wanted)
    half = Z * sqrt(share * (1 - share) / wanted + Z * Z / (4 * wanted * wanted)) / (1 + Z * Z / wanted)
    return max(0.0, middle - half), min(1.0, middle + half)
