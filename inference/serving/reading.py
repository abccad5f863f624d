"""What clients write, as the rows of a frame: records, lists in the signature's order, columns, a data frame's split, CSV.

Every refusal names the field as the client wrote it: `instances[3].age`, `dataframe_split.data[0][2]`.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.errors import TooLarge
from inference.serving.errors import BadInput
from inference.serving.frame import Frame
from inference.serving.quick import MOST_FEATURES, Quick
from inference.serving.values import DTYPES, At, scalars, tensor
from inference.signature import Column, Signature
from inference.stacked import Stacked

FORMS: Final = ("instances", "inputs", "dataframe_split", "dataframe_records")
EMPTY: Final = ("", "NA", "NaN", "nan", "null", "NULL")  # of a CSV's cell: a missing value
NAMED: Final = 8

_NUMBERS: Final = frozenset({float, int})

Body = Mapping[str, Any]


def read_body(signature: Signature, body: Body, most_rows: int) -> Frame:
    """The one of FORMS that the body has. Raises BadInput, TooLarge."""
    given = [form for form in FORMS if form in body]
    if len(given) != 1:
        found = f"; it has {' and '.join(given)}" if given else ""
        raise BadInput(f"Expected exactly one of {', '.join(FORMS)}{found}", param="instances", code="invalid_body")
    form = given[0]
    value = body[form]
    match form:
        case "dataframe_split":
            return _split(signature, value, most_rows)
        case "inputs" if isinstance(value, dict):
            return _columns(signature, value, form, most_rows)
        case _:
            return _rows(signature, value, form, most_rows)


def read_csv(signature: Signature, body: bytes, most_rows: int) -> Frame:
    """The first line has the names. A cell of a number is read as one, an empty one is a missing value. Raises BadInput."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"The body is not CSV in UTF-8: {error}", code="invalid_csv") from None
    lines = [line for line in lines if line]
    if not lines:
        raise BadInput("The body has no line with the names of the columns", code="invalid_csv")
    names, rows = lines[0], lines[1:]
    _bounded(len(rows), most_rows)
    _named(signature, names, "csv")
    wide = [column.name for column in signature.inputs if len(column.shape) > 1]
    if wide:
        raise BadInput(f"CSV has no place for tensors ({wide[0]}); use JSON", param=wide[0], code="invalid_shape")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            place = f"csv[{number}]"
            raise BadInput(f"Invalid '{place}': {len(row)} cells, not {len(names)}", param=place, code="invalid_shape")
    made = {}
    for column in signature.inputs:
        if column.name in names:
            index = names.index(column.name)
            at = _at("csv[%d].{}", column.name)
            made[column.name] = scalars(column, [cell(column, row[index]) for row in rows], at)
    return _frame(signature, made, len(rows), "csv")


def _rows(signature: Signature, value: Any, form: str, most_rows: int) -> Frame:
    """Records, lists of values in order, or, where a model has one input, its values themselves."""
    if not isinstance(value, list):
        raise BadInput(f"Invalid '{form}': expected a list of rows", param=form, code="invalid_type")
    _bounded(len(value), most_rows)
    if all(isinstance(row, dict) for row in value):
        return _records(signature, value, form)
    columns = signature.inputs
    if len(columns) == 1 and not _wrapped(columns[0], value):
        at = _at(f"{form}[%d]", "")
        return _frame(signature, {columns[0].name: tensor(columns[0], value, at)}, len(value), form)
    for number, row in enumerate(value):
        place = f"{form}[{number}]"
        if not isinstance(row, list):
            why = "expected an object or a list of values in the signature's order"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="invalid_type")
        if len(row) != len(columns):
            why = f"{len(row)} values, but the model has {len(columns)} features"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="invalid_shape")
    numeric = _numeric(signature)
    if numeric is not None and (quick := _matrix(numeric, value)) is not None:
        return Frame(quick, len(value))
    made = {
        column.name: tensor(column, [row[index] for row in value], _at(f"{form}[%d][{index}]", ""))
        for index, column in enumerate(columns)
    }
    return _frame(signature, made, len(value), form)


def _records(signature: Signature, rows: Sequence[Mapping[str, Any]], form: str) -> Frame:
    columns = signature.inputs
    width = len(columns)
    numeric = _numeric(signature)
    if numeric is not None:
        try:
            plain = [numeric.values(row) for row in rows if len(row) == width]
        except KeyError:
            plain = []
        if len(plain) == len(rows) and (quick := _matrix(numeric, plain)) is not None:
            return Frame(quick, len(rows))
    for number, row in enumerate(rows):
        if len(row) != width or any(column.name not in row for column in columns):
            _named(signature, tuple(row), f"{form}[{number}]")
    made = {}
    for column in columns:
        given = [column.name in row for row in rows]
        if not all(given):  # an optional one is there in every row or in none, unless it may be missing
            if not any(given) and rows:
                continue
            if not column.nullable:
                place = f"{form}[{given.index(False)}].{column.name}"
                raise BadInput(f"Missing '{place}': other rows have it", param=place, code="missing_feature")
        values = [row.get(column.name) for row in rows]
        made[column.name] = tensor(column, values, _at(f"{form}[%d].{{}}", column.name))
    return _frame(signature, made, len(rows), form)


def quick_of(signature: Signature) -> Quick | None:
    """None: its bodies take the way of all."""
    numeric = _numeric(signature)
    return None if numeric is None else numeric.quick


class _Numeric(NamedTuple):
    """Of a signature that is nothing but numbers of one type. `values`: a record's, in order, as a tuple."""

    names: tuple[str, ...]
    dtype: Any
    most: float
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    quick: Quick | None


def _numeric(signature: Signature) -> _Numeric | None:
    """Made once for each signature: to look at thirty columns again for every call costs as much as to read its row."""
    try:
        found = signature.learnt
    except AttributeError:
        found = _numeric_of(signature.inputs)
        object.__setattr__(signature, "learnt", found)
    assert found is None or isinstance(found, _Numeric)
    return found


def _numeric_of(columns: Sequence[Column]) -> _Numeric | None:
    kinds = {(column.datatype, len(column.shape)) for column in columns}
    if len(kinds) != 1 or not kinds <= {("FP32", 1), ("FP64", 1)}:
        return None
    names = tuple([column.name for column in columns])
    getter = itemgetter(*names)
    dtype = np.dtype(DTYPES[columns[0].datatype])
    values = getter if len(names) > 1 else lambda row: (getter(row),)
    return _Numeric(names, dtype, float(np.finfo(dtype).max), values, _quick(names, dtype))


def _quick(names: tuple[str, ...], dtype: Any) -> Quick | None:
    try:
        return Quick(names, dtype) if len(names) <= MOST_FEATURES else None
    except ValueError:
        return None


def _matrix(numeric: _Numeric, rows: Sequence[Sequence[Any]]) -> Stacked | None:
    """The quick way of most models. None: take the one that names what is wrong."""
    for row in rows:
        if not _NUMBERS.issuperset(map(type, row)):
            return None
    try:
        made = np.array(rows, np.float64)
    except OverflowError:
        return None
    if not rows or not np.abs(made).max() <= numeric.most:  # nor is what is no number
        return None
    return Stacked(numeric.names, made.astype(numeric.dtype, copy=False), made.tolist())


def _columns(signature: Signature, value: Mapping[str, Any], form: str, most_rows: int) -> Frame:
    _named(signature, tuple(value), form)
    made, rows = {}, -1
    for column in signature.inputs:
        if column.name not in value:
            continue
        values, place = value[column.name], f"{form}.{column.name}"
        if not isinstance(values, list):
            raise BadInput(f"Invalid '{place}': expected a list, one value per row", param=place, code="invalid_type")
        if rows >= 0 and len(values) != rows:
            raise BadInput(
                f"Invalid '{place}': {len(values)} rows, but other columns have {rows}",
                param=place,
                code="row_count_mismatch",
            )
        rows = len(values)
        _bounded(rows, most_rows)
        made[column.name] = tensor(column, values, _at(f"{form}.{{}}[%d]", column.name))
    return _frame(signature, made, max(rows, 0), form)


def _split(signature: Signature, value: Any, most_rows: int) -> Frame:
    """`{"columns": […], "data": [[…], …], "index"?: […]}`."""
    form = "dataframe_split"
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise BadInput(f"Invalid '{form}': expected columns and data", param=form, code="invalid_type")
    if (more := set(value) - {"columns", "data", "index"}) != set():
        raise BadInput(f"Unknown '{form}.{min(more)}'", param=f"{form}.{min(more)}", code="unknown_field")
    data = value["data"]
    _bounded(len(data), most_rows)
    names = value.get("columns", [column.name for column in signature.inputs])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"Invalid '{form}.columns': expected names", param=f"{form}.columns", code="invalid_type")
    _named(signature, names, f"{form}.columns")
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            place = f"{form}.data[{number}]"
            raise BadInput(f"Invalid '{place}': expected {len(names)} values", param=place, code="invalid_shape")
    made = {}
    for column in signature.inputs:
        if column.name in names:
            index = names.index(column.name)
            at = _at(f"{form}.data[%d][{index}]", "")
            made[column.name] = tensor(column, [row[index] for row in data], at)
    return _frame(signature, made, len(data), form)


def _named(signature: Signature, names: Sequence[str], place: str) -> None:
    """Refuses names that the model does not have, that come twice, and the lack of those that it needs."""
    known = [column.name for column in signature.inputs]
    dot = f"{place}." if place else ""
    for index, name in enumerate(names):
        if name not in known:
            raise BadInput(
                f"Unknown feature '{_short(name)}': the model has {_listed(known)}",
                param=f"{dot}{_short(name)}",
                code="unknown_feature",
            )
        if name in names[:index]:
            raise BadInput(f"The feature '{name}' comes twice", param=f"{dot}{name}", code="duplicate_feature")
    for column in signature.inputs:
        if column.required and column.name not in names:
            raise BadInput(
                f"Missing feature '{column.name}' ({column.datatype})",
                param=f"{dot}{column.name}",
                code="missing_feature",
            )


def _frame(signature: Signature, columns: dict[str, NDArray[Any]], rows: int, form: str) -> Frame:
    if not rows:
        raise BadInput(f"Invalid '{form}': there is no row to predict for", param=form, code="no_rows")
    missing = next((one.name for one in signature.inputs if one.required and one.name not in columns), None)
    if missing is not None:
        raise BadInput(f"Missing feature '{missing}'", param=f"{form}.{missing}", code="missing_feature")
    return Frame(columns, rows)


def _bounded(rows: int, most: int) -> None:
    if rows > most:
        raise TooLarge(f"{rows} rows in one request; at most {most} are taken, so ask in parts", code="too_many_rows")


def _wrapped(column: Column, rows: Sequence[Any]) -> bool:
    """Whether a model's only value stands in a list of its own, as a row of several would."""
    deep, row = len(column.shape) - 1, rows[0] if rows else None
    depth = 0
    while isinstance(row, list):
        depth += 1
        row = row[0] if row else None
    return depth == deep + 1


def cell(column: Column, text: str) -> Any:
    """A CSV's cell in the column's terms; what cannot be read stays text, and is refused as that."""
    if column.datatype == "BYTES":
        return text if text or not column.nullable else None
    if text.strip() in EMPTY:
        return None
    if column.datatype == "BOOL":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), text)
    reader: Callable[[str], float] = float if column.datatype.startswith("FP") else int
    try:
        return reader(text)
    except ValueError:
        return text


def _at(pattern: str, name: str) -> At:
    """The place of the nth value; `name` may hold anything, so it is put in last."""
    return lambda number: (pattern % number).replace("{}", name, 1)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:80]}…"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
