"""A sieve: rows cut to eight bits, which leave out what cannot be among the nearest of a question. What they let through is compared whole.

A row less the middle of all is its code times its step, and something that was lost; a question is cut in the same way. So the product of
both is that of the codes, and no further from it than lengths say (Cauchy–Schwarz): |lost of the question| · |code of the row| +
|question| · |lost of the row|. The middle moves all products alike and no order. Whoever is below the k-th best by more than twice that
is not among the best k: the answer is the one of comparing everything, with a quarter of the bytes to read. Where rows are too alike
for eight bits to tell them apart, more are let through, all of them in the end.

Products of eight bits are numkong's; NumPy has none that use the processor.
"""

from importlib.util import find_spec
from math import sqrt
from types import ModuleType
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retrieval.index.matrix import Matrix, bar
from retrieval.index.ports import Hits, Slots, Vector

TOGETHER: Final = 2048  # rows that are cut at once
PACKED: Final = 32_768  # rows that are multiplied at once, by a library that may keep the interpreter's lock meanwhile
SAMPLED: Final = 1024  # rows that say where the middle is, about: any point would do, and a near one makes codes finer
_MOST: Final = 127
_LEAST: Final = 1e-30  # smaller numbers are cut to 0
_GREATEST: Final = 1e30
_ROUNDED: Final = 2.0**-22  # of a length and for each dimension: what sums of float32 may be off by, with room to spare


@final
class Sieve:
    """Over the rows of a matrix in `slots`, which it does not copy. For any thread."""

    __slots__ = ("_codes", "_fold", "_library", "_long", "_lost", "_matrix", "_slots", "_steps", "nbytes")

    def __init__(self, matrix: Matrix, slots: Slots, library: ModuleType) -> None:
        self._matrix = matrix
        self._slots = slots
        self._library = library
        self._fold = _fold(matrix.dimensions)
        self._steps = np.empty(len(slots), np.float32)
        middle = matrix.pick(slots[:: max(1, len(slots) // SAMPLED)]).mean(axis=0)
        with np.errstate(all="ignore"):  # of what is no number all is lost, and everything let through
            parts = [self._cut(middle, start) for start in range(0, len(slots), PACKED)]
            self._codes = [codes for codes, _, _ in parts]
            self._long = float(np.max([long for _, _, long in parts]))
            rounded = _ROUNDED * (matrix.dimensions + 8) * (float(np.linalg.norm(middle)) + 2 * self._long)
            self._lost = 1.001 * float(np.max([lost for _, lost, _ in parts])) + rounded
        self.nbytes = sum(int(codes.nbytes) for codes, _ in self._codes) + self._steps.nbytes

    def nearest(self, query: Vector, k: int) -> Hits:
        """The `k` that are, exactly."""
        passed = self.passed(query, k)
        slots = self._slots if passed is None else self._slots.take(passed)
        return self._matrix.search_among(slots, query, k)

    def passed(self, query: Vector, k: int) -> Slots | None:
        """Which of its rows may be among the nearest `k`; None for all of them."""
        step = max(float(np.maximum.reduce(np.abs(query))), _LEAST) / _MOST
        if k >= len(self._steps) or not (step < _GREATEST and self._lost < _GREATEST):
            return None
        question = query * np.float32(1 / step)
        cut = np.rint(question)
        scores = self._products(cut.astype(np.int8))
        reached = bar(scores, k)
        if reached is None:
            reached = np.partition(scores, len(scores) - k)[len(scores) - k]
        length = sqrt(float(question.dot(question)))
        question -= cut
        unsure = sqrt(float(question.dot(question))) * self._long + length * self._lost
        passed: Slots = (scores >= reached - np.float32(2 * unsure)).nonzero()[0]
        return passed if len(passed) >= k else None

    def _products(self, code: NDArray[np.int8]) -> NDArray[np.float32]:
        """Whole numbers that are exact, times steps."""
        question, multiply, width = code[None], self._library.dots_packed, len(code)
        if self._fold > 1:
            question = np.zeros((self._fold, self._fold * width), np.int8)
            for at in range(self._fold):
                question[at, at * width : (at + 1) * width] = code
        found = [np.asarray(multiply(question, codes)).reshape(-1)[:count] for codes, count in self._codes]
        products = (found[0] if len(found) == 1 else np.concatenate(found)).astype(np.float32)
        products *= self._steps
        return products

    def _cut(self, middle: Vector, first: int) -> tuple[tuple[Any, int], float, float]:
        """The codes of so many rows from `first` on and their number, what of them is lost at most, and how long they are at most."""
        count, width = min(PACKED, len(self._slots) - first), len(middle)
        high = -(-count // self._fold)
        codes = np.zeros((self._fold * high, width), np.int8)
        lost = long = np.float64(0)
        for start in range(0, count, TOGETHER):
            rows = self._matrix.pick(self._slots[first + start : first + min(start + TOGETHER, count)])
            rows -= middle
            steps = np.maximum(np.abs(rows).max(axis=1) / np.float32(_MOST), np.float32(_LEAST))
            self._steps[first + start : first + start + len(rows)] = steps
            rows /= steps[:, None]
            cut = np.rint(rows)
            codes[start : start + len(rows)] = cut
            rows -= cut
            lost = np.maximum(lost, (_lengths(rows) * steps).max())
            long = np.maximum(long, (_lengths(cut) * steps).max())
        folded = codes.reshape(self._fold, high, width).transpose(1, 0, 2).reshape(high, self._fold * width)
        packed = self._library.dots_pack(np.ascontiguousarray(folded))
        return (packed, count), float(lost), float(long)


def room(count: int, dimensions: int) -> int:
    """Bytes that a sieve takes, at most."""
    fold = _fold(dimensions)
    return count * (-(-_padded(fold * dimensions) // fold) + 4) + 4096 * (1 + count // PACKED)


def available() -> bool:
    return find_spec("numkong") is not None


def products() -> ModuleType | None:
    """The library; 2 MiB of memory."""
    try:
        import numkong  # noqa: PLC0415 — of the extras `retrieval` and `usearch`
    except ImportError:
        return None
    library: ModuleType = numkong
    return library


def _fold(dimensions: int) -> int:
    """How many rows lie in one of the library's: three, where that saves a quarter of the bytes and more.

    Their products are then those of three questions, of which each has zeros where the others are. It takes less time, too: 71 to 52 µs for
    10,000 × 128, which are read in the time that it takes to multiply three at once.
    """
    return 3 if 4 * _padded(3 * dimensions) < 9 * _padded(dimensions) else 1


def _padded(width: int) -> int:
    """Bytes of a row of the library's: padded to 64, and once more against powers of two; a sum and a length are behind it."""
    padded = -(-width // 64) * 64
    return padded + 64 * (padded & (padded - 1) == 0) + 8


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths
