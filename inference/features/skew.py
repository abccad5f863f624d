"""Skew: what a model was trained on, by the profile in its bundle, against what it is asked in service, by its captures. Pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

import msgspec

from inference.features import statistics

Reason: TypeAlias = Literal["psi", "ks", "nulls", "unseen"]

FEWEST: Final = 30  # rows of which anything is said
SHOWN: Final = 10

Values: TypeAlias = Mapping[str, Sequence[Any]]


class Limits(msgspec.Struct, frozen=True):
    """What is called skew: beyond chance at `alpha`, over all columns together, and beyond these."""

    psi: float = 0.2
    ks: float = 0.1
    nulls: float = 0.05
    unseen: float = 0.01
    alpha: float = 0.01


class Finding(msgspec.Struct, frozen=True):
    """Of one column. `psi_threshold` is the larger of the policy's and of chance's. `unseen`: the share of values that training had not;
    None where the profile does not know all of them. `reasons`: none where there is no skew.
    """

    name: str
    kind: str
    rows: int
    psi: float | None
    psi_threshold: float | None
    ks: float | None
    p_value: float | None
    nulls_reference: float
    nulls: float
    unseen: float | None
    unseen_values: tuple[str, ...]
    reasons: tuple[Reason, ...]


def findings(profile: Mapping[str, Any], captured: Values, limits: Limits) -> list[Finding]:
    """Of every column of the profile that was captured."""
    columns = {name: column for name, column in profile["columns"].items() if name in captured}
    alpha = limits.alpha / max(1, len(columns))
    rows = max(1, int(profile["rows"]))
    return [_finding(name, column, rows, captured[name], limits, alpha) for name, column in columns.items()]


def flat(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A captured call's columns as the profile names them: a matrix has one for each of its numbers. Redacted ones are left out."""
    made: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            continue
        if values and isinstance(values[0], list):
            for row in values:
                for number, value in enumerate(_elements(row)):
                    made.setdefault(f"{name}[{number}]", []).append(value)
        else:
            made[name] = values
    return made


def unequal(captured: Sequence[Any], known: Sequence[Any]) -> int:
    """How many of what a model was given are not what the history says that it should have been given."""
    return sum(not _same(mine, its) for mine, its in zip(captured, known, strict=True))


def _finding(
    name: str, column: Mapping[str, Any], reference: int, values: Sequence[Any], limits: Limits, alpha: float
) -> Finding:
    known = [value for value in values if not _none(value)]
    nulls = 1 - len(known) / len(values) if values else 0.0
    before = float(column.get("nulls", 0.0))
    rows_reference = max(1, round(reference * (1 - before)))
    histograms = _histograms(column, known, rows_reference)
    psi = threshold = ks = p_value = unseen = None
    strange: tuple[str, ...] = ()
    reasons: list[Reason] = []
    if histograms is not None and len(known) >= FEWEST:
        old, new = histograms
        bins = statistics.merged(old, new)
        psi = statistics.psi(*bins)
        chance = statistics.psi_of_chance(rows_reference, len(known), len(bins[0]), alpha)
        threshold = max(limits.psi, chance)
        if psi > threshold:
            reasons.append("psi")
        if column["kind"] == "number":
            ks = statistics.distance(old, new)
            p_value = statistics.kolmogorov(ks, rows_reference, len(known))
            if ks > limits.ks and p_value < alpha:
                reasons.append("ks")
    if len(values) >= FEWEST:
        chance_of_nulls = statistics.proportions(before, reference, nulls, len(values))
        if abs(nulls - before) > limits.nulls and chance_of_nulls < alpha:
            reasons.append("nulls")
    if column["kind"] == "text" and not column.get("other") and known:
        odd = Counter(str(value) for value in known if str(value) not in column.get("categories", {}))
        unseen, strange = odd.total() / len(known), tuple(text[:80] for text, _ in odd.most_common(SHOWN))
        if unseen > limits.unseen and len(known) >= FEWEST:
            reasons.append("unseen")
    return Finding(
        name, column["kind"], len(values), psi, threshold, ks, p_value, before, nulls, unseen, strange, tuple(reasons)
    )


def _histograms(column: Mapping[str, Any], known: Sequence[Any], rows: int) -> tuple[list[float], list[float]] | None:
    """Both as counts over the same bins; `rows`: of the reference. None: training had no value."""
    if column["kind"] == "text":
        shares = dict(column.get("categories", {}))
        if not shares:
            return None
        counts = Counter(str(value) for value in known)
        names = list(shares)
        return [rows * share for share in (*shares.values(), float(column.get("other", 0.0)))], [
            *(float(counts[name]) for name in names),
            float(sum(count for name, count in counts.items() if name not in shares)),
        ]
    histogram = column.get("histogram")
    if histogram is None:
        return None
    edges = histogram["edges"]
    if len(edges) == 1:  # one value all the time: it, and everything else
        same = sum(value == edges[0] for value in known)
        return [float(rows), 0.0], [float(same), float(len(known) - same)]
    counts_of = [0.0] * (len(edges) - 1)
    for value in known:  # the outer bins are open: what is beyond them has to be somewhere
        counts_of[min(max(bisect_right(edges, value) - 1, 0), len(counts_of) - 1)] += 1
    return [float(count) for count in histogram["counts"]], counts_of


def _elements(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [each for inner in value for each in _elements(inner)]


def _none(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not isfinite(value))


def _same(mine: Any, its: Any) -> bool:
    if _none(mine) or _none(its):
        return _none(mine) and _none(its)
    if isinstance(mine, int | float) and isinstance(its, int | float):
        return abs(mine - its) <= 1e-6 * max(abs(mine), abs(its))  # FP32 there and FP64 here
    return bool(mine == its)
