"""The quality gate: the same questions in both versions, measured as `penstock eval` measures. Pure but for the searches it is given."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from retrieval.asking import Result
from retrieval.evaluation.measures import measure, ordered
from retrieval.reembedding.record import Asked, Gate, Verdict, Worse

NDCG: Final = "ndcg@10"
SHOWN: Final = 10  # questions that fell, the worst first
EPSILON: Final = 1e-9
DEEPER: Final = 4  # times as many passages are looked at where they are to be compared with others

# The passages that one version finds for each question, best first.
Searches = Callable[[Sequence[Asked]], Awaitable[Sequence[Sequence[Result]]]]


async def judged(gate: Gate, before: Searches, after: Searches, *, apart: bool = False) -> Verdict:
    """`apart`: the two have different passages, so that documents are ranked. Raises whatever a search raises."""
    found = [await search(gate.queries) for search in (before, after)]
    ranked = ([_ranked(*pair, apart=apart) for pair in zip(gate.queries, each, strict=True)] for each in found)
    return verdict(gate, *ranked)


def verdict(gate: Gate, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> Verdict:
    """`before` and `after`: for each question the names that were found, best first."""
    names = (f"recall@{gate.k}", NDCG)
    rows = [
        [
            {name: measure(name, ordered(found), _judgements(asked)) for name in names}
            for asked, found in zip(*pair, strict=True)
        ]
        for pair in ((gate.queries, before), (gate.queries, after))
    ]
    means = [{name: sum(row[name] for row in each) / len(each) for name in names} for each in rows]
    falls = {name: means[0][name] - means[1][name] for name in names}
    fallen = [name for name in names if falls[name] > gate.max_loss + EPSILON]
    told = ", ".join(f"{name} {means[0][name]:.4f} → {means[1][name]:.4f}" for name in (fallen or names))
    reason = f"{told}; a loss of {gate.max_loss:g} is allowed"
    return Verdict(not fallen, reason, means[0], means[1], _worst(gate.queries, *rows))


def _worst(
    queries: Sequence[Asked], before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]
) -> Sequence[Worse]:
    fell = [
        Worse(asked.query, old[NDCG], new[NDCG])
        for asked, old, new in zip(queries, before, after, strict=True)
        if new[NDCG] < old[NDCG] - EPSILON
    ]
    return sorted(fell, key=lambda each: each.after - each.before)[:SHOWN]


def _judgements(asked: Asked) -> Mapping[str, int]:
    return {each.name: each.grade for each in asked.relevant}


def _ranked(asked: Asked, results: Sequence[Result], *, apart: bool = False) -> Sequence[str]:
    """By the names of the judgements: a passage is one that answers if it, or what is shown for it, shares a character with it.

    `apart`: whatever else is found of a document counts once, as it would stand there several times where passages are short.
    """
    names: list[str] = []
    for result in results:
        passage, file_id = result.passage, result.document.source_id
        start = passage.start if passage.parent_start is None else passage.parent_start
        end = passage.end if passage.parent_end is None else passage.parent_end
        spans = [each for each in asked.relevant if each.id == file_id and each.start is not None]
        hit = [
            each.name
            for each in spans
            if each.start is not None and each.end is not None and start < each.end and each.start < end
        ]
        names += hit or ([f"{file_id}#{passage.id}"] if spans and not apart else [file_id])
    return list(dict.fromkeys(names))
