"""Models in ONNX, run by ONNX Runtime in the process that asks: a graph of known operators executes no code of its author."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from inference.errors import ArtefactRefused, BadRequest
from inference.registry.artefacts import verified
from inference.runtimes.arrays import DTYPES, matrix, require, texts
from inference.signature import Column, Signature
from inference.stacked import Stacked

_LOOPS: Final = (b'"\x04Loop', b'"\x04Scan')  # NodeProto.op_type is field 4
_ERRORS_ONLY: Final = 4  # what goes wrong is raised, and its message may quote inputs
_TYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


@final
class OnnxModel:
    """`inference.ports.Runnable`. Outputs have the signature's names, in the graph's order.

    `labels`: of the classes, where the graph only knows their numbers. The graph has one input for each column of the signature, or one
    matrix for all of them.
    """

    def __init__(
        self, data: bytes, signature: Signature, labels: Sequence[Any] | None = None, *, threads: int = 1
    ) -> None:
        self.steady = not any(loop in data for loop in _LOOPS)
        self._session: ort.InferenceSession | None = open_session(data, threads)
        self._signature = signature
        self._labels = None if labels is None else texts(np.asarray(labels))
        inputs = self._session.get_inputs()
        self._types = [(each.name, tensor_type(each.type), len(each.shape)) for each in inputs]
        self._stacked = len(inputs) == 1 and inputs[0].name not in {each.name for each in signature.inputs}
        self._row = _Row.of(self._session, len(signature.inputs)) if self._stacked else None

    def run(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Raises BadRequest for what the graph does not take."""
        if type(columns) is not Stacked:  # which was made of all of them
            require(columns, self._signature.inputs)
        made = self._of_one(columns.matrix) if type(columns) is Stacked and len(columns.matrix) == 1 else None
        if made is None:
            assert self._session is not None
            try:
                made = self._session.run(None, self._feeds(columns))
            except Exception as error:  # ONNX Runtime has no class of errors of its own in Python
                raise BadRequest(f"The model does not take this input: {told(error)}", code="invalid_input") from error
        outputs = {
            column.name: _kept(_array(value), column)
            for column, value in zip(self._signature.outputs, made, strict=False)
        }
        if self._labels is not None and "predictions" in outputs:
            outputs["predictions"] = self._labels[outputs["predictions"]]
        return outputs

    def close(self) -> None:
        self._session = self._row = None

    def _of_one(self, matrix: NDArray[Any]) -> Sequence[NDArray[Any]] | None:
        """None: what comes of a row is not what the graph says of itself, or it is an error that `run` has words for."""
        if self._row is None:
            return None
        try:
            return self._row.run(matrix)
        except Exception:  # noqa: BLE001 — as above
            self._row = None
            return None

    def _feeds(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._stacked:
            name, kind, _ = self._types[0]
            return {name: matrix(columns, self._signature.inputs, DTYPES[kind])}
        return {name: _shaped(columns[name], kind, rank) for name, kind, rank in self._types}


@final
class _Row:
    """Room for one row and for what comes of it, handed to ONNX Runtime once: half of the time of a small graph goes into arrays."""

    def __init__(self, session: ort.InferenceSession, given: NDArray[Any], gives: Sequence[NDArray[Any]]) -> None:
        self._given = given
        self._gives = gives
        self._run = session.run_with_iobinding
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(given))
        for output, array in zip(session.get_outputs(), gives, strict=True):
            self._binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(array))

    @classmethod
    def of(cls, session: ort.InferenceSession, features: int) -> "_Row | None":
        """For a graph with one matrix of numbers, all of whose outputs have sizes that are known but for the rows."""
        kind, room = tensor_type(session.get_inputs()[0].type), []
        for output in session.get_outputs():
            rows, *rest = output.shape or [0]
            if rows == 0 or output.type not in _TYPES or not all(isinstance(size, int) for size in rest):
                return None
            room.append(np.zeros((1, *rest), DTYPES[tensor_type(output.type)]))
        if kind == "BYTES" or any(array.dtype.kind == "O" for array in room):
            return None
        return cls(session, np.zeros((1, features), DTYPES[kind]), room)

    def run(self, matrix: NDArray[Any]) -> Sequence[NDArray[Any]]:
        self._given[...] = matrix
        self._run(self._binding)
        return [array.copy() for array in self._gives]


def restore(path: Path, digest: str, signature: Signature, facts: Mapping[str, Any]) -> OnnxModel:
    """Raises Unavailable for a file that is not the one that was registered."""
    return OnnxModel(verified(path, digest), signature, facts.get("labels"))


def open_session(data: bytes, threads: int = 1) -> ort.InferenceSession:
    """Raises ArtefactRefused."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait must not burn a core
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise ArtefactRefused(
            f"ONNX Runtime does not take this model: {told(error)}", code="artefact_invalid"
        ) from error


def tensor_type(type_: str) -> Any:
    """The protocol's name. Raises ArtefactRefused for sequences, maps and types that it does not have."""
    found = _TYPES.get(type_)
    if found is None:
        raise ArtefactRefused(f"The graph has a tensor of the type {type_}, which the protocol does not know")
    return found


def told(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its place in the source."""
    return str(error).strip().splitlines()[0].rpartition(" : ")[2][:300] if str(error).strip() else type(error).__name__


def _shaped(array: NDArray[Any], kind: Any, rank: int) -> NDArray[Any]:
    made = array.astype(DTYPES[kind], copy=False)
    return made.reshape(len(made), *([1] * (rank - 1))) if made.ndim == 1 and rank > 1 else made


def _array(value: Any) -> NDArray[Any]:
    """Classifiers from scikit-learn's converter give a list of maps from class to probability, unless told otherwise."""
    if isinstance(value, list):
        return _of_maps(value)
    return texts(np.asarray(value))


def _kept(array: NDArray[Any], column: Column) -> NDArray[Any]:
    """Regressors give a matrix of one column where their library gives a row of numbers."""
    return array.reshape(-1) if len(column.shape) == 1 and array.ndim == 2 and array.shape[1] == 1 else array


def _of_maps(rows: Sequence[Any]) -> NDArray[Any]:
    if rows and isinstance(rows[0], Mapping):
        return np.array([list(row.values()) for row in rows], np.float32)
    return texts(np.asarray(rows))
