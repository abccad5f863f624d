"""usearch: the graph walks over numbers of eight bits, or over single bits, and whole vectors have the last word.

A walk waits for memory more than it computes: a quarter of the bytes is most of its speed. Numbers are cut with a scale taken from the
vectors themselves; the library's own takes a length of 1 for the largest number, which leaves four bits of each at 384 dimensions.
What is known of the library and what is done about it: filters not in Python (`retrieval.index.planner` widens), a damaged file that
is searched all the same (checksums of the artefact), memory of nobody where a key is missing (no key is ever removed, and as many answers
are read as it counts), an effort that belongs to the index (set in turn).
"""

import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import Unavailable
from retrieval.index.cutting import eight_bits, eight_bits_alone, scale_of, single_bits
from retrieval.index.matrix import Matrix
from retrieval.index.pages import large_pages
from retrieval.index.ports import Hits, Ids, Rows, Vector, Vectors
from retrieval.index.settings import Quantization

LINKS: Final = 24  # with 16 it needs twice the effort for the same recall
BUILD_EFFORT: Final = 160
TOGETHER: Final = 8192  # rows
OVERSAMPLED: Final = 4  # candidates of single bits for each neighbour, at least
_TYPES: Final[dict[Quantization, tuple[str, str]]] = {
    "none": ("f32", "ip"),
    "int8": ("i8", "ip"),
    "binary": ("b1", "hamming"),
}


@final
class UsearchGraph:
    """One search at a time, as the effort is the index's own: it is short."""

    engine = "usearch"
    filters = False
    inside = True
    lost = False

    def __init__(self, index: Any, kept: Quantization, rows: Rows) -> None:
        self._index = index
        self._kept = kept
        self._whole = Matrix(rows.vectors)
        self._effort = 0
        self._turn = threading.Lock()
        self.coarse = kept == "int8"
        self.rows = len(rows.vectors)
        self.nbytes = int(index.memory_usage)

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        del documents
        k = min(k, self.rows)
        if self._kept != "binary":
            return self._near(eight_bits_alone(query) if self._kept == "int8" else query, k, effort)
        near = self._near(single_bits(query[None])[0], min(self.rows, max(effort, OVERSAMPLED * k)), effort)
        found = self._whole.rescored(near.slots, query)
        return Hits(found.slots[:k], found.scores[:k])

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """It goes with its last user."""

    def _near(self, query: NDArray[Any], count: int, effort: int) -> Hits:
        with self._turn:
            if effort != self._effort:
                self._index.expansion_search = effort
                self._effort = effort
            found = self._index.search(query, count, threads=1)
        return Hits(found.keys.astype(np.int64), 1.0 - found.distances)


@final
class Usearch:
    """A `GraphEngine` over the library."""

    name = "usearch"

    def __init__(self, quantization: Quantization) -> None:
        self._kept = quantization

    def build(self, rows: Rows, path: Path, collection_id: str = "", generation: int = 0) -> None:
        del collection_id, generation
        vectors = rows.vectors
        index = self._index(vectors.shape[1])
        scale = scale_of(vectors)
        for start in range(0, len(vectors), TOGETHER):
            part = np.asarray(vectors[start : start + TOGETHER])
            keys = np.arange(start, start + len(part), dtype=np.uint64)
            index.add(keys, self._as_kept(part, scale), threads=1)
        index.save(str(path))

    def load(self, path: Path, rows: Rows) -> UsearchGraph:
        index = self._index(rows.vectors.shape[1])
        with large_pages():
            index.load(str(path))
        if len(index) != len(rows.vectors) or index.ndim != rows.vectors.shape[1]:
            raise ValueError("it was made for other rows")
        return UsearchGraph(index, self._kept, rows)

    def drop(self, collection_id: str) -> None:
        """Nothing is anywhere else."""

    def close(self) -> None:
        """Nothing is open."""

    def _index(self, dimensions: int) -> Any:
        kind, metric = _TYPES[self._kept]
        return _library().Index(
            ndim=dimensions, metric=metric, dtype=kind, connectivity=LINKS, expansion_add=BUILD_EFFORT
        )

    def _as_kept(self, part: Vectors, scale: float) -> NDArray[Any]:
        if self._kept == "none":
            return part
        return single_bits(part) if self._kept == "binary" else eight_bits(part, scale)


def _library() -> ModuleType:
    try:
        import usearch.index  # noqa: PLC0415 — an extra
    except ImportError as error:
        raise Unavailable("These graphs need the library usearch: install the extra `usearch`") from error
    library: ModuleType = usearch.index
    return library
