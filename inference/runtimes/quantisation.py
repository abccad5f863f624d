"""Weights in eight bits: kept only where the answers hold and this machine is faster with them."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.errors import InferenceError
from inference.runtimes.onnx import OnnxModel
from inference.signature import Signature

ROWS: Final = (1, 64)
FASTER: Final = 0.95  # of the time before
_ROUNDS: Final = 9
_CALLS: Final = 20

Outputs = Mapping[str, NDArray[Any]]


def attempt(
    data: bytes, signature: Signature, rows: Outputs, labels: NDArray[Any] | None, allowed: float, folder: Path
) -> tuple[bytes | None, dict[str, Any]]:
    """The smaller graph or None, and what was found. `allowed`: the loss of accuracy, or of agreement where there are no labels."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 — for those who ask for it

    before, after = folder / "float.onnx", folder / "int8.onnx"
    before.write_bytes(data)
    note: dict[str, Any] = {"kept": False, "allowed": allowed}
    try:
        quantize_dynamic(before, after, per_channel=True, weight_type=QuantType.QInt8)
        smaller = after.read_bytes()
        wide, narrow = OnnxModel(data, signature), OnnxModel(smaller, signature)
        note["loss"] = loss = _loss(wide.run(rows), narrow.run(rows), labels)
    except (InferenceError, ValueError, RuntimeError, OSError) as error:
        return None, {**note, "reason": f"{type(error).__name__}: {str(error)[:200]}"}
    if loss > allowed:
        return None, {**note, "reason": f"it loses {loss:.4f}"}
    times = {count: (_time(wide, rows, count), _time(narrow, rows, count)) for count in ROWS}
    note["speedup"] = {str(count): round(wide_s / narrow_s, 2) for count, (wide_s, narrow_s) in times.items()}
    if any(narrow_s > FASTER * wide_s for wide_s, narrow_s in times.values()):
        return None, {**note, "reason": "it is not faster here"}
    return smaller, {**note, "kept": True, "bytes": [len(data), len(smaller)]}


def _loss(wide: Outputs, narrow: Outputs, labels: NDArray[Any] | None) -> float:
    """Of accuracy against labels; else the share of classes that differ, or the root mean square in the output's own spread."""
    name = next(iter(wide))
    one, other = wide[name].reshape(len(wide[name]), -1), narrow[name].reshape(len(narrow[name]), -1)
    if one.dtype.kind != "f":
        if labels is not None:
            truth = labels[: len(one)].astype(one.dtype).reshape(-1, 1)
            return float(np.mean(one == truth) - np.mean(other == truth))
        return float(np.mean(one != other))
    spread = float(np.std(one)) or 1.0
    return float(np.sqrt(np.mean((one - other) ** 2)) / spread)


def _time(model: OnnxModel, rows: Outputs, count: int) -> float:
    """Seconds of a call: the best of some rounds' medians, as a busy machine only makes them longer."""
    some = {name: array[:count] for name, array in rows.items()}
    found = []
    for _ in range(_ROUNDS):
        calls = []
        for _ in range(_CALLS):
            started = time.perf_counter()
            model.run(some)
            calls.append(time.perf_counter() - started)
        found.append(statistics.median(calls))
    return min(found)
