"""Several rankings become one: weighted reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009). Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

DAMPING: Final = 60  # k of the paper


class Ranking(msgspec.Struct, frozen=True):
    """Slots by falling relevance."""

    name: str
    weight: float
    slots: Sequence[int]


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
