"""A collection in memory at one generation, which never changes: its passages, whose they are, how near they are to a question."""

from __future__ import annotations

import time
from copy import copy
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrieval.access import Caller
from retrieval.filters import Filter
from retrieval.index.admitted import Admitted, Allowed, Keeps, Key
from retrieval.index.columns import Columns
from retrieval.index.matrix import Matrix, merged
from retrieval.index.planner import CERTAIN, EXACT_WORK, WIDEST, Costs, Plan, plan, sight
from retrieval.index.ports import EngineAway, Graph, Hits, Ids, Mask, Vector
from retrieval.index.texts import Told

SAMPLED: Final = 1024  # passages, for what is usual
FEW: Final = 32  # passages of no direction beside them: a store of one passage must not find it usual
EFFORT: Final = 96  # where none was measured
SHORT_WORK: Final = 2048 * 384  # numbers compared in some 200 µs
SHORT_WALK: Final = 160 * 384  # candidates in sight of a graph times their numbers, in about the same
MOST_DOCUMENTS: Final = 4096  # that an engine is told to search


Planned = tuple[Plan, Ids | None]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """`fetched`: how many candidates were looked at to find these. `plan` is what was done in the end, not what was tried first."""

    hits: Hits
    plan: Plan
    fetched: int


@final
class State:
    """`ids` and `owners` (rows of `columns`) by slot; `alive` None: all of them."""

    def __init__(
        self,
        generation: int,
        ids: NDArray[np.int64],
        owners: NDArray[np.int64],
        alive: Mask | None,
        matrix: Matrix | None,
        columns: Columns,
        graph: Graph | None = None,
        effort: int = EFFORT,
        exact_work: int = EXACT_WORK,
        costs: Costs | None = None,
        told: Told | None = None,
    ) -> None:
        self.generation = generation
        self.ids = ids
        self.owners = owners
        self.alive = alive
        self.matrix = matrix
        self.columns = columns
        self.graph = graph
        self.effort = effort
        self.exact_work = exact_work
        self.costs = costs
        self._order: NDArray[np.int64] | None = None
        self._centre: Vector | None = None
        self.told = told or Told()
        self.count = len(ids) if alive is None else int(np.count_nonzero(alive))
        self._all = Allowed(alive, self.count)
        self._admitted = Admitted()
        self._whole: dict[int, Planned | None] = {}  # how a search of all of it goes about it, by how many are wanted

    def with_effort(self, effort: int | None) -> State:
        """The same with another effort of its graph; None: without the graph."""
        graph = None if effort is None else self.graph
        return State(
            self.generation,
            self.ids,
            self.owners,
            self.alive,
            self.matrix,
            self.columns,
            graph,
            effort or self.effort,
            self.exact_work,
            self.costs,
            self.told,
        )

    def at(self, generation: int) -> State:
        """The same at a later generation, in which nothing of it changed: what was kept of it is kept."""
        later = copy(self)
        later.generation = generation
        return later

    def is_as(self, before: State) -> bool:
        """Whether it is `before`, perhaps at another generation."""
        return self._admitted is before._admitted

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def dead(self) -> int:
        return self.rows - self.count

    @property
    def nbytes(self) -> int:
        """About what it holds in memory; what is mapped from a file is the system's to keep or to drop."""
        tail = 0 if self.matrix is None else self.matrix.tail.nbytes
        graph = 0 if self.graph is None else self.graph.nbytes
        kept = self.told.nbytes + self._admitted.nbytes
        return int(tail + graph + kept + self.ids.nbytes + self.owners.nbytes + 400 * len(self.columns))

    def slots_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where passages are; -1 for those that are not here."""
        if self._order is None:
            self._order = np.argsort(self.ids, kind="stable")
        if not self.rows:
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids, sorter=self._order), self.rows - 1)
        slots = self._order[at]
        return np.where(self.ids[slots] == ids, slots, -1)

    def known(self, caller: Caller, wanted: Filter | None, *, labelled: bool) -> Allowed | None:
        """As `allowed`, if that is only to be looked up."""
        readers = self.columns.readers(caller, labelled=labelled)
        if wanted is None and readers is None:
            return self._all
        return self._admitted.known(_key(readers, wanted, labelled=labelled))

    def allowed(self, caller: Caller, wanted: Filter | None, *, labelled: bool) -> Allowed:
        """The one way to a mask: what is dead, and what the caller may not read, is in none."""
        readers = self.columns.readers(caller, labelled=labelled)
        if wanted is None and readers is None:
            return self._all
        key = _key(readers, wanted, labelled=labelled)
        return self._admitted.get(key, lambda: self._resolved(caller, wanted, labelled=labelled))

    def _resolved(self, caller: Caller, wanted: Filter | None, *, labelled: bool) -> Allowed:
        of_documents = self.columns.mask(caller, wanted, labelled=labelled)
        if of_documents is None:
            return self._all
        mask: Mask = of_documents[self.owners] if len(of_documents) else np.zeros(self.rows, np.bool_)
        if self.alive is not None:
            mask &= self.alive
        dimensions = 0 if self.matrix is None else self.matrix.dimensions
        return Allowed(mask, int(np.count_nonzero(mask)), of_documents, dimensions)

    def found(self, ids: NDArray[np.int64], allowed: Allowed) -> NDArray[np.int64]:
        """As `slots_of`, with -1 also for what is not allowed."""
        slots = self.slots_of(ids)
        if allowed.mask is None or not self.rows:
            return slots
        return np.where(allowed.mask[slots] & (slots >= 0), slots, -1)

    def search(
        self, query: Vector, k: int, allowed: Allowed, *, exactly: bool = False, planned: Planned | None = None
    ) -> Answer:
        """The nearest `k` of what is allowed; fewer only where there are fewer. `planned`: by `short`, of the same."""
        if self.matrix is None:
            return Answer(Hits(np.zeros(0, np.int64), np.zeros(0, np.float32)), Plan("empty", self.rows, 0), 0)
        chosen, documents = planned or self.planned(k, allowed, exactly=exactly)
        if chosen.recall_mode == "estimated" and self.graph is not None:
            began = time.perf_counter()
            try:
                widened = self._widen(self.graph, query, k, allowed, chosen, documents)
            except EngineAway:
                widened = None
            if chosen.name == "widen":
                allowed.walked(time.perf_counter() - began)
            if widened is not None:
                return widened
            chosen = Plan("exact", self.rows, allowed.count)
        keeps = None if exactly else self._admitted.keeps
        return Answer(self._compared(self.matrix, query, k, allowed, keeps), chosen, allowed.count)

    def short(self, k: int, allowed: Allowed) -> Planned | None:
        """How a search goes about it that takes less time than it takes a thread to begin with it; None of any other."""
        if allowed is not self._all:
            return self._shortly(k, allowed)
        if k not in self._whole:  # of these, nothing ever changes
            self._whole[k] = self._shortly(k, allowed)
        return self._whole[k]

    def _shortly(self, k: int, allowed: Allowed) -> Planned | None:
        planned = self.planned(k, allowed)
        chosen, _ = planned
        dimensions = 0 if self.matrix is None else self.matrix.dimensions
        if chosen.recall_mode == "exact":
            return planned if allowed.work(dimensions) <= SHORT_WORK else None
        graph = self.graph
        if graph is None or not graph.inside or chosen.name != "graph":
            return None
        beside = (self.rows - graph.rows) * dimensions
        return planned if beside <= SHORT_WORK and max(self.effort, k) * dimensions <= SHORT_WALK else None

    def planned(self, k: int, allowed: Allowed, *, exactly: bool = False) -> Planned:
        """How `search` goes about it, and the documents that an engine is told to search."""
        graph_rows = 0 if self.graph is None or exactly else self.graph.rows
        documents = self._told(allowed) if graph_rows else None
        dimensions = 0 if self.matrix is None else self.matrix.dimensions
        chosen = plan(
            rows=self.rows,
            matching=allowed.count,
            k=k,
            graph_rows=graph_rows,
            dimensions=dimensions,
            exact_work=self.exact_work,
            pushed=documents is not None,
            effort=self.effort,
            costs=self.costs,
        )
        if chosen.name == "widen" and allowed.nearer(dimensions):
            chosen = Plan("exact", self.rows, allowed.count)
        return chosen, documents

    @staticmethod
    def _compared(matrix: Matrix, query: Vector, k: int, allowed: Allowed, keeps: Keeps | None) -> Hits:
        if not allowed.few or not k:
            return matrix.search(query, k, allowed.mask, allowed.count)
        return allowed.nearest(matrix, query, k, keeps)

    def nearness(self, query: Vector, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cosine of each of these."""
        if self.matrix is None:
            return np.zeros(len(slots), np.float32)
        return np.asarray(self.matrix.pick(slots) @ query, np.float32)

    def usual(self, query: Vector) -> float:
        """The mean cosine of a query with passages, over a sample of them; of a few passages nothing is said, and it is near 0."""
        if self.matrix is None or not self.rows:
            return 0.0
        if self._centre is None:
            sample = self.matrix.pick(np.arange(0, self.rows, -(-self.rows // SAMPLED)))
            self._centre = sample.sum(axis=0) / np.float32(len(sample) + FEW)
        return float(self._centre @ query)

    def _told(self, allowed: Allowed) -> Ids | None:
        """The documents to search, for an engine that filters by itself, if they are not too many to say."""
        if allowed.documents is None or self.graph is None or not self.graph.filters:
            return None
        rows = np.flatnonzero(allowed.documents)
        return self.columns.ids[rows] if len(rows) <= MOST_DOCUMENTS else None

    def _widen(
        self, graph: Graph, query: Vector, k: int, allowed: Allowed, chosen: Plan, documents: Ids | None
    ) -> Answer | None:
        """More and more of the graph's neighbours, until enough of them are allowed; None where that becomes dearer than to scan.

        Raises EngineAway.
        """
        assert self.matrix is not None
        mask, fetch = allowed.mask, chosen.fetch
        if mask is None and graph.coarse:
            fetch = int(k / CERTAIN) + 2
        while fetch <= WIDEST:
            effort = max(self.effort, fetch) if mask is None else sight(self.effort, fetch)
            found = graph.search(query, fetch, effort, documents)
            slots, scores = found.slots, found.scores
            enough = len(slots) >= k
            if mask is not None:
                passed = np.flatnonzero(mask[slots])
                # The farthest of a graph's neighbours are its least certain: none of those that are wanted may be among them.
                enough = len(passed) >= k and bool(passed[k - 1] < CERTAIN * fetch)
                slots, scores = slots[passed], scores[passed]
            if enough:
                hits = self.matrix.rescored(slots, query) if graph.coarse else Hits(slots, scores)
                if len(hits) > k:
                    hits = Hits(hits.slots[:k], hits.scores[:k])
                if self.rows > graph.rows:
                    hits = merged([hits, self.matrix.search_from(graph.rows, query, k, mask, allowed.count)], k)
                return Answer(hits, chosen, fetch)
            if documents is not None and len(found) < fetch:
                return None  # it has no more, and the rest may be in what came after it
            fetch *= 2
            if (
                self.costs is not None
                and self.costs.step_us * sight(self.effort, fetch) > self.costs.row_us * allowed.count
            ):
                return None
        return None


def _key(readers: frozenset[str] | None, wanted: Filter | None, *, labelled: bool) -> Key:
    """All that decides what is allowed. Of the filter its text, as in Python true equals 1."""
    return readers, labelled, "" if wanted is None else repr(wanted)
