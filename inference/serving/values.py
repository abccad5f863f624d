"""A client's values as an array of the signature's type: exactly, or refused with the place of the first that does not fit.

Codes of refusals: invalid_type, null_not_allowed, not_finite, out_of_range, unknown_category, invalid_shape.
"""

from collections.abc import Callable, Sequence
from math import inf, isfinite, isnan, nan
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.serving.errors import BadInput
from inference.signature import Column, DataType

DTYPES: Final = MappingProxyType[DataType, str](
    {
        "BOOL": "bool",
        "UINT8": "uint8",
        "UINT16": "uint16",
        "UINT32": "uint32",
        "UINT64": "uint64",
        "INT8": "int8",
        "INT16": "int16",
        "INT32": "int32",
        "INT64": "int64",
        "FP16": "float16",
        "FP32": "float32",
        "FP64": "float64",
        "BYTES": "object",  # of str
    }
)
SHOWN: Final = 40  # characters of a value in a message
NAMED: Final = 8  # categories in a message

At = Callable[[int], str]
"""The place of a value by its number, as the client wrote it: `instances[3].age`."""


def scalars(column: Column, values: Sequence[Any], at: At) -> NDArray[Any]:
    """`values` in a row. Raises BadInput."""
    match column.datatype:
        case "FP16" | "FP32" | "FP64":
            return _floats(column, values, at)
        case "BOOL":
            return _each(column, values, at, _boolean)
        case "BYTES":
            return _each(column, values, at, _text)
        case _:
            return _each(column, values, at, _integer)


def tensor(column: Column, values: Sequence[Any], at: At) -> NDArray[Any]:
    """`values` has one element for each row, nested as deep as the column's shape says. Raises BadInput."""
    if len(column.shape) == 1:
        return scalars(column, values, at)
    flat: list[Any] = []
    places: list[str] = []
    inner: list[int | None] = [None if size < 0 else size for size in column.shape[1:]]
    for row, value in enumerate(values):
        _flatten(column, value, inner, 0, at(row), flat, places)
    shape = (len(values), *(size or 0 for size in inner))
    return scalars(column, flat, places.__getitem__).reshape(shape)


def checked(column: Column, array: NDArray[Any], at: At) -> NDArray[Any]:
    """The same rules for an array that came as one. Raises BadInput."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            for number in np.flatnonzero(~finite.reshape(-1)).tolist():
                value = float(array.reshape(-1)[number])
                if not (isnan(value) and column.nullable):
                    raise _not_finite(column, value, at(number))
    elif column.categories is not None and array.dtype.kind == "O":
        allowed = column.categories
        for number, value in enumerate(array.reshape(-1).tolist()):
            if value not in allowed:
                raise refused(at(number), _unknown(column, value), "unknown_category")
    return array


def fits(column: Column, shape: Sequence[int]) -> bool:
    """Whether a batch of this shape is one of the column's. A row's single value may stand in a list of its own."""
    wanted = column.shape
    if len(wanted) == 1 and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    return len(shape) == len(wanted) and all(want < 0 or want == size for want, size in zip(wanted, shape, strict=True))


def refused(place: str, why: str, code: str) -> BadInput:
    return BadInput(f"Invalid '{place}': {why}", param=place, code=code)


def _floats(column: Column, values: Sequence[Any], at: At) -> NDArray[Any]:
    if {float, int}.issuperset(map(type, values)):
        try:
            array = np.array(values, np.float64)
        except OverflowError:
            return _each(column, values, at, _number)
        if column.datatype != "FP64":
            with np.errstate(over="ignore"):
                array = array.astype(DTYPES[column.datatype])
        if np.isfinite(array).all():
            return array
    return _each(column, values, at, _number)


def _each(column: Column, values: Sequence[Any], at: At, read: Callable[[Column, Any], Any]) -> NDArray[Any]:
    """One after the other: where the place matters."""
    made = []
    for number, value in enumerate(values):
        try:
            made.append(_missing(column) if value is None else read(column, value))
        except _Misfit as misfit:
            raise refused(at(number), misfit.why, misfit.code) from None
    dtype = DTYPES[column.datatype]
    return np.array(made, dtype=dtype) if dtype != "object" else _objects(made)


class _Misfit(Exception):
    def __init__(self, why: str, code: str) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _missing(column: Column) -> Any:
    if not column.nullable:
        raise _Misfit(f"{column.name} must not be null", "null_not_allowed")
    if column.datatype in {"FP16", "FP32", "FP64"}:
        return nan
    if column.datatype == "BYTES":
        return None
    raise _Misfit(f"{column.datatype} has no value for null", "null_not_allowed")


def _number(column: Column, value: Any) -> float:
    if type(value) not in {float, int}:
        raise _Misfit(f"expected a number, not {_shown(value)}", "invalid_type")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if isnan(number) and column.nullable:
        return number
    if not isfinite(number):
        raise _Misfit(f"{_shown(value)} is not a finite number", "not_finite")
    if abs(number) > float(np.finfo(DTYPES[column.datatype]).max):
        raise _Misfit(f"{_shown(value)} is too large for {column.datatype}", "out_of_range")
    return number


def _integer(column: Column, value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise _Misfit(f"expected a whole number, not {_shown(value)}", "invalid_type")
    bounds = np.iinfo(DTYPES[column.datatype])
    if not bounds.min <= value <= bounds.max:
        why = f"{_shown(value)} is not between {bounds.min} and {bounds.max} ({column.datatype})"
        raise _Misfit(why, "out_of_range")
    return int(value)


def _boolean(_: Column, value: Any) -> bool:
    if type(value) is not bool:
        raise _Misfit(f"expected true or false, not {_shown(value)}", "invalid_type")
    return value


def _text(column: Column, value: Any) -> str:
    if type(value) is not str:
        raise _Misfit(f"expected a text, not {_shown(value)}", "invalid_type")
    if column.categories is not None and value not in column.categories:
        raise _Misfit(_unknown(column, value), "unknown_category")
    return value


def _unknown(column: Column, value: Any) -> str:
    categories = column.categories or ()
    known = ", ".join(repr(one) for one in categories[:NAMED])
    more = f" and {len(categories) - NAMED} more" if len(categories) > NAMED else ""
    return f"{_shown(value)} is none of {known}{more}"


def _not_finite(column: Column, value: float, place: str) -> BadInput:
    if isnan(value):
        return refused(place, f"{column.name} must not be NaN", "null_not_allowed")
    return refused(place, f"{value} is not a finite number", "not_finite")


def _flatten(
    column: Column, value: Any, inner: list[int | None], depth: int, place: str, flat: list[Any], places: list[str]
) -> None:
    """Appends the elements below `value`. `inner` learns lengths that the signature leaves open from the first row."""
    if depth == len(inner):
        if isinstance(value, list):
            raise refused(place, f"expected one value, not a list: {_wanted(column)}", "invalid_shape")
        flat.append(value)
        places.append(place)
        return
    if not isinstance(value, list):
        raise refused(place, f"expected a list: {_wanted(column)}", "invalid_shape")
    size = inner[depth]
    if size is None:
        inner[depth] = size = len(value)
    if len(value) != size:
        raise refused(place, f"expected {size} elements, not {len(value)}", "invalid_shape")
    for number, element in enumerate(value):
        _flatten(column, element, inner, depth + 1, f"{place}[{number}]", flat, places)


def _wanted(column: Column) -> str:
    return f"a row of {column.name} has the shape {list(column.shape[1:])}"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
