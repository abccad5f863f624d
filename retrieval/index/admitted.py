"""What a filter and a caller admit of one state of a collection, kept for the next who asks the same: states never change."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import numpy as np

from retrieval.index.matrix import SPARSE, Matrix
from retrieval.index.ports import Mask, Slots, Vectors

KEPT_BYTES: Final = 32 << 20  # of one collection
COPIED_BYTES: Final = 16 << 20  # of vectors; more are not copied to lie beside each other
LONGEST: Final = 2048  # characters of a filter

Key = tuple[frozenset[str] | None, bool, str]


@final
class Allowed:
    """The slots that a search may find: a mask, None for every one, and exactly how many.

    `documents` are the rows of `Columns` that they are of; None where that says nothing.
    """

    __slots__ = ("_rows", "_slots", "_uses", "count", "documents", "mask")

    def __init__(self, mask: Mask | None, count: int, documents: Mask | None = None) -> None:
        self.mask = mask
        self.count = count
        self.documents = documents
        self._slots: Slots | None = None
        self._rows: Vectors | None = None
        self._uses = 0

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

    def rows(self, matrix: Matrix) -> Vectors | None:
        """Their vectors side by side, from the second search on: then they are worth a copy. None where they are too many."""
        if 4 * matrix.dimensions * self.count > COPIED_BYTES:
            return None
        self._uses += 1
        if self._rows is None and self._uses > 1:
            self._rows = matrix.pick(self.slots)
        return self._rows

    def nbytes(self, dimensions: int) -> int:
        """What it may come to hold."""
        rows = 4 * dimensions * self.count
        rows = rows if rows <= COPIED_BYTES else 0
        mask = 0 if self.mask is None else len(self.mask)
        return (
            mask + (8 * self.count + rows if self.few else 0) + (0 if self.documents is None else len(self.documents))
        )


@final
class Admitted:
    """Those that were asked for last, by what decides them, within a budget of bytes. For any thread."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
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
        size = made.nbytes(self._dimensions)
        if size > 3 * KEPT_BYTES // 4:
            return made
        with self._turn:
            if key not in self._known:
                self._known[key] = made
                self.nbytes += size
                while self.nbytes > KEPT_BYTES:
                    self.nbytes -= self._known.popitem(last=False)[1].nbytes(self._dimensions)
        return made
