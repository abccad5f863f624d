"""Between the protocol's names of types and NumPy's, and between named columns and the one matrix that most models want."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from inference.errors import BadRequest
from inference.signature import Column, DataType
from inference.stacked import Stacked

# Text is held as an array of `str` objects: fixed-width arrays would cut or pad it.
DTYPES: Final[Mapping[DataType, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


def datatype(dtype: np.dtype[Any]) -> DataType:
    """`BYTES` for what is no number."""
    return _NAMES.get(dtype, "BYTES")


def column_of(name: str, array: NDArray[Any]) -> Column:
    """What an array of rows looks like from outside."""
    return Column(name, datatype(array.dtype), (-1, *(int(size) for size in array.shape[1:])))


def matrix(columns: Mapping[str, NDArray[Any]], wanted: Sequence[Column], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Columns side by side, in the order of the signature: (rows, features). A single tensor is taken as it is."""
    if type(columns) is Stacked:
        return np.ascontiguousarray(columns.matrix, dtype)
    if len(wanted) == 1 and len(wanted[0].shape) > 1:
        return np.ascontiguousarray(columns[wanted[0].name], dtype)
    return np.column_stack([columns[each.name].reshape(len(columns[each.name]), -1).astype(dtype) for each in wanted])


def require(columns: Mapping[str, NDArray[Any]], wanted: Sequence[Column]) -> None:
    """What a caller of a model has checked in detail; here only that nothing is missing. Raises BadRequest."""
    for each in wanted:
        if each.name not in columns:
            raise BadRequest(f"The input '{each.name}' is missing", param=each.name, code="missing_required_parameter")


def texts(array: NDArray[Any]) -> NDArray[Any]:
    """An array of text in the one form that is used here."""
    if array.dtype.kind in "US":
        decoded = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.ravel()]
        return cast("NDArray[Any]", np.array(decoded, np.object_).reshape(array.shape))
    return array
