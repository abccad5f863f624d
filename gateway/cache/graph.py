"""A graph of vectors (HNSW) in this process, over hnswlib, kept away from what that does badly.

Its capacity is fixed: one that is full is made anew, without the rows that are gone. It may not be searched while rows are added: whoever
has it says when. Where it finds fewer than were asked for it raises: that is told as None.
"""

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np

from gateway.cache.vectors import Vector

LINKS: Final = 16  # M
BUILD_EFFORT: Final = 100  # ef_construction
EFFORT: Final = 128  # ef: what is found of the embedded model's questions is measured by benchmarks/cache_lookup.py


@final
class Graph:
    """Of vectors of length 1, under numbers of the caller's. Raises ImportError without the library."""

    def __init__(self, dimensions: int, room: int) -> None:
        import hnswlib  # noqa: PLC0415 — an extra, for partitions that are large

        self._index: Any = hnswlib.Index(space="ip", dim=dimensions)
        self._index.init_index(max_elements=room, M=LINKS, ef_construction=BUILD_EFFORT, random_seed=100)
        self._index.set_ef(EFFORT)
        self._room = room
        self._count = 0
        self.live = 0

    @property
    def left(self) -> int:
        """How many more it takes; those that are gone keep their place."""
        return self._room - self._count

    @property
    def gone(self) -> int:
        return self._count - self.live

    def add(self, numbers: Sequence[int], rows: Vector) -> None:
        """`rows` [len(numbers), dimensions]. Takes about a millisecond for each and leaves the interpreter to others: for a thread."""
        self._index.add_items(rows, np.asarray(numbers), num_threads=1)
        self._count += len(numbers)
        self.live += len(numbers)

    def drop(self, number: int) -> None:
        """One that is there."""
        self._index.mark_deleted(number)
        self.live -= 1

    def nearest(self, vector: Vector, most: int) -> list[tuple[float, int]] | None:
        """Cosine and number, the nearest first."""
        if not self.live:
            return []
        try:
            labels, distances = self._index.knn_query(vector, k=min(most, self.live), num_threads=1)
        except RuntimeError:
            return None
        return [(1.0 - float(far), int(label)) for far, label in zip(distances[0], labels[0], strict=True)]
