"""Questions and documents around a few topics, as vectors."""

import numpy as np

from inference.monitors.spread import Vectors

TOPICS = np.random.default_rng(1).normal(size=(8, 64))
EVEN = np.full(8, 1 / 8)


def asked(random: np.random.Generator, rows: int, shares: np.ndarray = EVEN, spread: float = 1.5) -> Vectors:
    """Unit vectors around topics, of which each has its share."""
    made = TOPICS[random.choice(8, rows, p=shares)] + spread * random.normal(size=(rows, 64))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)
