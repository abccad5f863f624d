"""Runnables for tests: ONNX as it is, and small models in Python that do what a bad model does."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from inference.ports import Bundle, Runnable
from inference.stacked import Stacked

Arrays = Mapping[str, NDArray[Any]]


class Onnx:
    """One input of the graph for each column, or one matrix for all of them."""

    steady = True

    def __init__(self, bundle: Bundle) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(bundle.artifact.read_bytes(), options, ["CPUExecutionProvider"])
        self._inputs = [column.name for column in bundle.signature.inputs]
        self._outputs = [column.name for column in bundle.signature.outputs]
        self._graph = [one.name for one in self._session.get_inputs()]

    def run(self, columns: Arrays) -> Arrays:
        feeds: dict[str, NDArray[Any]] = dict(columns)
        if self._graph != self._inputs:
            if isinstance(columns, Stacked):
                return dict(zip(self._outputs, self._session.run(None, {self._graph[0]: columns.matrix}), strict=True))
            feeds = {self._graph[0]: np.column_stack([columns[name] for name in self._inputs]).astype(np.float32)}
        return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))

    def close(self) -> None:
        del self._session


def _raise(x: NDArray[Any]) -> None:
    if (x != 0).any():
        raise ValueError("a number that it cannot bear")


def _hang(x: NDArray[Any]) -> None:
    if (x == 13).any():
        time.sleep(600)


def _die(x: NDArray[Any]) -> None:
    if (x == 13).any():
        os._exit(9)


_BAD: Mapping[str, Callable[[NDArray[Any]], Arrays | None]] = {
    "raise": _raise,
    "hang": _hang,
    "die": _die,
    "short": lambda x: {"y": x[:-1]},
    "wide": lambda x: {"y": np.stack([x, x], axis=1)},
    "nameless": lambda x: {"z": x},
    "text": lambda x: {"y": x.astype(str)},
    "pid": lambda x: {"y": np.full(len(x), os.getpid(), np.float64)},
}


class Python:
    """What the metadata's `does` says: each takes x, FP64, and gives y."""

    def __init__(self, bundle: Bundle) -> None:
        self._does: str = bundle.metadata.get("does", "echo")
        if self._does == "no_load":
            raise RuntimeError("there is nothing in the file")
        time.sleep(bundle.metadata.get("load_s", 0))
        log = bundle.metadata.get("log")
        if log:
            with Path(log).open("a") as file:
                file.write(f"{bundle.version}\n")
        self._big = np.ones(bundle.metadata.get("megabytes", 0) * (1 << 17))
        self._factor = bundle.metadata.get("factor", 1.0)
        self._delay_s = bundle.metadata.get("delay_s", 0.0)

    def run(self, columns: Arrays) -> Arrays:
        x = next(iter(columns.values()))
        bad = _BAD.get(self._does)
        if bad is not None:
            made = bad(x)
            if made is not None:
                return made
        time.sleep(self._delay_s)
        if self._does == "sizes":
            return {"y": np.full(len(x), len(x), np.float64)}
        return {"y": x * self._factor if x.dtype.kind == "f" else x}

    def close(self) -> None:
        self._big = np.ones(0)


def load(bundle: Bundle) -> Runnable:
    return Onnx(bundle) if bundle.artifact.suffix == ".onnx" else Python(bundle)
