"""Training data as a reference for gates on drift: a version's profile in the words of the rollout engine."""

from collections.abc import Mapping
from typing import Any, Final

from inference.rollouts.rollout import Training
from inference.rollouts.values import CUTS, mark

PREDICTIONS: Final = "predictions"


def trained(profile: Mapping[str, Any], side: str) -> dict[str, Training]:
    """By column. Of outputs there is the target, which the column `predictions` is held against; nothing where the profile has none."""
    rows = int(profile.get("rows", 0))
    if side == "inputs":
        columns = profile.get("columns", {})
    else:
        target = profile.get("target")
        columns = {} if target is None else {PREDICTIONS: target}
    found = {name: _column(column, rows) for name, column in columns.items()}
    return {name: column for name, column in found.items() if column is not None}


def _column(column: Mapping[str, Any], rows: int) -> Training | None:
    if column.get("kind") == "text":
        counts: dict[int, int] = {}
        for text, share in column.get("categories", {}).items():
            bucket = int(mark(text)[1:])
            counts[bucket] = counts.get(bucket, 0) + round(share * rows)
        return Training((), tuple(counts.items()), text=True) if counts else None
    histogram = column.get("histogram")
    if histogram is None or not sum(histogram["counts"]):
        return None
    return _numbers(histogram["edges"], histogram["counts"])


def _numbers(edges: list[float], counts: list[int]) -> Training:
    """Neighbouring bins together, until there are as many as are compared. Bins take their lower edge, and the last one both."""
    size = -(-len(counts) // (CUTS + 1))
    inner = edges[1:-1]
    cuts = tuple(inner[size - 1 :: size])
    merged: dict[int, int] = {}
    for number, count in enumerate(counts):
        bucket = min(number // size, len(cuts))
        merged[bucket] = merged.get(bucket, 0) + count
    return Training(cuts, tuple(merged.items()))
