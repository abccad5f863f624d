"""Vectors in rows, scanned exactly: those of an artefact, mapped from its file, and behind them those that came since, in memory.

Rows are only ever added. What was handed out goes on seeing its own length while more is written behind it.
"""

from math import isqrt
from pathlib import Path
from typing import Final, Self, final

import numpy as np
from numpy.typing import NDArray

from retrieval.index.ports import Hits, Mask, Slots, Vector, Vectors

SPARSE: Final = 0.25  # below it, picking the rows that count is cheaper than to scan them all
TOGETHER: Final = 65_536  # rows of one product: scores of a million rows need no array of a million
MANY: Final = 512  # scores; to sort fewer is as fast as to look for the highest


@final
class Matrix:
    """`base` and `tail` have the same number of columns."""

    __slots__ = ("_plain", "_room", "base", "rows", "tail")

    def __init__(self, base: Vectors, room: Vectors | None = None, rows: int | None = None) -> None:
        self.base = base
        self._plain: Vectors = base.view(np.ndarray)  # what is mapped costs ten times as much to index
        self._room = np.empty((0, base.shape[1]), np.float32) if room is None else room
        self.rows = len(base) if rows is None else rows
        self.tail: Vectors = self._room[: self.rows - len(base)]

    @property
    def dimensions(self) -> int:
        return int(self.base.shape[1])

    @property
    def file(self) -> str | None:
        """The name of the file that `base` is mapped from."""
        mapped = getattr(self.base, "filename", None)
        return None if mapped is None else Path(mapped).name

    def extended(self, more: Vectors) -> Self:
        """With these behind. By one writer at a time, on the newest state only."""
        used = len(self.tail)
        room = self._room
        if used + len(more) > len(room):
            room = np.empty((max(1024, 2 * used, used + len(more)), self.dimensions), np.float32)
            room[:used] = self.tail
        room[used : used + len(more)] = more
        return type(self)(self.base, room, self.rows + len(more))

    def pick(self, slots: Slots) -> Vectors:
        """Copies of rows."""
        edge = len(self.base)
        if not len(self.tail):
            return self._plain.take(slots, axis=0)
        picked = np.empty((len(slots), self.dimensions), np.float32)
        old = slots < edge
        picked[old] = self._plain[slots[old]]
        picked[~old] = self.tail[slots[~old] - edge]
        return picked

    def rescored(self, slots: Slots, query: Vector) -> Hits:
        """These, by what they really score."""
        return best(slots, self.pick(slots) @ query, len(slots))

    def search_among(self, slots: Slots, query: Vector, k: int) -> Hits:
        """The same of these rows alone."""
        return self._best_of(slots, query, k)

    def search(self, query: Vector, k: int, allowed: Mask | None, count: int) -> Hits:
        """The `k` nearest of the allowed rows, of which there are `count`: exactly, and never fewer than there are."""
        return self.search_from(0, query, k, allowed, count)

    def search_from(self, first: int, query: Vector, k: int, allowed: Mask | None, count: int) -> Hits:
        """The same among the rows from `first` on."""
        if k <= 0 or count <= 0 or first >= self.rows:
            return Hits(np.zeros(0, np.int64), np.zeros(0, np.float32))
        if allowed is not None and count < SPARSE * (self.rows - first):
            slots = np.flatnonzero(allowed[first:]) + first
            return self._best_of(slots, query, k)
        return self._scan(first, query, k, allowed)

    def _best_of(self, slots: Slots, query: Vector, k: int) -> Hits:
        found = [
            best(slots[start : start + TOGETHER], self.pick(slots[start : start + TOGETHER]) @ query, k)
            for start in range(0, len(slots), TOGETHER)
        ]
        return merged(found, k)

    def _scan(self, first: int, query: Vector, k: int, allowed: Mask | None) -> Hits:
        edge = len(self.base)
        found = []
        for part, offset in ((self._plain, 0), (self.tail, edge)):
            for start in range(max(0, first - offset), len(part), TOGETHER):
                rows = part[start : start + TOGETHER]
                scores = rows @ query
                if allowed is None:
                    places, scores = _best(scores, k)
                    found.append(Hits(places + (offset + start), scores))
                else:
                    passed = allowed[offset + start : offset + start + len(rows)].nonzero()[0]
                    found.append(best(passed + (offset + start), scores[passed], k))
        return merged(found, k)


def merged(found: list[Hits], k: int) -> Hits:
    """The best of several."""
    if len(found) == 1:
        return found[0]
    slots = np.concatenate([each.slots for each in found]) if found else np.zeros(0, np.int64)
    scores = np.concatenate([each.scores for each in found]) if found else np.zeros(0, np.float32)
    return best(slots, scores, k)


def best(slots: Slots, scores: NDArray[np.float32], k: int) -> Hits:
    """The `k` of them that score highest."""
    places, scores = _best(scores, k)
    return Hits(slots[places], scores)


def _best(scores: NDArray[np.float32], k: int) -> tuple[Slots, NDArray[np.float32]]:
    """Where they are."""
    if len(scores) <= k:
        order = (-scores).argsort(kind="stable")
        return order, scores[order]
    high = _high(scores, k)
    scores = scores[high]
    order = (-scores).argsort(kind="stable")[:k]
    return high[order], scores[order]


def bar(scores: NDArray[np.float32], k: int) -> np.float32 | None:
    """What at least `k` of them reach: the k-th highest of some maxima, for those are k scores already. None where there are too few.

    Maxima of rows are computed sixteen at a time, and a partition moves one after the other: 38 µs to 540 for 65,536 scores.
    """
    wide = max(isqrt(len(scores)), 4 * k)
    high = len(scores) // wide
    if not k or high < 4 or len(scores) < MANY:
        return None
    maxima = np.maximum.reduce(scores[: high * wide].reshape(high, wide))  # `max` is the same by way of Python
    maxima.sort()
    reached: np.float32 = maxima[-k]
    return reached


def _high(scores: NDArray[np.float32], k: int) -> Slots:
    """Where the `k` highest are, and others: all that are as high as what k of them reach."""
    reached = bar(scores, k)
    if reached is not None:
        found: Slots = (scores >= reached).nonzero()[0]
        if len(found) >= k:
            return found
    if len(scores) < MANY:
        return scores.argsort()[len(scores) - k :]
    return np.argpartition(scores, len(scores) - k)[len(scores) - k :]
