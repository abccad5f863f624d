"""Rows of float32, as a backend or the cache has them, to what is asked for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedding.cache import Vector


def gather(rows: Sequence[NDArray[np.float32]], dimensions: int) -> NDArray[np.float32]:
    """One array of the rows, cut to `dimensions` and scaled to length 1 again where that is a real cut."""
    vectors = np.stack(rows)
    if dimensions == vectors.shape[1]:
        return vectors
    cut = vectors[:, :dimensions].copy()
    cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return cut


def unpacked(vectors: Sequence[Vector], dimensions: int) -> NDArray[np.float32]:
    """The same of what the cache has."""
    return gather([np.frombuffer(vector.raw, "<f4") for vector in vectors], dimensions)
