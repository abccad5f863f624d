"""FAISS: the graph walks over numbers of sixteen bits, or of eight, and whole vectors have the last word.

A walk waits for memory more than it computes: half of the bytes make it shorter by a fifth. It comes as a wheel. What is known of the
library and what is done about it: a damaged file that is read all the same (checksums of the artefact), places without a neighbour (-1,
left out), threads of its own (none for a single question, and one where a graph is made), a wrapper in Python that checks and makes anew
what is known here (called below it).
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.pages import large_pages
from retrieval.index.ports import Hits, Ids, Rows, Vector
from retrieval.index.settings import Quantization

LINKS: Final = 16  # M
BUILD_EFFORT: Final = 200  # efConstruction
TOGETHER: Final = 8192  # rows


@final
class FaissGraph:
    """Searches run beside each other: what one needs is its own, and it gives the interpreter's lock away."""

    engine = "faiss"
    filters = False
    inside = True
    coarse = True
    lost = False

    def __init__(self, library: Any, index: Any, rows: int, nbytes: int) -> None:
        self._index = index
        self._pointer = library.swig_ptr
        self._efforts = library.SearchParametersHNSW
        self._told = self._efforts(efSearch=LINKS)
        self.rows = rows
        self.nbytes = nbytes

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        del documents
        k = min(k, self.rows)
        effort = max(effort, k)
        told = self._told
        if told.efSearch != effort:  # one that is in use is not changed
            told = self._told = self._efforts(efSearch=effort)
        query = np.ascontiguousarray(query, np.float32)
        scores, slots = np.empty(k, np.float32), np.empty(k, np.int64)
        pointer = self._pointer
        self._index.search_c(1, pointer(query), k, pointer(scores), pointer(slots), told)
        if k and slots[-1] < 0:
            there = slots >= 0
            return Hits(slots[there], scores[there])
        return Hits(slots, scores)

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """It goes with its last user."""


@final
class Faiss:
    """A `GraphEngine` over the library. Eight bits for `int8`, sixteen for all else."""

    name = "faiss"

    def __init__(self, quantization: Quantization) -> None:
        self._eight = quantization == "int8"

    def build(self, rows: Rows, path: Path, collection_id: str = "", generation: int = 0) -> None:
        del collection_id, generation
        library, vectors = _library(), rows.vectors
        library.omp_set_num_threads(1)
        index = library.IndexHNSWSQ(vectors.shape[1], self._kind(library), LINKS, library.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_EFFORT
        index.train(np.ascontiguousarray(vectors))
        for start in range(0, len(vectors), TOGETHER):
            index.add(np.ascontiguousarray(vectors[start : start + TOGETHER]))
        library.write_index(index, str(path))

    def load(self, path: Path, rows: Rows) -> FaissGraph:
        library = _library()
        count, dimensions = rows.vectors.shape
        with large_pages():
            index = library.read_index(str(path))
        if not isinstance(index, library.IndexHNSWSQ) or (index.ntotal, index.d) != (count, dimensions):
            raise OSError("it was made for other rows")
        if library.downcast_index(index.storage).sq.qtype != self._kind(library):
            raise OSError("it was made of other numbers")
        return FaissGraph(library, index, count, path.stat().st_size)

    def drop(self, collection_id: str) -> None:
        """Nothing is anywhere else."""

    def close(self) -> None:
        """Nothing is open."""

    def _kind(self, library: Any) -> int:
        quantizer = library.ScalarQuantizer
        return int(quantizer.QT_8bit if self._eight else quantizer.QT_fp16)


def _library() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise Unavailable("These graphs need the library FAISS: install the extra `faiss`") from error
