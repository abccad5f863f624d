"""Features joined to a prediction: a client names entities, the model gets what is known of them, as fresh as it has to be.

Who gives every input of the model and no entity is answered with those, as by a model without a feature view.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, final

from inference.errors import InferenceError
from inference.features.online import OnlineStore
from inference.features.view import MICRO, FeatureView, Missing, Row, status
from inference.ports import Bundle
from inference.serving.errors import BadInput
from inference.serving.frame import Columns, Frame
from inference.serving.values import tensor
from inference.signature import Column, Signature

Views = Callable[[], Mapping[str, FeatureView]]
Read = Callable[[Bundle], Frame]

OTHERS: Final = frozenset(
    {"missing_feature", "unknown_feature", "invalid_shape"}
)  # it was not written for this signature
METADATA: Final = "feature_view"  # of a bundle: `{"name", "version"?, "missing"?, "inputs"?}`


class FeatureUnusable(InferenceError):
    """What the store has cannot be given to the model."""

    status, type, code = 502, "upstream_error", "feature_invalid"


class FeatureStale(InferenceError):
    status, type, code = 502, "upstream_error", "feature_stale"


class Plan(NamedTuple):
    """What of a bundle comes from its view: `inputs` by the model's name, to the feature's. `asked` has the signature of what is left."""

    view: FeatureView
    inputs: Mapping[str, str]
    missing: Missing
    asked: Bundle


class Joining(NamedTuple):
    """A call that was read, and waits for its features."""

    plan: Plan
    frame: Frame


@final
class Joins:
    """One per process. `views` are those in force."""

    def __init__(self, views: Views, store: OnlineStore, unix: Callable[[], float] = time.time) -> None:
        self._views = views
        self._store = store
        self._unix = unix
        self._plans: dict[tuple[str, int], tuple[FeatureView, Plan | None]] = {}

    def plan(self, bundle: Bundle) -> Plan | None:
        """None: its features come from its callers."""
        named = bundle.metadata.get(METADATA)
        if not isinstance(named, Mapping):
            return None
        view = self._views().get(str(named.get("name")))
        if view is None:
            return None
        known = self._plans.get((bundle.model, bundle.version))
        if known is None or known[0] is not view:
            known = self._plans[bundle.model, bundle.version] = view, _plan(bundle, view, named)
        return known[1]

    def read(self, plan: Plan, bundle: Bundle, read: Read) -> Joining | Frame:
        """With entities, what is to be joined; without, what the caller gave whole. Raises BadInput."""
        try:
            return Joining(plan, read(plan.asked))
        except BadInput as wrong:
            try:
                return read(bundle)
            except BadInput as whole:
                raise (whole if wrong.code in OTHERS and whole.code not in OTHERS else wrong) from None

    async def joined(self, joining: Joining, bundle: Bundle) -> tuple[Frame, Columns]:
        """The model's rows, and what is to be kept of them: entities too. Raises InferenceError."""
        plan, asked = joining.plan, joining.frame
        view = plan.view
        entities = {name: asked.columns[name].tolist() for name in view.keys}
        rows = await self._store.read(view, entities, asked.rows)
        at_us = int(self._unix() * MICRO)
        columns: dict[str, Any] = {}
        for column in bundle.signature.inputs:
            feature = plan.inputs.get(column.name)
            if feature is not None:
                columns[column.name] = _filled(plan, column, feature, rows, at_us, entities)
            elif column.name in asked.columns:
                columns[column.name] = asked.columns[column.name]
        kept = {name: asked.columns[name] for name in view.keys if name not in columns}
        return Frame(columns, asked.rows), {**kept, **columns}


def _plan(bundle: Bundle, view: FeatureView, named: Mapping[str, Any]) -> Plan | None:
    renamed = named.get("inputs") or {}
    inputs = {
        column.name: feature
        for column in bundle.signature.inputs
        if view.feature(feature := renamed.get(column.name, column.name)) is not None
    }
    if not inputs:
        return None
    rest = tuple(column for column in bundle.signature.inputs if column.name not in inputs)
    given = {column.name for column in rest}
    keys = tuple(replace(column, nullable=False, required=True) for column in view.entities if column.name not in given)
    asked = replace(bundle, signature=Signature((*keys, *rest), bundle.signature.outputs))
    return Plan(view, inputs, named.get("missing") or view.missing, asked)


def _filled(
    plan: Plan,
    column: Column,
    feature: str,
    rows: Sequence[Row | None],
    at_us: int,
    entities: Mapping[str, Sequence[Any]],
) -> Any:
    values = []
    for number, row in enumerate(rows):
        said = status(plan.view, row, feature, at_us)
        if row is not None and said in {"PRESENT", "NULL_VALUE"}:
            values.append(row.values[feature])
            continue
        if plan.missing == "error":
            raise _absent(plan.view, feature, said, number, entities)
        values.append(plan.view.defaults.get(feature) if plan.missing == "default" else None)
    try:
        return tensor(column, values, lambda number: f"features[{number}].{feature}")
    except BadInput as unfit:
        raise FeatureUnusable(
            f"What '{plan.view.name}' has is not what the model takes. {unfit.message}", param=unfit.param
        ) from unfit


def _absent(
    view: FeatureView, feature: str, said: str, number: int, entities: Mapping[str, Sequence[Any]]
) -> InferenceError:
    who = ", ".join(f"{name}={str(values[number])[:80]}" for name, values in entities.items())
    if said == "OUTSIDE_MAX_AGE":
        return FeatureStale(
            f"The feature '{feature}' of {who} in '{view.name}' is older than {view.ttl_s:g} s", param=feature
        )
    return BadInput(
        f"The feature view '{view.name}' has no '{feature}' of {who}",
        param=f"instances[{number}].{view.keys[0]}",
        code="entity_not_found",
    )
