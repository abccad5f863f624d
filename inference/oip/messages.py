"""The protocol's JSON and its binary extension: a request's body apart into tensors, an answer's outputs put together.

The length of the JSON in a body with binary data stands in `inference-header-content-length`; without it the JSON ends where its
first brace is closed, which is how a client that leaves the header out is understood.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.oip.tensors import Tensor, raw_of, values_of
from inference.serving.errors import BadInput
from inference.signature import Column

LENGTH_HEADER: Final = b"inference-header-content-length"
MOST_DEPTH: Final = 64
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)

Parameters = dict[str, Any]


class AskedInput(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: Parameters = {}


class AskedOutput(msgspec.Struct):
    name: str
    parameters: Parameters = {}


class Asked(msgspec.Struct):
    """One inference request."""

    inputs: list[AskedInput]
    id: str | None = None
    outputs: list[AskedOutput] | None = None
    parameters: Parameters = {}


_decoder = msgspec.json.Decoder(Asked)


def read(body: bytes, length: bytes | None) -> tuple[Asked, list[Tensor]]:
    """`length`: the header's value. Raises BadInput."""
    head, binary = _apart(body, length)
    try:
        asked = _decoder.decode(head)
    except RecursionError:
        raise BadInput("The request is nested too deeply", code="invalid_json") from None
    except msgspec.ValidationError as error:
        why, _, path = str(error).partition(" - at `")
        place = path.rstrip("`").removeprefix("$.") or None
        raise BadInput(
            f"Invalid request: {why}{f' at {place}' if place else ''}", param=place, code="invalid_type"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The request is not JSON: {error}", code="invalid_json") from None
    tensors, first = [], 0
    for number, one in enumerate(asked.inputs):
        place = f"inputs[{number}]"
        size = _size(one, place)
        if size is None:
            values = None if one.data is None else _flat(one.data, place)
            tensors.append(Tensor(one.name, one.datatype, one.shape, place, values))
            continue
        if one.data is not None:
            raise BadInput(f"Invalid '{place}': data in JSON and binary at once", param=place, code="invalid_type")
        if first + size > len(binary):
            raise BadInput(
                f"Invalid '{place}': {size} binary bytes are announced, {len(binary) - first} came",
                param=place,
                code="invalid_shape",
            )
        tensors.append(Tensor(one.name, one.datatype, one.shape, place, None, binary[first : first + size]))
        first += size
    if first != len(binary):
        raise BadInput(f"{len(binary) - first} binary bytes belong to no input", code="invalid_shape")
    return asked, tensors


def wanted(asked: Asked, columns: Sequence[Column]) -> list[tuple[Column, bool]]:
    """The outputs that are asked for, in that order, and whether each travels in binary. Raises BadInput."""
    binary = _flag(asked.parameters, "binary_data_output", "parameters")
    if asked.outputs is None or not asked.outputs:
        return [(column, binary) for column in columns]
    known = {column.name: column for column in columns}
    made = []
    for number, one in enumerate(asked.outputs):
        place = f"outputs[{number}]"
        if one.name not in known:
            why = f"unexpected output '{one.name[:80]}': the model has {', '.join(known)}"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="unknown_output")
        if one.parameters.get("classification"):
            raise BadInput(
                f"Invalid '{place}': the classification extension is not served", param=place, code="unsupported"
            )
        given = "binary_data" in one.parameters
        made.append((known[one.name], _flag(one.parameters, "binary_data", place) if given else binary))
    return made


def answer(fields: Mapping[str, Any], outputs: Sequence[tuple[Column, NDArray[Any], bool]]) -> tuple[bytes, int | None]:
    """A body, and the length of its JSON if binary data follows it."""
    told: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for column, array, binary in outputs:
        one: dict[str, Any] = {"name": column.name, "datatype": column.datatype, "shape": list(array.shape)}
        if binary:
            raw = raw_of(array, column.datatype)
            one["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            one["data"] = values_of(array)
        told.append(one)
    head = msgspec.json.encode({**fields, "outputs": told})
    return (head, None) if not parts else (b"".join((head, *parts)), len(head))


def _apart(body: bytes, length: bytes | None) -> tuple[bytes | memoryview, memoryview]:
    if length is not None:
        text = length.strip()
        if not text.isdigit() or int(text) > len(body):
            name = LENGTH_HEADER.decode()
            raise BadInput(f"Invalid '{name}': the body has {len(body)} bytes", param=name, code="invalid_shape")
        end = int(text)
    else:
        end = len(body) if body.rstrip()[-1:] == b"}" and b"binary_data_size" not in body else _json_end(body)
    return memoryview(body)[:end], memoryview(body)[end:]


def _json_end(body: bytes) -> int:
    """Behind the brace that closes the first one."""
    depth = 0
    for token in _TOKENS.finditer(body):
        if token[0] == b"{":
            depth += 1
            if depth > MOST_DEPTH:
                raise BadInput("The request is nested too deeply", code="invalid_json")
        elif token[0] == b"}":
            depth -= 1
            if depth <= 0:
                return token.end()
    return len(body)


def _size(one: AskedInput, place: str) -> int | None:
    size = one.parameters.get("binary_data_size")
    if size is None:
        if "shared_memory_region" in one.parameters:
            raise BadInput(f"Invalid '{place}': shared memory is not served", param=place, code="unsupported")
        return None
    if type(size) is not int or size < 0:
        raise BadInput(f"Invalid '{place}.parameters.binary_data_size'", param=place, code="invalid_type")
    return size


def _flat(data: list[Any], place: str) -> list[Any]:
    """Values in row-major order, however deep the client nests them."""
    depth = 0
    while any(isinstance(value, list) for value in data):
        depth += 1
        if depth > MOST_DEPTH:
            raise BadInput(f"Invalid '{place}.data': nested too deeply", param=f"{place}.data", code="invalid_shape")
        if not all(isinstance(value, list) for value in data):
            why = "lists and values side by side"
            raise BadInput(f"Invalid '{place}.data': {why}", param=f"{place}.data", code="invalid_shape")
        if len({len(value) for value in data}) > 1:
            why = "lists of different lengths side by side"
            raise BadInput(f"Invalid '{place}.data': {why}", param=f"{place}.data", code="invalid_shape")
        data = [value for inner in data for value in inner]
    return data


def _flag(parameters: Parameters, name: str, place: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"Invalid '{place}.{name}': true or false", param=f"{place}.{name}", code="invalid_type")
    return value


def selected(
    outputs: Mapping[str, NDArray[Any]], wanted: Sequence[tuple[Column, bool]]
) -> list[tuple[Column, NDArray[Any], bool]]:
    """What the model gave of what was asked for."""
    return [(column, np.asarray(outputs[column.name]), binary) for column, binary in wanted if column.name in outputs]
