"""Several rankings become one. Pure.

What nobody weighs is blended: a convex combination of what the rankings say of each candidate (Bruch, Gai and Ingber, "An analysis of
fusion functions for hybrid retrieval", TOIS 2023). Weights that a client gives are those of reciprocal ranks, as OpenAI has them
(Cormack, Clarke, Büttcher, SIGIR 2009).
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrieval.index.ports import Slots

_EQUAL: Final = 1e-6
DAMPING: Final = 60  # k of the paper


class Ranking(msgspec.Struct, frozen=True):
    """Slots by falling relevance, with what they score there."""

    name: str
    weight: float
    slots: Sequence[int]
    scores: Sequence[float]


class Voice(msgspec.Struct, frozen=True):
    """What a ranking says of each candidate, in their order: 1 is as good as can be, 0 as good as anything."""

    share: float
    scores: NDArray[np.float32]


def fused(rankings: Sequence[Ranking]) -> list[tuple[int, float]]:
    """Slots by falling score. First in every ranking is 1; what stands in none is not there."""
    weights = sum(ranking.weight for ranking in rankings)
    if weights <= 0:
        return []
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, slot in enumerate(ranking.slots):
            scores[slot] = scores.get(slot, 0.0) + ranking.weight / (DAMPING + rank + 1)
    best = weights / (DAMPING + 1)
    return sorted(((slot, score / best) for slot, score in scores.items()), key=lambda each: (-each[1], each[0]))


def blended(candidates: Slots, voices: Sequence[Voice]) -> list[tuple[int, float]]:
    """Candidates by falling score, from 0 to 1, if the shares are 1 together.

    A ranking says something of every candidate, whoever found it: what is good in both need not be among the first of either.
    """
    total = np.zeros(len(candidates), np.float32)
    for voice in voices:
        total += np.float32(voice.share) * voice.scores
    np.clip(total, 0.0, 1.0, out=total)
    order = np.lexsort((candidates, -total))
    return list(zip(candidates[order].tolist(), total[order].tolist(), strict=True))


def meant(cosines: NDArray[np.float32], usual: float) -> NDArray[np.float32]:
    """Cosines above what the query has with anything: of one model that is 0.1, of another 0.7."""
    return (cosines - np.float32(usual)) / np.float32(max(1 - usual, _EQUAL))


def worded(ranking: Ranking, candidates: Slots, absent: float) -> NDArray[np.float32]:
    """BM25 of candidates as a share of the best passage's; `absent` for those that the ranking does not have."""
    known = dict(zip(ranking.slots, ranking.scores, strict=True))
    scores = np.array([known.get(slot, absent) for slot in candidates.tolist()], np.float32)
    return scores / np.float32(max(ranking.scores[0], _EQUAL))
