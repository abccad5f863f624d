"""What a filter and a caller admit of one state of a collection, kept for the next who asks the same: states never change."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import numpy as np

from retrieval.index import partition, sieve
from retrieval.index.matrix import SPARSE, Matrix
from retrieval.index.partition import Partition
from retrieval.index.ports import Hits, Mask, Slots, Vector

KEPT_BYTES: Final = 32 << 20  # of one collection
SPENT: Final = 1 << 20  # numbers to be cut to eight bits take as long as some of their searches spare
CHEAPER: Final = 3  # times as many numbers are sieved as are compared in the same time
DEARER: Final = 64  # times as long takes it to cut them
LONGEST: Final = 2048  # characters of a filter

Key = tuple[frozenset[str] | None, bool, str]


@final
class Allowed:
    """The slots that a search may find: a mask, None for every one, and exactly how many.

    `documents` are the rows of `Columns` that they are of; None where that says nothing.
    """

    __slots__ = ("_form", "_partition", "_slots", "_turn", "_uses", "count", "documents", "mask")

    def __init__(self, mask: Mask | None, count: int, documents: Mask | None = None, dimensions: int = 0) -> None:
        self.mask = mask
        self.count = count
        self.documents = documents
        self._form = partition.form(count, dimensions, sieves=sieve.available()) if self.few and dimensions else None
        self._slots: Slots | None = None
        self._partition: Partition | None = None
        self._uses = 0
        self._turn = threading.Lock()

    @property
    def few(self) -> bool:
        """Whether they are so few that a list of them is better than a mask."""
        return self.mask is not None and self.count < SPARSE * len(self.mask)

    @property
    def slots(self) -> Slots:
        """In order; for a mask alone."""
        assert self.mask is not None
        if self._slots is None:
            self._slots = np.flatnonzero(self.mask)
        return self._slots

    def work(self, dimensions: int) -> int:
        """What comparing them takes next time, in numbers that are compared whole."""
        numbers = self.count * dimensions
        if self._form is None or not self._form.sieved:
            return numbers
        if self._partition is not None:
            return numbers // CHEAPER
        return DEARER * numbers if self._uses >= self._earned(numbers) else numbers

    def nearest(self, matrix: Matrix, query: Vector, k: int) -> Hits:
        """Of few. A partition of them is made once searches have earned it: from the second one on, of many some later."""
        if self._partition is None and self._form is not None and self._turn.acquire(blocking=False):
            try:
                if self._uses >= self._earned(self.count * matrix.dimensions) and self._partition is None:
                    self._partition = partition.made(self._form, matrix, self.slots)
                self._uses += 1
            finally:
                self._turn.release()
        chosen = self._partition
        return matrix.search_among(self.slots, query, k) if chosen is None else chosen.nearest(query, k)

    @staticmethod
    def _earned(numbers: int) -> int:
        return 1 + numbers // SPENT

    @property
    def nbytes(self) -> int:
        """What it may come to hold."""
        mask = 0 if self.mask is None else len(self.mask)
        copied = 0 if self._form is None else self._form.nbytes
        documents = 0 if self.documents is None else len(self.documents)
        return mask + (8 * self.count + copied if self.few else 0) + documents


@final
class Admitted:
    """Those that were asked for last, by what decides them, within a budget of bytes. For any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Allowed] = OrderedDict()
        self._turn = threading.Lock()
        self.nbytes = 0

    def known(self, key: Key) -> Allowed | None:
        with self._turn:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            return known

    def get(self, key: Key, make: Callable[[], Allowed]) -> Allowed:
        known = self.known(key)
        if known is not None:
            return known
        made = make()
        if len(key[2]) > LONGEST:
            return made
        size = made.nbytes
        if size > 3 * KEPT_BYTES // 4:
            return made
        with self._turn:
            if key not in self._known:
                self._known[key] = made
                self.nbytes += size
                while self.nbytes > KEPT_BYTES:
                    self.nbytes -= self._known.popitem(last=False)[1].nbytes
        return made
