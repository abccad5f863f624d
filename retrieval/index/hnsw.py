"""hnswlib, kept away from what it does badly: a graph is made once for a fixed number of rows, in a process of its own, and never changed.

Its known faults and what is done about each: a fixed capacity and an unsafe `resize_index` (no row is ever added: what comes later is
scanned beside the graph), tombstones (dead rows are masked, and a new graph leaves them out), a filter that is called back for every
node (never used: `retrieval.index.planner` widens instead), a save that is not atomic and a load that dies of a damaged file (the
artefact's manifest and checksums), an error instead of a short answer (told as what was found), `ef` that is not saved (given at each
search), no reading beside writing (nothing writes), threads below its notice (one a search; searches run beside each other).
"""

import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.pages import large_pages
from retrieval.index.ports import Hits, Ids, Rows, Vector

LINKS: Final = 16  # M
BUILD_EFFORT: Final = 200  # ef_construction
_NODE_BYTES: Final = 4 * (2 * LINKS + 1) + 8 + 16


@final
class HnswGraph:
    """`search` sets an effort on the shared object, so one search at a time: it gives the interpreter's lock away, but is short."""

    engine = "hnswlib"
    filters = False
    inside = True
    coarse = False
    lost = False

    def __init__(self, index: Any, rows: int, dimensions: int) -> None:
        self._index = index
        self._effort = 0
        self._turn = threading.Lock()
        self.rows = rows
        self.nbytes = rows * (4 * dimensions + _NODE_BYTES)

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        del documents
        k = min(k, self.rows)
        effort = max(effort, k)
        with self._turn:
            if effort != self._effort:
                self._index.set_ef(effort)
                self._effort = effort
            try:
                labels, distances = self._index.knn_query(query, k, 1)
            except RuntimeError:  # it found fewer than k, and says so with an error
                return Hits(np.zeros(0, np.int64), np.zeros(0, np.float32))
        return Hits(labels[0].view(np.int64), 1.0 - distances[0])

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """It goes with its last user."""


@final
class Hnsw:
    """A `GraphEngine` over the library, which compiles when it is installed."""

    name = "hnswlib"

    def build(self, rows: Rows, path: Path, collection_id: str = "", generation: int = 0) -> None:
        del collection_id, generation
        vectors = rows.vectors
        index = _library().Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=BUILD_EFFORT, random_seed=100)
        for start in range(0, len(vectors), 8192):
            part = np.asarray(vectors[start : start + 8192])
            index.add_items(part, np.arange(start, start + len(part)), num_threads=1)
        index.save_index(str(path))

    def load(self, path: Path, rows: Rows) -> HnswGraph:
        count, dimensions = rows.vectors.shape
        index = _library().Index(space="ip", dim=dimensions)
        with large_pages():  # a walk goes from one corner of the graph to another
            index.load_index(str(path), max_elements=count)
        return HnswGraph(index, count, dimensions)

    def drop(self, collection_id: str) -> None:
        """Nothing is anywhere else."""

    def close(self) -> None:
        """Nothing is open."""


def installed() -> bool:
    try:
        _library()
    except Unavailable:
        return False
    return True


def _library() -> ModuleType:
    try:
        import hnswlib  # noqa: PLC0415 — an extra, with a compiler to install it
    except ImportError as error:
        raise Unavailable("Graphs need the library hnswlib: install the extra `retrieval`") from error
    library: ModuleType = hnswlib
    return library
