"""Cuts where the subject changes: between sentences whose meanings are further apart than those around them."""

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

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


@final
class Progress:
    """How far a document's sentences were embedded: who goes on after a refusal buys none of them again."""

    def __init__(self) -> None:
        self.done = 0
        self.distances = array("d")
        self.last: list[Sequence[float]] = []


async def places(document: Document, embed: Embed, progress: Progress | None = None) -> Sequence[int]:
    """The characters of its text with which a new subject begins. Embeds each sentence with its neighbours once.

    No more vectors are kept than those of one call: a book has a hundred thousand sentences.
    """
    text, at = document.text, progress or Progress()
    spans = await asyncio.to_thread(lambda: list(sentences.spans(text)))
    while at.done < len(spans):
        end = min(len(spans), at.done + _BATCH)
        vectors = [*at.last, *await embed([_group(text, spans, place) for place in range(at.done, end)])]
        at.distances.extend(_distances(vectors))
        at.done, at.last = end, vectors[-1:]
    return [spans[place][0] for place in await asyncio.to_thread(_peaks, at.distances)]


def _group(text: str, spans: Sequence[tuple[int, int]], place: int) -> str:
    """A sentence with those around it."""
    first, last = max(0, place - _AROUND), min(len(spans) - 1, place + _AROUND)
    return text[spans[first][0] : spans[last][1]]


def breaks(vectors: Sequence[Sequence[float]]) -> list[int]:
    """The indexes of the vectors that begin a new subject.

    A distance is compared with those near it alone: what is appended to a document moves no cut far above it.
    """
    return _peaks(_distances(vectors))


def _peaks(distances: Sequence[float]) -> list[int]:
    """As `breaks`, of the distance of each vector to the next."""
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
