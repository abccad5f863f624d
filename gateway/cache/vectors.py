"""Rows of numbers, found by comparing with all of them. In blocks: adding one moves no others, and a block goes with its last row."""

from collections.abc import Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BLOCK: Final = 1024  # rows
FIRST: Final = 8  # most partitions have a handful


@final
class Vectors:
    """float32 [rows, dimensions]. A row's number is never given again: what was added later has a higher one."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._dimensions = 0
        self.next = 0
        self.live = 0

    @property
    def held(self) -> int:
        """Rows in memory, those that are gone among them."""
        return len(self._blocks) * BLOCK

    def fits(self, vector: Vector) -> bool:
        return vector.ndim == 1 and self._dimensions in {0, len(vector)}

    def add(self, vector: Vector) -> int:
        """Its number."""
        self._dimensions = len(vector)
        number = self.next
        block = self._blocks.get(number // BLOCK)
        if block is None:
            block = self._blocks[number // BLOCK] = _Block(len(vector))
        block.add(vector)
        self.next += 1
        self.live += 1
        return number

    def drop(self, number: int) -> None:
        """One that is there."""
        place = number // BLOCK
        block = self._blocks[place]
        block.alive[number % BLOCK] = False
        block.live -= 1
        self.live -= 1
        if not block.live and block.count == BLOCK:
            del self._blocks[place]

    def of(self, numbers: Sequence[int]) -> Vector:
        """Rows [len(numbers), dimensions] of some that are there."""
        return np.stack([self._blocks[number // BLOCK].rows[number % BLOCK] for number in numbers])

    def nearest(self, vector: Vector, threshold: float, most: int, start: int = 0) -> list[tuple[float, int]]:
        """Cosine and number, the nearest first, of those at least so near, from the number `start` on."""
        found: list[tuple[float, int]] = []
        for place, block in self._blocks.items():
            offset = place * BLOCK
            if offset + block.count <= start:
                continue
            similar = block.rows[: block.count] @ vector
            passes = (similar >= threshold) & block.alive[: block.count]
            passes[: max(0, start - offset)] = False
            rows = np.flatnonzero(passes)
            if len(rows) > most:
                rows = rows[np.argpartition(-similar[rows], most)[:most]]
            found += [(float(similar[row]), offset + int(row)) for row in rows]
        found.sort(reverse=True)
        return found[:most]


class _Block:
    __slots__ = ("alive", "count", "live", "rows")

    def __init__(self, dimensions: int) -> None:
        self.rows: Vector = np.empty((FIRST, dimensions), np.float32)
        self.alive = np.zeros(BLOCK, np.bool_)
        self.count = 0
        self.live = 0

    def add(self, vector: Vector) -> None:
        if self.count == len(self.rows):
            more = np.empty((2 * self.count, self.rows.shape[1]), np.float32)
            more[: self.count] = self.rows
            self.rows = more
        self.rows[self.count] = vector
        self.alive[self.count] = True
        self.count += 1
        self.live += 1
