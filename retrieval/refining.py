"""What is done to an order once it is there: age, groups, difference, spans of words. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import exp, isfinite
from typing import TYPE_CHECKING, Final

import msgspec

from retrieval.asking import Context, Diversity, Recency, Result, Span, Trace
from retrieval.document_store import Value
from retrieval.passage_store import Found
from retrieval.quotes.words import content_words, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SPANS: Final = 64
_WORD: Final = re.compile(r"\w+")


def reranked(results: Sequence[Result], scores: Sequence[float]) -> list[Result]:
    """By the scores of a cross-encoder, which become those of the results: as they are where all are shares, else as logits."""
    shares = all(0 <= score <= 1 for score in scores)
    told = [score if shares else _sigmoid(score) for score in scores]
    order = sorted(range(len(results)), key=lambda at: (-told[at], at))
    return [
        _ranked(results[at], "rerank", rank, told[at], traced=float(scores[at])) for rank, at in enumerate(order, 1)
    ]


def by_age(results: Sequence[Result], recency: Recency, now: float) -> list[Result]:
    """A document without a date is as old as can be."""

    def worth(result: Result) -> float:
        document = result.document
        at = document.created_at if recency.attribute is None else moment(document.attributes.get(recency.attribute))
        fresh = 0.0 if at is None else 0.5 ** (max(0.0, now - at) / recency.half_life_s)
        return result.score * (1 - recency.weight + recency.weight * fresh)

    scored = sorted(((worth(result), at) for at, result in enumerate(results)), key=lambda each: (-each[0], each[1]))
    return [_ranked(results[at], "recency", rank, score) for rank, (score, at) in enumerate(scored, 1)]


def moment(value: Value | None) -> float | None:
    """Unix seconds of an attribute: a number is that, a text is ISO 8601, of UTC where it names no zone."""
    match value:
        case bool() | None:
            return None
        case int() | float():
            return float(value) if isfinite(value) else None
        case str():
            try:
                read = datetime.fromisoformat(value)
            except ValueError:
                return None
            return (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).timestamp()


def grouped(results: Sequence[Result], size: int) -> list[Result]:
    """One for each document, in the order of their best passages; up to `size` passages of each, the others in `more`."""
    groups: dict[int, list[Result]] = {}
    for result in results:
        group = groups.setdefault(result.document.id, [])
        if len(group) < size:
            group.append(result)
    return [msgspec.structs.replace(first, more=tuple(rest)) for first, *rest in groups.values()]


def families(results: Sequence[Result]) -> list[Result]:
    """Of those with one parent, which is shown for them, the best."""
    seen: set[tuple[int, int | None, int | None]] = set()
    kept = []
    for result in results:
        passage = result.passage
        family = passage.document_id, passage.parent_start, passage.parent_end
        if passage.parent_start is None or family not in seen:
            seen.add(family)
            kept.append(result)
    return kept


def diverse(
    results: Sequence[Result], vectors: "Mapping[int, NDArray[np.float32]]", wanted: Diversity, k: int
) -> list[Result]:
    """The `k` that are relevant and differ from those before them, one after the other. Vectors are of length 1, by passage."""
    left = list(range(len(results)))
    nearest = [0.0] * len(results)
    chosen: list[Result] = []
    while left and len(chosen) < k:

        def marginal(at: int) -> float:
            return wanted.balance * results[at].score - (1 - wanted.balance) * nearest[at]

        best = max(left, key=lambda at: (marginal(at), -at))
        left.remove(best)
        chosen.append(_ranked(results[best], "mmr", len(chosen) + 1, results[best].score, traced=marginal(best)))
        mine = vectors.get(results[best].passage.id)
        if mine is None:
            continue
        for at in left:
            other = vectors.get(results[at].passage.id)
            if other is not None and other.shape == mine.shape:
                nearest[at] = max(nearest[at], float(mine @ other))
    return chosen


def highlights(text: str, queries: Sequence[str]) -> tuple[Span, ...]:
    """Where words of the queries stand, in any of their endings; what stands side by side is one."""
    asked = {word for query in queries for word in content_words(query)}
    if not asked:
        asked = {word for query in queries for word in words(query)}
    spans: list[Span] = []
    for match in _WORD.finditer(text):
        if not asked.isdisjoint(words(match[0])):
            start, end = match.span()
            if spans and not text[spans[-1].end : start].strip():
                spans[-1] = Span(spans[-1].start, end)
            elif len(spans) < MAX_SPANS:
                spans.append(Span(start, end))
            else:
                break
    return tuple(spans)


def joined(passages: Sequence[Found]) -> Context | None:
    """Passages of one document in their order as one text; what they share stands in it once."""
    if not passages:
        return None
    text, end = passages[0].text, passages[0].end
    for each in passages[1:]:
        shared = end - each.start
        if shared < 0 or len(each.text) != each.end - each.start:
            text += f"\n{each.text}"
        elif shared < len(each.text):
            text += each.text[shared:]
        end = max(end, each.end)
    return Context(text, passages[0].start, end)


def every(results: Sequence[Result], change: Callable[[Result], Result]) -> list[Result]:
    """Each passage changed, those in groups as well."""
    return [
        change(msgspec.structs.replace(result, more=tuple(change(each) for each in result.more))) for result in results
    ]


def _ranked(result: Result, name: str, rank: int, score: float, traced: float | None = None) -> Result:
    trace = Trace(name, rank, score if traced is None else traced)
    return msgspec.structs.replace(result, score=score, traces=(*result.traces, trace))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + exp(-max(-60.0, min(60.0, logit))))
