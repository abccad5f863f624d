"""The backend without a model is repeatable and good enough to tell texts apart."""

import numpy as np

from embedding.backends.hashing import HashingBackend


def test_shared_tokens_make_texts_similar() -> None:
    """More in common, closer; unit length; the same on every machine."""
    vectors = HashingBackend(256).run([[1, 2, 3, 4], [1, 2, 3, 9], [50, 60, 70, 80], []])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert (vectors == HashingBackend(256).run([[1, 2, 3, 4], [1, 2, 3, 9], [50, 60, 70, 80], []])).all()
