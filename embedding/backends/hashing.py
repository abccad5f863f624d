"""Feature hashing: vectors without a model.

Each token id adds ±1 at two places that its hash names (Weinberger et al. 2009), so texts that share tokens are close.
It knows no meaning. It is there where a run must be instant and repeatable: tests of whatever stands above embeddings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)


class HashingBackend:
    """Deterministic on every machine: integer arithmetic, then one division by the norm."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = np.zeros((len(sequences), self._dimensions), np.float32)
        for row, sequence in enumerate(sequences):
            mixed = (np.asarray(sequence, np.uint64) + np.uint64(1)) * _FIBONACCI
            for shift in (np.uint64(8), np.uint64(36)):
                places = (mixed >> shift) % np.uint64(self._dimensions)
                signs = np.where(mixed >> (shift + np.uint64(24)) & np.uint64(1), 1.0, -1.0)
                np.add.at(vectors[row], places.astype(np.intp), signs.astype(np.float32))
        vectors[~vectors.any(axis=1), 0] = 1  # every place cancelled out: any fixed direction will do
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def close(self) -> None:
        """Nothing is held."""
