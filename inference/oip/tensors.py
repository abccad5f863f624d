"""Tensors of the protocol and arrays: JSON values, raw little-endian bytes, texts behind their lengths.

Raises BadInput whose `param` names the place; what a tensor may be, the model's signature says.
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.errors import TooLarge
from inference.serving.errors import BadInput
from inference.serving.frame import Frame
from inference.serving.values import DTYPES, At, checked, fits, scalars
from inference.signature import Column, Signature

MOST_DIMENSIONS: Final = 16
_LENGTH: Final = struct.Struct("<I")


class Tensor(NamedTuple):
    """`raw` bytes, or `values` in row-major order. `place` is how the client would find it."""

    name: str
    datatype: str
    shape: Sequence[int]
    place: str
    values: Sequence[Any] | None = None
    raw: bytes | memoryview | None = None


def frame_of(signature: Signature, tensors: Sequence[Tensor], most_rows: int) -> Frame:
    """What a model with this signature takes. Raises BadInput, TooLarge."""
    columns = {column.name: column for column in signature.inputs}
    made: dict[str, NDArray[Any]] = {}
    rows = -1
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None:
            known = ", ".join(list(columns)[:8]) + (" …" if len(columns) > 8 else "")
            raise _bad(tensor, f"unexpected input '{tensor.name[:80]}': the model has {known}", "unknown_feature")
        if tensor.name in made:
            raise _bad(tensor, f"the input '{tensor.name}' comes twice", "duplicate_feature")
        array = _array(column, tensor)
        if rows >= 0 and len(array) != rows:
            raise _bad(tensor, f"'{tensor.name}' has {len(array)} rows, other inputs {rows}", "row_count_mismatch")
        rows = len(array)
        if rows > most_rows:
            raise TooLarge(f"{rows} rows in one request; at most {most_rows} are taken", code="too_many_rows")
        made[tensor.name] = array
    missing = [column for column in signature.inputs if column.required and column.name not in made]
    if missing:
        one = missing[0]
        raise BadInput(
            f"Missing input '{one.name}' ({one.datatype})", param=f"inputs.{one.name}", code="missing_feature"
        )
    if rows <= 0:
        raise BadInput("There is no row to predict for", param="inputs", code="no_rows")
    return Frame(made, rows)


def raw_of(array: NDArray[Any], datatype: str) -> bytes:
    """As it travels in binary."""
    if datatype != "BYTES":
        return array.astype(np.dtype(DTYPES[datatype]).newbyteorder("<"), copy=False).tobytes()  # type: ignore[index]  # a column's
    parts = []
    for value in array.reshape(-1).tolist():
        text = _bytes(value)
        parts += [_LENGTH.pack(len(text)), text]
    return b"".join(parts)


def values_of(array: NDArray[Any]) -> list[Any]:
    """As it travels in JSON: in row-major order, flat."""
    made = array.reshape(-1).tolist()
    return [_plain(value) for value in made] if array.dtype.kind == "O" else made


def texts_of(raw: bytes | memoryview, place: str) -> list[str]:
    """Texts, each behind its length in four bytes."""
    data, first, texts = memoryview(raw), 0, []
    while first < len(data):
        if first + 4 > len(data):
            raise BadInput(f"Invalid '{place}': a length is cut off", param=place, code="invalid_shape")
        (size,) = _LENGTH.unpack_from(data, first)
        first += 4
        if first + size > len(data):
            raise BadInput(f"Invalid '{place}': a text is cut off", param=place, code="invalid_shape")
        texts.append(text_of(bytes(data[first : first + size]), place))
        first += size
    return texts


def text_of(data: bytes, place: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"Invalid '{place}': a text is not UTF-8", param=place, code="invalid_type") from None


def _array(column: Column, tensor: Tensor) -> NDArray[Any]:
    if tensor.datatype != column.datatype:
        why = f"the model takes {column.datatype} for '{column.name}', not {str(tensor.datatype)[:40]}"
        raise _bad(tensor, why, "invalid_type", ".datatype")
    shape = tensor.shape
    if len(shape) > MOST_DIMENSIONS or any(type(size) is not int or not 0 <= size < 1 << 40 for size in shape):
        raise _bad(tensor, "expected lengths of dimensions", "invalid_shape", ".shape")
    if not fits(column, shape):
        why = f"the model takes the shape {list(column.shape)} for '{column.name}', not {list(shape)}"
        raise _bad(tensor, why, "invalid_shape", ".shape")
    count = prod(shape)
    array = _read(column, tensor, count)
    if array.size != count:
        why = f"{array.size} values, but the shape {list(shape)} has {count}"
        raise _bad(tensor, why, "invalid_shape", ".data")
    return array.reshape(shape if len(column.shape) > 1 else shape[:1])


def _read(column: Column, tensor: Tensor, count: int) -> NDArray[Any]:
    at = _at(f"{tensor.place}.data")
    if tensor.raw is None:
        if tensor.values is None:
            raise _bad(tensor, f"the input '{tensor.name}' has no data", "invalid_shape", ".data")
        return scalars(column, tensor.values, at)
    if column.datatype == "BYTES":
        return scalars(column, texts_of(tensor.raw, f"{tensor.place}.data"), at)
    dtype = np.dtype(DTYPES[column.datatype]).newbyteorder("<")
    if len(tensor.raw) != count * dtype.itemsize:
        why = f"{len(tensor.raw)} bytes, but {count} values of {column.datatype} take {count * dtype.itemsize}"
        raise _bad(tensor, why, "invalid_shape", ".data")
    array: NDArray[Any] = np.frombuffer(tensor.raw, np.uint8 if column.datatype == "BOOL" else dtype)
    if column.datatype == "BOOL":
        if array.size and int(array.max()) > 1:
            raise _bad(tensor, "a BOOL is 0 or 1", "out_of_range", ".data")
        array = array.astype(bool)
    return checked(column, array.astype(DTYPES[column.datatype], copy=False), at)


def _bad(tensor: Tensor, why: str, code: str, part: str = "") -> BadInput:
    place = f"{tensor.place}{part}"
    return BadInput(f"Invalid '{place}': {why}", param=place, code=code)


def _at(place: str) -> At:
    return lambda number: f"{place}[{number}]"


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
