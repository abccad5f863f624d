"""Vectors cut to eight bits or to single ones, scanned from the first to the last: no graph, and whole vectors have the last word.

For stores whose vectors are compared one by one, where memory is what there is little of: the whole ones stay in the artefact's file, and
of them only the candidates are read. Eight bits are a quarter of the bytes, single ones a thirty-second. A scan is as good for many
neighbours as for ten, so candidates are cheap.
"""

from functools import partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retrieval.index.cutting import eight_bits, scale_of, single_bits
from retrieval.index.matrix import Matrix, best, merged
from retrieval.index.ports import Hits, Ids, Rows, Vector, Vectors
from retrieval.index.settings import Quantization

TOGETHER: Final = 4096  # rows of one step: as whole numbers they stay in the cache
OVERSAMPLED: Final = {"int8": 2, "binary": 8}  # candidates for each neighbour, at least
# Candidates for each of an effort: single bits need more, and have them for nothing.
SEEN: Final = {"int8": 1, "binary": 4}
WORD: Final = 8  # bytes


@final
class Codes:
    """A `Graph` that is none: what it is asked for is looked for in all rows."""

    engine = "codes"
    filters = False
    inside = False  # its time is known, and too long for an event loop
    lost = False
    coarse = False  # it has scored whole vectors already

    def __init__(self, codes: NDArray[Any], kept: Quantization, rows: Rows) -> None:
        self._codes = codes
        self._kept = kept
        self._whole = Matrix(rows.vectors)
        self.rows = len(rows.vectors)
        self.nbytes = int(codes.nbytes)

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        del documents
        wanted = min(self.rows, max(SEEN[self._kept] * effort, OVERSAMPLED[self._kept] * k))
        near = self._scan(_bits(query[None])[0] if self._kept == "binary" else query, wanted)
        found = self._whole.rescored(near.slots, query)
        return Hits(found.slots[:k], found.scores[:k])

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """It goes with its last user."""

    def _scan(self, query: NDArray[Any], wanted: int) -> Hits:
        found = []
        for start in range(0, self.rows, TOGETHER):
            part = self._codes[start : start + TOGETHER]
            if self._kept == "binary":
                scores = -np.bitwise_count(part ^ query).sum(axis=1, dtype=np.float32)
            else:
                scores = part.astype(np.float32) @ query
            found.append(best(np.arange(start, start + len(part)), scores, wanted))
        return merged(found, wanted)


@final
class CodesEngine:
    """A `GraphEngine` for `int8` and `binary`. Its file is that of NumPy."""

    name = "codes"

    def __init__(self, quantization: Quantization) -> None:
        self._kept = quantization

    def build(self, rows: Rows, path: Path, collection_id: str = "", generation: int = 0) -> None:
        del collection_id, generation
        vectors = rows.vectors
        cut = self._cut(vectors)
        codes = np.concatenate([cut(vectors[at : at + TOGETHER]) for at in range(0, len(vectors), TOGETHER)])
        with path.open("wb") as file:
            np.save(file, codes, allow_pickle=False)

    def load(self, path: Path, rows: Rows) -> Codes:
        with path.open("rb") as file:
            codes = np.load(file, allow_pickle=False)
        width = rows.vectors.shape[1]
        wide = width if self._kept == "int8" else -(-width // (8 * WORD))
        kind = np.int8 if self._kept == "int8" else np.uint64
        if codes.shape != (len(rows.vectors), wide) or codes.dtype != kind:
            raise OSError("it was made for other rows")
        return Codes(codes, self._kept, rows)

    def drop(self, collection_id: str) -> None:
        """Nothing is anywhere else."""

    def close(self) -> None:
        """Nothing is open."""

    def _cut(self, vectors: Vectors) -> Any:
        if self._kept == "binary":
            return _bits
        return partial(eight_bits, scale=scale_of(vectors))


def _bits(vectors: Vectors) -> NDArray[np.uint64]:
    """In words, padded with zeros, which differ from none."""
    bits = single_bits(vectors)
    room = np.zeros((len(bits), -(-bits.shape[1] // WORD) * WORD), np.uint8)
    room[:, : bits.shape[1]] = bits
    return room.view(np.uint64)
