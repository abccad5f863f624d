"""What a filter and a caller admit of one state of a collection, kept for the next who asks the same: states never change."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Final, final

import numpy as np

from retrieval.index import partition, sieve
from retrieval.index.matrix import SPARSE, Matrix
from retrieval.index.partition import Form, Partition
from retrieval.index.ports import Hits, Mask, Slots, Vector

KEPT_BYTES: Final = 32 << 20  # of one collection
LONGEST: Final = 2048  # characters of a filter

# Measured over 10,000 × 128 to 100,000 × 128 on one core. Only which way is taken hangs on them, and never what is found.
SIEVED_NS: Final = 0.08  # of a number in a sieve
CUT_NS: Final = 8.0  # of a number until there is one
SPENT: Final = 1 << 20  # numbers: for each so many, one search more has to come before they are cut
CHEAPER: Final = 3  # times as many numbers are sieved as are compared whole in the same time
DEARER: Final = 64  # times as long takes it to cut them
WORTH: Final = 2  # times as long as to compare takes what is given up for it

Key = tuple[frozenset[str] | None, bool, str]
Keeps = Callable[["Allowed", int], bool]


@final
class Allowed:
    """The slots that a search may find: a mask, None for every one, and exactly how many.

    `documents` are the rows of `Columns` that they are of; None where that says nothing.
    """

    __slots__ = (
        "_copied",
        "_form",
        "_partition",
        "_quickest_s",
        "_slots",
        "_turn",
        "_uses",
        "_walked_s",
        "count",
        "documents",
        "mask",
    )

    def __init__(self, mask: Mask | None, count: int, documents: Mask | None = None, dimensions: int = 0) -> None:
        self.mask = mask
        self.count = count
        self.documents = documents
        self._form = partition.form(count, dimensions, sieves=sieve.available()) if self.few and dimensions else None
        self._copied = 0
        self._slots: Slots | None = None
        self._partition: Partition | None = None
        self._uses = 0
        self._walked_s = 0.0
        self._quickest_s = inf
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

    @property
    def nbytes(self) -> int:
        mask = 0 if self.mask is None else len(self.mask)
        documents = 0 if self.documents is None else len(self.documents)
        return mask + (8 * self.count if self.few else 0) + documents + self._copied

    def work(self, dimensions: int) -> int:
        """What comparing them takes next time, in numbers that are compared whole."""
        numbers = self.count * dimensions
        if self._form is None or not self._form.sieved:
            return numbers
        if self._partition is not None:
            return numbers // CHEAPER
        return DEARER * numbers if self._earned(dimensions) else numbers

    def walked(self, took_s: float) -> None:
        """Instead of comparing them, a graph was searched until enough of its neighbours were among them."""
        self._walked_s += took_s
        self._quickest_s = min(self._quickest_s, took_s)

    def nearer(self, dimensions: int) -> bool:
        """Whether a graph has spent more time on them than it takes to make a sieve, and each search more than one of that."""
        if self._form is None or not self._form.sieved:
            return False
        numbers = self.count * dimensions
        dear = self._quickest_s > 1e-9 * WORTH * SIEVED_NS * numbers
        return dear and self._quickest_s < inf and self._walked_s > 1e-9 * CUT_NS * numbers

    def nearest(self, matrix: Matrix, query: Vector, k: int, keeps: Keeps | None) -> Hits:
        """Of few. A partition of them is made once searches have earned it, from the second one on, if `keeps` has room for its bytes.

        None: who asks is no search that earns anything.
        """
        if keeps is not None and self._partition is None and self._turn.acquire(blocking=False):
            try:
                if self._partition is None and self._form is not None and self._earned(matrix.dimensions):
                    self._make(self._form, matrix, keeps)
                self._uses += 1
            finally:
                self._turn.release()
        chosen = self._partition
        return matrix.search_among(self.slots, query, k) if chosen is None else chosen.nearest(query, k)

    def copies(self, nbytes: int) -> None:
        """It is about to hold so much more."""
        self._copied = nbytes

    def _make(self, form: Form, matrix: Matrix, keeps: Keeps) -> None:
        made = partition.made(form, matrix, self.slots) if keeps(self, form.nbytes) else None
        if made is None:
            self._form = None
        self._partition = made

    def _earned(self, dimensions: int) -> bool:
        return self._uses > self.count * dimensions // SPENT or self.nearer(dimensions)


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
        if len(key[2]) > LONGEST or made.nbytes > 3 * KEPT_BYTES // 4:
            return made
        with self._turn:
            if key not in self._known:
                self._known[key] = made
                self._fit(made, made.nbytes)
        return made

    def keeps(self, allowed: Allowed, more: int) -> bool:
        """Whether so much more of this one is kept from now on, if need be instead of others."""
        with self._turn:
            here = any(each is allowed for each in reversed(self._known.values()))
            if not here or allowed.nbytes + more > KEPT_BYTES:
                return False
            allowed.copies(more)
            self._fit(allowed, more)
        return True

    def _fit(self, newest: Allowed, more: int) -> None:
        self.nbytes += more
        while self.nbytes > KEPT_BYTES:
            key, oldest = next(iter(self._known.items()))
            if oldest is newest:
                self._known.move_to_end(key)
            else:
                del self._known[key]
                self.nbytes -= oldest.nbytes
