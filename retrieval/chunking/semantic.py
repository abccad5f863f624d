"""Cuts where the subject changes: between sentences whose meanings are further apart than those around them."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Final

from retrieval.chunking import sentences
from retrieval.chunking.chunk import Chunk, Document, Sizes
from retrieval.chunking.strategies import APART, by_sections
from retrieval.chunking.tokens import Measure

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Texts to vectors of one length, in the same order."""

_AROUND: Final = 1  # sentences on each side that are embedded together with one: single sentences are noisy
_NEIGHBOURS: Final = 20  # distances on each side that one is compared with
_LARGEST: Final = 0.9  # of them must be smaller
_BATCH: Final = 256


async def by_meaning(document: Document, measure: Measure, embed: Embed, sizes: Sizes = APART) -> tuple[Chunk, ...]:
    """A passage for each stretch about one subject, several for a long one. Embeds each sentence with its neighbours once."""
    spans = list(sentences.spans(document.text))
    groups = [
        document.text[spans[max(0, place - _AROUND)][0] : spans[min(len(spans) - 1, place + _AROUND)][1]]
        for place in range(len(spans))
    ]
    vectors: list[Sequence[float]] = []
    for start in range(0, len(groups), _BATCH):
        vectors += await embed(groups[start : start + _BATCH])
    return by_sections(document, measure, [spans[place][0] for place in breaks(vectors)], sizes)


def breaks(vectors: Sequence[Sequence[float]]) -> list[int]:
    """The indexes of the vectors that begin a new subject.

    A distance is compared with those near it alone: what is appended to a document moves no cut far above it.
    """
    distances = [_distance(before, after) for before, after in pairwise(vectors)]
    found = []
    for place, distance in enumerate(distances):
        near = distances[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
        smaller = sum(other < distance for other in near)
        peak = distance >= max(distances[max(0, place - 1) : place + 2])
        if peak and smaller >= _LARGEST * (len(near) - 1) and smaller > 0:
            found.append(place + 1)
    return found


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """1 − cosine; 1 where a vector has no direction."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    length = sqrt(sum(a * a for a in one)) * sqrt(sum(b * b for b in other))
    return 1.0 - dot / length if length else 1.0
