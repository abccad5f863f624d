"""What a text's likeness to a question makes it worth: a probability. Pure.

The constants are fitted to the order of what searches found for half of the questions about real manuals:
`python -m benchmarks.reranking` fits them and prints what they are worth on the other half.
"""

from collections.abc import Sequence
from math import exp
from typing import Final

import msgspec

from retrieval.reranking.likeness import Likeness


class Weights(msgspec.Struct, frozen=True):
    """`prior`: of what a search says of the text; `similar`: of the cosine of question and excerpt."""

    bias: float
    words: float
    pairs: float
    near: float
    length: float
    prior: float = 0.0
    similar: float = 0.0


WORDED: Final = Weights(words=1.28, pairs=0.63, near=0.80, length=-0.48, bias=-0.17)
MEANT: Final = Weights(words=1.07, pairs=0.24, near=0.54, length=-0.35, similar=3.26, bias=-2.01)
FOUND: Final = Weights(words=0.60, pairs=0.59, near=0.60, length=-0.42, prior=2.11, bias=-0.71)
FOUND_AND_MEANT: Final = Weights(words=0.64, pairs=0.33, near=0.53, length=-0.32, prior=1.58, similar=2.22, bias=-2.05)


def probability(weights: Weights, alike: Likeness, prior: float = 0.0, similar: float = 0.0) -> float:
    """That the text answers."""
    score = (
        weights.bias
        + weights.words * alike.words
        + weights.pairs * alike.pairs
        + weights.near * alike.near
        + weights.length * alike.length
        + weights.prior * prior
        + weights.similar * similar
    )
    return 1 / (1 + exp(-score))


def spread(scores: Sequence[float]) -> list[float]:
    """From 0, the least of them, to 1, the greatest: searches count in units of their own."""
    least, greatest = min(scores, default=0.0), max(scores, default=0.0)
    width = greatest - least
    return [(score - least) / width if width > 0 else 1.0 for score in scores]
