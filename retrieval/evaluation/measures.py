"""Recall, reciprocal rank, nDCG: as trec_eval has them, and for ties their expectation, so that no order among equals is a lucky one.

A ranking is what a search gave: documents with scores. Judgements give documents grades, 0 for what does not answer or is not judged.
nDCG's gain is the grade itself and its discount log2(rank + 1) (Järvelin and Kekäläinen 2002; trec_eval's `ndcg_cut`). Ties: McSherry and
Najork, "Computing information retrieval performance measures efficiently in the presence of tied scores", 2008.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import comb, log2
from typing import Final

Ranking = Mapping[str, float]
Judgements = Mapping[str, int]

MEASURES: Final = ("recall@5", "recall@10", "mrr@10", "ndcg@10")


def measure(name: str, ranking: Ranking, judgements: Judgements) -> float:
    """One of `recall@k`, `mrr@k`, `ndcg@k`, from 0 to 1. Raises ValueError for another name, or if nothing is judged to answer."""
    kind, at, depth = name.partition("@")
    if not at or not depth.isdecimal() or int(depth) < 1 or kind not in _KINDS:
        raise ValueError(f"{name!r} is none of recall@k, mrr@k, ndcg@k")
    if not any(grade > 0 for grade in judgements.values()):
        raise ValueError("no document is judged to answer: such a question cannot be measured")
    return _KINDS[kind](ranking, judgements, int(depth))


def ordered(documents: Sequence[str]) -> Ranking:
    """A ranking by order alone, without ties."""
    return {document: -float(place) for place, document in enumerate(dict.fromkeys(documents))}


def recall(ranking: Ranking, judgements: Judgements, depth: int) -> float:
    """The share of the answering documents that are among the first `depth`."""
    found = 0.0
    for first, grades in _ties(ranking, judgements):
        seen = min(len(grades), max(0, depth - first)) / len(grades)
        found += seen * sum(grade > 0 for grade in grades)
    return found / sum(grade > 0 for grade in judgements.values())


def reciprocal_rank(ranking: Ranking, judgements: Judgements, depth: int) -> float:
    """One over the rank of the first answering document; 0 if it is beyond `depth`."""
    for first, grades in _ties(ranking, judgements):
        answering = sum(grade > 0 for grade in grades)
        if not answering:
            continue
        ways = comb(len(grades), answering)
        return sum(
            comb(len(grades) - place - 1, answering - 1) / ways / (first + place + 1)
            for place in range(len(grades) - answering + 1)
            if first + place < depth
        )
    return 0.0


def ndcg(ranking: Ranking, judgements: Judgements, depth: int) -> float:
    """The discounted gain of the first `depth`, over that of the best possible order."""
    gain = 0.0
    for first, grades in _ties(ranking, judgements):
        shown = range(first, min(first + len(grades), depth))
        gain += sum(grades) / len(grades) * sum(_discount(rank) for rank in shown)
    best = sorted((grade for grade in judgements.values() if grade > 0), reverse=True)[:depth]
    return gain / sum(grade * _discount(rank) for rank, grade in enumerate(best))


_KINDS: Final = {"recall": recall, "mrr": reciprocal_rank, "ndcg": ndcg}


def _ties(ranking: Ranking, judgements: Judgements) -> Iterator[tuple[int, Sequence[int]]]:
    """Documents of equal score, best first: how many stand before them, and their grades."""
    first = 0
    for _, tied in groupby(sorted(ranking, key=lambda each: -ranking[each]), key=lambda each: ranking[each]):
        grades = [max(0, judgements.get(document, 0)) for document in tied]
        yield first, grades
        first += len(grades)


def _discount(rank: int) -> float:
    return 1.0 / log2(rank + 2)
