"""Vectors as numbers of eight bits and as single bits. Products keep their order among each other: one scale serves all vectors."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval.index.ports import Vector, Vectors

TAIL: Final = 0.9995  # of all numbers are within the scale; what is beyond is cut
SAMPLED: Final = 2000  # vectors, about
_MOST: Final = 127


def scale_of(vectors: Vectors) -> float:
    sample = np.abs(np.asarray(vectors[:: max(1, len(vectors) // SAMPLED)]))
    return float(_MOST / max(1e-6, float(np.quantile(sample, TAIL))))


def eight_bits(part: Vectors, scale: float) -> NDArray[np.int8]:
    whole: NDArray[np.int8] = np.clip(np.rint(part * np.float32(scale)), -_MOST, _MOST).astype(np.int8)
    return whole


def eight_bits_alone(query: Vector) -> NDArray[np.int8]:
    """With a scale of its own, which changes no order."""
    most = max(float(query.max()), -float(query.min()), 1e-6)
    whole: NDArray[np.int8] = np.rint(query * np.float32(_MOST / most)).astype(np.int8)
    return whole


def single_bits(vectors: Vectors) -> NDArray[np.uint8]:
    """Rows of bytes: where a number is above zero."""
    return np.packbits(vectors > 0, axis=1)
