"""What an index of vectors has to be able to do, whoever makes it."""

from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]  # [rows, dimensions], each of length 1
Slots = NDArray[np.int64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


class EngineAway(Exception):
    """It does not answer, or not yet: whoever asked compares everything instead."""


class NotMade(Exception):
    """There is no graph that is worth its name."""


class Hits(msgspec.Struct, frozen=True, gc=False):
    """Slots by falling score, which is the cosine."""

    slots: Slots
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.slots)


class Rows(msgspec.Struct, frozen=True):
    """An artefact's content by slot: vectors, ids of passages, ids of their documents."""

    vectors: Vectors
    ids: Ids
    documents: Ids


class Graph(Protocol):
    """Approximate neighbours among the first `rows` slots. It never changes; searches may run in several threads at once.

    `engine` made it. `filters`: it can be told which documents to search. `coarse`: its scores are about right, and its order with them.
    """

    @property
    def engine(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """How much memory of this process it takes."""

    @property
    def filters(self) -> bool: ...

    @property
    def coarse(self) -> bool: ...

    @property
    def inside(self) -> bool:
        """Whether it is searched in this process, and so in a time that is known."""

    @property
    def lost(self) -> bool:
        """What it searched is not there any more: it has to be made again."""

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        """At most `k`; fewer where it finds no more. `effort` is how many candidates it keeps in sight.

        `documents`, for one that filters: only passages of these. Raises EngineAway, within a deadline of its own.
        """

    def ready(self, timeout_s: float) -> bool:
        """Blocks. Whether it answers by then: one that opens beside is away until it does."""

    def close(self) -> None: ...


class GraphEngine(Protocol):
    """How such graphs are made and kept. `build` runs in a process of its own, as it takes minutes and all of a core."""

    @property
    def name(self) -> str: ...

    def build(self, rows: Rows, path: Path, collection_id: str, generation: int) -> None:
        """Leaves a file: the graph itself, or where it is. Raises NotMade."""

    def load(self, path: Path, rows: Rows) -> Graph:
        """A file whose checksum was right. Fast: what takes time is done beside. Raises OSError, RuntimeError, EngineAway."""

    def drop(self, collection_id: str) -> None:
        """Whatever it keeps of a collection outside of the artefact's folder. Raises EngineAway."""

    def close(self) -> None:
        """What it keeps open, for good."""
