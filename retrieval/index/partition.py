"""A partition: what a filter or a caller admits, copied to where comparing it takes less time than where it lies."""

from typing import Final, Protocol, final

import msgspec

from retrieval.index import sieve
from retrieval.index.matrix import Matrix, best
from retrieval.index.ports import Hits, Slots, Vector
from retrieval.index.sieve import Sieve

COPIED_BYTES: Final = 16 << 20  # of one; larger ones are compared where they lie
SIEVED: Final = 1 << 18  # numbers; to compare fewer takes less time than to sieve them


class Form(msgspec.Struct, frozen=True, gc=False):
    """Of a partition that is worth to be made. `nbytes`: at most."""

    sieved: bool
    nbytes: int


class Partition(Protocol):
    """It never changes. For any thread."""

    def nearest(self, query: Vector, k: int) -> Hits:
        """Exactly, as of comparing all of it."""


@final
class Beside:
    """Rows as they are, side by side."""

    __slots__ = ("_rows", "_slots")

    def __init__(self, matrix: Matrix, slots: Slots) -> None:
        self._slots = slots
        self._rows = matrix.pick(slots)

    def nearest(self, query: Vector, k: int) -> Hits:
        return best(self._slots, self._rows @ query, k)


def form(count: int, dimensions: int, *, sieves: bool) -> Form | None:
    """`sieves`: whether there can be any."""
    sieved = sieves and count * dimensions >= SIEVED
    nbytes = sieve.room(count, dimensions) if sieved else 4 * count * dimensions
    return Form(sieved, nbytes) if nbytes <= COPIED_BYTES else None


def made(wanted: Form, matrix: Matrix, slots: Slots) -> Partition | None:
    if not wanted.sieved:
        return Beside(matrix, slots)
    library = sieve.products()
    return None if library is None else Sieve(matrix, slots, library)
