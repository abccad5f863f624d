"""Cuts where the subject changes: between sentences whose meanings are further apart than those around them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np

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
    """A passage for each stretch about one subject, several for a long one."""
    found = await places(document, embed)
    return await asyncio.to_thread(by_sections, document, measure, found, sizes)


async def places(document: Document, embed: Embed) -> Sequence[int]:
    """The characters of its text with which a new subject begins. Embeds each sentence with its neighbours once."""
    spans, groups = await asyncio.to_thread(_groups, document.text)
    vectors: list[Sequence[float]] = []
    for start in range(0, len(groups), _BATCH):
        vectors += await embed(groups[start : start + _BATCH])
    return [spans[place][0] for place in await asyncio.to_thread(breaks, vectors)]


def _groups(text: str) -> tuple[Sequence[tuple[int, int]], Sequence[str]]:
    """Sentences, and each with those around it."""
    spans = list(sentences.spans(text))
    last = len(spans) - 1
    return spans, [
        text[spans[max(0, place - _AROUND)][0] : spans[min(last, place + _AROUND)][1]] for place in range(len(spans))
    ]


def breaks(vectors: Sequence[Sequence[float]]) -> list[int]:
    """The indexes of the vectors that begin a new subject.

    A distance is compared with those near it alone: what is appended to a document moves no cut far above it.
    """
    distances = _distances(vectors)
    found = []
    for place, distance in enumerate(distances):
        near = distances[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
        smaller = sum(other < distance for other in near)
        peak = distance >= max(distances[max(0, place - 1) : place + 2])
        if peak and smaller >= _LARGEST * (len(near) - 1) and smaller > 0:
            found.append(place + 1)
    return found


def _distances(vectors: Sequence[Sequence[float]]) -> list[float]:
    """1 − cosine of each with the next; 1 where a vector has no direction."""
    if len(vectors) < 2:
        return []
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    products = lengths[:-1] * lengths[1:]
    dots = np.einsum("ij,ij->i", rows[:-1], rows[1:])
    return list((1.0 - np.divide(dots, products, out=np.zeros(len(dots)), where=products > 0)).tolist())
