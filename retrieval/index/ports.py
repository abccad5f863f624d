"""What an index of vectors has to be able to do, whoever makes it."""

from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]  # [rows, dimensions], each of length 1
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Hits(msgspec.Struct, frozen=True):
    """Slots by falling score, which is the cosine."""

    slots: Slots
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.slots)


class Graph(Protocol):
    """Approximate neighbours among the first `rows` slots. It never changes; searches may run in several threads at once."""

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""

    def search(self, query: Vector, k: int, effort: int) -> Hits:
        """At most `k`; fewer where it finds no more. `effort` is how many candidates it keeps in sight."""


class GraphEngine(Protocol):
    """How such graphs are made and kept. `build` runs in a process of its own, as it takes minutes and all of a core."""

    name: str

    def build(self, vectors: Vectors, path: Path) -> None: ...

    def load(self, path: Path, rows: int, dimensions: int) -> Graph:
        """A file whose checksum was right."""
