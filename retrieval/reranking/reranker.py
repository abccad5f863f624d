"""How well each of some texts answers a question: what they have in common, weighed.

Reading is work that grows with the texts, so it is done in threads, a slice at a time, and stops with whoever waits for it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, final

from retrieval.quotes.quoting import Similar
from retrieval.reranking import weighing
from retrieval.reranking.likeness import Likeness, Text, compared
from retrieval.reranking.weighing import FOUND, FOUND_AND_MEANT, MEANT, WORDED

MOST_COMPARED: Final = 20  # texts whose meaning is looked at: what costs most
MOST_CHARACTERS: Final = 2_000_000  # of all texts together: some two seconds of one processor
LEAST_CHARACTERS: Final = 200  # of each that are read in any case
_QUESTION: Final = 4_000  # characters
_SLICE: Final = 65_536  # characters


@final
class Reranker:
    """`similar` compares meanings; without it words decide."""

    def __init__(self, similar: Similar | None = None) -> None:
        self._similar = similar

    async def rank(self, question: str, texts: Sequence[str], priors: Sequence[float] | None = None) -> list[float]:
        """A probability for each text, in their order. `priors`: what the search that found them says of each; more is better."""
        question = question[:_QUESTION]
        alike = await self._read(question, texts)
        prior = [0.0] * len(texts) if priors is None else weighing.spread(priors)
        first, second = (WORDED, MEANT) if priors is None else (FOUND, FOUND_AND_MEANT)
        scores = [weighing.probability(first, each, before) for each, before in zip(alike, prior, strict=True)]
        order = sorted(range(len(texts)), key=lambda at: (-scores[at], at))
        near, rest = order[:MOST_COMPARED], order[MOST_COMPARED:]
        cosines = None if self._similar is None else await self._similar(question, [alike[at].excerpt for at in near])
        if cosines is None:
            return scores
        for at, cosine in zip(near, cosines, strict=True):
            scores[at] = weighing.probability(second, alike[at], prior[at], cosine)
        behind = min(scores[at] for at in near)
        for at in rest:
            scores[at] *= behind
        return scores

    async def _read(self, question: str, texts: Sequence[str]) -> list[Likeness]:
        most = max(LEAST_CHARACTERS, MOST_CHARACTERS // max(1, len(texts)))
        read: list[Text] = []
        for some in _slices([text[:most] for text in texts]):
            read += await asyncio.to_thread(_texts, some)
        return await asyncio.to_thread(compared, question, read)


def _texts(some: Sequence[str]) -> list[Text]:
    return [Text(text) for text in some]


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """Of about so many characters; a text is never cut."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text)
        if characters >= _SLICE:
            yield some
            some, characters = [], 0
    if some:
        yield some
