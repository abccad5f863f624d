"""Whether models were given what their feature view's history says that was known then: rows that come late show, and bugs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from inference.features import training, view_store
from inference.features.skew import unequal
from inference.features.training import Reading
from inference.features.view import EVENT_TIME, FeatureView, Native
from inference.features.wire import Wanted


class Consistency(msgspec.Struct, frozen=True):
    """`unequal`: the share of rows, by the model's name of a feature."""

    view: str
    rows: int
    unequal: Mapping[str, float]


def compared(
    reading: Reading, named: Mapping[str, Any], calls: Sequence[tuple[float, Mapping[str, Any]]]
) -> Consistency | None:
    """`calls`: captured inputs with their Unix times. None where nothing was joined from a view that is kept here. Blocks."""
    with reading() as tx:
        view = next((each for each in view_store.every(tx) if each.name == named.get("name")), None)
    if view is None or not isinstance(view.source, Native):
        return None
    joined = [(moment, inputs) for moment, inputs in calls if _joined(view, inputs)]
    if not joined:
        return None
    renamed = named.get("inputs") or {}
    inputs = {
        name: feature
        for name in joined[0][1]
        if view.feature(feature := renamed.get(name, name)) is not None
        and all(isinstance(captured.get(name), list) for _, captured in joined)
    }
    columns: dict[str, list[Any]] = {name: [] for name in view.keys}
    given: dict[str, list[Any]] = {name: [] for name in inputs}
    moments: list[float] = []
    for moment, captured in joined:
        rows = len(captured[view.keys[0]])
        moments += [moment] * rows
        for name in (*view.keys, *inputs):
            (columns if name in columns else given)[name] += captured[name]
    entities = {**columns, EVENT_TIME: moments}
    wanted = (Wanted(view, tuple(dict.fromkeys(inputs.values()))),)
    known = training.joined(reading, wanted, entities, lambda name, row: f"captured[{row}].{name}", full_names=True)
    filled = view.defaults if (named.get("missing") or view.missing) == "default" else {}
    shares = {}
    for name, feature in inputs.items():
        meant = [filled.get(feature) if value is None else value for value in known[f"{view.name}__{feature}"]]
        shares[name] = unequal(given[name], meant) / len(moments)
    return Consistency(view.name, len(moments), shares)


def _joined(view: FeatureView, inputs: Mapping[str, Any]) -> bool:
    return all(isinstance(inputs.get(name), list) for name in view.keys)
