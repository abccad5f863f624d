"""From rows of a table to a frame that a model takes, and to the reasons why some of them are not in it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np

from inference.scoring.errors import Failed
from inference.serving.errors import BadInput
from inference.serving.frame import Frame
from inference.serving.reading import cell, read_body
from inference.signature import Column, Signature
from inference.stacked import Stacked

FORM: Final = "instances"
NAMED: Final = 8


class Plan(NamedTuple):
    """Where in a row each input of the model is. One tensor may be made of several columns; `key` is none where rows are numbered."""

    signature: Signature
    places: Mapping[str, tuple[int, ...]]
    tensor: bool
    key: int | None
    textual: bool


class Bad(NamedTuple):
    """Why a row is refused."""

    code: str
    feature: str | None
    reason: str


def plan(
    signature: Signature, names: Sequence[str], key: str | None, features: Sequence[str] | None, *, textual: bool
) -> Plan:
    """Columns that the model does not know are left alone. Raises Failed where one that it needs is missing."""
    for name in (*([key] if key is not None else ()), *(features or ())):
        if name not in names:
            code = "missing_key" if name == key else "missing_feature"
            raise Failed(code, f"The input has no column '{name}': it has {_listed(names)}")
    at = None if key is None else names.index(key)
    inputs = signature.inputs
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and (features or inputs[0].name not in names):
        chosen = features or [name for name in names if name != key]
        width = inputs[0].shape[1]
        if width not in {-1, len(chosen)}:
            raise Failed(
                "missing_feature",
                f"The model takes {width} features without names, and the input has {len(chosen)} columns for them: name those in order",
            )
        places = {inputs[0].name: tuple(names.index(name) for name in chosen)}
        return Plan(signature, places, tensor=True, key=at, textual=textual)
    if features:
        raise Failed("invalid_features", "The model's features have names, so the input's columns are found by them")
    for column in inputs:
        if column.required and column.name not in names:
            raise Failed("missing_feature", f"The input has no column '{column.name}': it has {_listed(names)}")
    known = {column.name: (names.index(column.name),) for column in inputs if column.name in names}
    return Plan(signature, known, tensor=False, key=at, textual=textual)


def read(planned: Plan, rows: Sequence[Sequence[Any]]) -> tuple[Frame | None, dict[int, Bad]]:
    """The frame of all rows that the signature admits, in order, and of the others, by their number, why not."""
    instances = [_instance(planned, row) for row in rows]
    if not instances:
        return None, {}
    try:
        return _frame(planned, instances), {}
    except BadInput:
        pass
    bad = {}
    for number, instance in enumerate(instances):
        try:
            _frame(planned, [instance])
        except BadInput as error:
            feature = _plain(error.param or "")
            bad[number] = Bad(error.code or "invalid_input", feature or None, _plain(error.message))
    good = [instance for number, instance in enumerate(instances) if number not in bad]
    return (_frame(planned, good) if good else None), bad


def part(frame: Frame, first: int, last: int) -> Frame:
    """Some of its rows."""
    columns = frame.columns
    if isinstance(columns, Stacked):
        return Frame(Stacked(columns.names, columns.matrix[first:last]), last - first)
    return Frame({name: np.asarray(array[first:last]) for name, array in columns.items()}, last - first)


def _frame(planned: Plan, instances: Sequence[Mapping[str, Any]]) -> Frame:
    return read_body(planned.signature, {FORM: list(instances)}, len(instances))


def _instance(planned: Plan, row: Sequence[Any]) -> dict[str, Any]:
    made = {}
    for column in planned.signature.inputs:
        places = planned.places.get(column.name)
        if places is None:
            continue
        values = [_value(planned, column, row[index]) for index in places]
        made[column.name] = values if planned.tensor or _wrapped(column, values[0]) else values[0]
    return made


def _wrapped(column: Column, value: Any) -> bool:
    """A graph's named columns often are matrices of one column; a table has plain values for them."""
    return column.shape[1:] == (1,) and not isinstance(value, list)


def _value(planned: Plan, column: Column, value: Any) -> Any:
    if planned.textual:
        return cell(column, value)
    if isinstance(value, Decimal):  # as databases and Parquet have exact numbers
        whole = not column.datatype.startswith("FP") and value == value.to_integral_value()
        return int(value) if whole else float(value)
    return value


def _plain(text: str) -> str:
    """Rows have a key here, not a number in a request."""
    return text.replace(f"{FORM}[0].", "", 1)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
