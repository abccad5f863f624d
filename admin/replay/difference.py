"""What is different between answers then and now: of one request, and of all of them. Pure."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from statistics import mean, quantiles
from typing import Literal

import msgspec

from admin.replay.recording import Recording, Reply
from admin.replay.shape import shape

Verdict = Literal["better", "same", "worse"]
MOST_COMPARED = 20_000  # characters: the comparison's time grows with their square


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one request. Each number is the new answer's less the recorded one's; None where one of them is not known."""

    id: str
    status: tuple[int, int]
    latency_ms: float
    cost_nanousd: int | None
    completion_tokens: int | None
    characters: int
    same_text: bool
    same_structure: bool
    likeness: float  # of the words: 0 to 1
    verdict: Verdict | None = None


class Side(msgspec.Struct, frozen=True):
    """All answers of one time. Money is of those whose cost is known on both sides."""

    answered: int
    cost_usd: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    completion_tokens: float | None
    characters: float | None


class Summary(msgspec.Struct, frozen=True):
    """`skipped`: requests that could not be asked again. Shares are of answers that were given on both sides; None of none."""

    requests: int
    skipped: int
    then: Side
    now: Side
    same_text: float | None
    same_structure: float | None
    likeness: float | None
    judged: dict[str, int] | None


def difference(recording: Recording, verdict: Verdict | None = None) -> Difference:
    """`recording.again` is there."""
    then, now = recording.reply, recording.again
    assert now is not None
    old, new = shape(recording.endpoint, then.text), shape(recording.endpoint, now.text)
    return Difference(
        id=recording.id,
        status=(then.status, now.status),
        latency_ms=round(now.latency_ms - then.latency_ms, 3),
        cost_nanousd=_less(now.cost_nanousd, then.cost_nanousd),
        completion_tokens=_less(now.completion_tokens, then.completion_tokens),
        characters=len(new.words) - len(old.words),
        same_text=old.words == new.words,
        same_structure=old.same(new),
        likeness=round(_likeness(old.words, new.words), 4),
        verdict=verdict,
    )


def summary(recordings: Sequence[Recording], differences: Sequence[Difference]) -> Summary:
    """`differences` are of those that were asked again."""
    again = [each for each in recordings if each.again is not None]
    both = [one for one in differences if one.status[0] < 300 and one.status[1] < 300]
    verdicts = [one.verdict for one in differences if one.verdict is not None]
    priced = {
        each.id
        for each in again
        if each.reply.cost_nanousd is not None and each.again is not None and each.again.cost_nanousd is not None
    }
    return Summary(
        requests=len(recordings),
        skipped=len(recordings) - len(again),
        then=_side([(each, each.reply) for each in again], priced),
        now=_side([(each, each.again) for each in again if each.again is not None], priced),
        same_text=_share([one.same_text for one in both]),
        same_structure=_share([one.same_structure for one in both]),
        likeness=_mean([one.likeness for one in both]),
        judged={word: verdicts.count(word) for word in ("better", "same", "worse")} if verdicts else None,
    )


def _side(replies: Sequence[tuple[Recording, Reply]], priced: set[str]) -> Side:
    good = [(each, reply) for each, reply in replies if reply.status < 300]
    times = sorted(reply.latency_ms for _, reply in good)
    tokens = [float(reply.completion_tokens) for _, reply in good if reply.completion_tokens is not None]
    lengths = [float(len(shape(each.endpoint, reply.text).words)) for each, reply in good]
    return Side(
        answered=len(good),
        cost_usd=sum(reply.cost_nanousd or 0 for each, reply in replies if each.id in priced) / 1_000_000_000,
        latency_p50_ms=_quantile(times, 50),
        latency_p95_ms=_quantile(times, 95),
        completion_tokens=_mean(tokens),
        characters=_mean(lengths),
    )


def _likeness(old: str, new: str) -> float:
    if old == new:
        return 1.0
    return SequenceMatcher(None, old[:MOST_COMPARED], new[:MOST_COMPARED], autojunk=True).ratio()


def _less(now: int | None, then: int | None) -> int | None:
    return None if now is None or then is None else now - then


def _share(truths: Sequence[bool]) -> float | None:
    return _mean([float(truth) for truth in truths])


def _mean(values: Sequence[float]) -> float | None:
    return round(mean(values), 4) if values else None


def _quantile(times: Sequence[float], percent: int) -> float | None:
    if not times:
        return None
    return round(times[0] if len(times) == 1 else quantiles(times, n=100, method="inclusive")[percent - 1], 3)
