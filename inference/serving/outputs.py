"""What a model gave, held against its signature, and put into words for a client."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.ports import Bundle
from inference.serving.errors import InvalidOutput
from inference.serving.values import DTYPES
from inference.signature import Column

PROBABILITIES: Final = frozenset({"probabilities", "probability", "output_probability"})

_DTYPES: Final = MappingProxyType({name: np.dtype(dtype) for name, dtype in DTYPES.items()})

Outputs = Mapping[str, NDArray[Any]]


def kept(bundle: Bundle, outputs: Outputs, rows: int) -> dict[str, NDArray[Any]]:
    """The outputs in the order and the types of the signature. Raises InvalidOutput, which names what is wrong."""
    made = {}
    for column in bundle.signature.outputs:
        array = outputs.get(column.name)
        if array is None:
            if column.required:
                raise _broken(bundle, f"it gave no '{column.name}'")
            continue
        made[column.name] = _fitting(bundle, column, array, rows)
    return made


def words(outputs: Outputs) -> dict[str, Any]:
    """`predictions` and, where there are, `probabilities`: one element per row; several outputs make an object of each row."""
    plain = {name: array for name, array in outputs.items() if name not in PROBABILITIES}
    told: dict[str, Any] = {}
    if len(plain) == 1 or (not plain and outputs):
        told["predictions"] = next(iter((plain or outputs).values())).tolist()
    else:
        names, columns = tuple(plain), [array.tolist() for array in plain.values()]
        told["predictions"] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if plain:
        for name, array in outputs.items():
            if name in PROBABILITIES:
                told["probabilities"] = array.tolist()
    return told


def _fitting(bundle: Bundle, column: Column, array: NDArray[Any], rows: int) -> NDArray[Any]:
    if not array.shape or array.shape[0] != rows:
        raise _broken(bundle, f"'{column.name}' has {array.shape[0] if array.shape else 1} rows for {rows}")
    wanted, shape = column.shape, array.shape
    if len(shape) == 2 and len(wanted) == 1 and shape[1] == 1:
        array = array.reshape(-1)
        shape = array.shape
    if len(shape) != len(wanted) or (
        len(shape) > 1 and any(want not in {-1, size} for want, size in zip(wanted[1:], shape[1:], strict=True))
    ):
        raise _broken(bundle, f"'{column.name}' has the shape {list(shape)}, not {list(wanted)}")
    dtype = _DTYPES[column.datatype]
    if array.dtype is dtype or array.dtype == dtype:
        return array
    if dtype.kind == "O":
        if array.dtype.kind in "US":
            return array.astype(object)
    elif array.dtype.kind in "biuf" and np.can_cast(array.dtype, dtype, "same_kind"):
        return array.astype(dtype)
    raise _broken(bundle, f"'{column.name}' is of the type {array.dtype}, not {column.datatype}")


def _broken(bundle: Bundle, why: str) -> InvalidOutput:
    return InvalidOutput(f"The answer of '{bundle.model}' (version {bundle.version}) breaks its signature: {why}")
