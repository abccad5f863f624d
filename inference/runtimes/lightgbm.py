"""Models of LightGBM, from its own text: trees and numbers, no code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from inference.errors import ArtefactRefused
from inference.registry.artefacts import verified
from inference.runtimes.arrays import matrix
from inference.runtimes.model import Columns, Description, Hints, Inconvertible, tensor
from inference.runtimes.xgboost import labelled, with_classes
from inference.signature import Column, Signature

_FP64: Final = np.dtype(np.float64)
_TRAILER: Final = b"\npandas_categorical:"


@final
class LightgbmModel:
    """`inference.ports.Runnable`."""

    def __init__(self, booster: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> None:
        self._booster = booster
        self._inputs = inputs
        self._facts = facts

    def run(self, columns: Columns) -> Columns:
        return labelled(np.asarray(self._booster.predict(self._rows(columns), num_threads=1)), self._facts)

    def close(self) -> None:
        self._booster = None

    def _rows(self, columns: Columns) -> Any:
        if not self._facts.get("categorical"):
            return matrix(columns, self._inputs, _FP64)
        import pandas as pd  # noqa: PLC0415 — only for models that were trained on categories of pandas

        return pd.DataFrame(
            {
                each.name: columns[each.name]
                if each.categories is None
                else pd.Categorical(columns[each.name], categories=list(each.categories))
                for each in self._inputs
            }
        )


def open_artefact(data: bytes, *, pinned: bool) -> Any:
    """Raises ArtefactRefused."""
    del pinned
    if not data.startswith(b"tree\n"):
        raise ArtefactRefused(
            "This is no text of LightGBM: save the model with `booster_.save_model('model.txt')`",
            code="pickle_refused" if data[:1] == b"\x80" else "artefact_invalid",
        )
    if b"\nend of trees\n" not in data:
        raise ArtefactRefused("The model is cut off: `end of trees` is missing", code="artefact_invalid")
    import lightgbm  # noqa: PLC0415 — an error here names the extra

    try:
        return lightgbm.Booster(model_str=data.decode("utf-8"))
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise ArtefactRefused(f"LightGBM cannot read the model: {str(error)[:200]}", code="artefact_invalid") from error


def describe(model: Any, hints: Hints) -> Description:
    text = model.model_to_string(num_iteration=1)
    head = dict(line.split("=", 1) for line in text[: text.index("\nTree=")].splitlines() if "=" in line)
    objective = head.get("objective", "").split(" ")[0]
    trailer = text.rpartition(_TRAILER.decode())[2].strip()
    pandas = json.loads(trailer) if trailer and trailer != text.strip() else None
    inputs = hints.inputs or _inputs(list(model.feature_name()), head["feature_infos"].split(" "), pandas or [])
    facts = {
        "estimator": "Booster",
        "objective": objective,
        "categorical": bool(pandas),
        **_task(objective, int(head.get("num_class", 1))),
    }
    return Description(inputs, with_classes(facts, hints), nullable=True)


def convert(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> list[bytes]:
    """Raises Inconvertible."""
    if facts.get("categorical"):
        raise Inconvertible("splits by category of pandas have no operator in ONNX")
    from onnxmltools import convert_lightgbm  # noqa: PLC0415 — seconds, for a registration alone
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415 — as above

    features = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) > 1 else len(inputs)
    try:
        graph = convert_lightgbm(model, initial_types=[("X", FloatTensorType([None, features]))], zipmap=False)
    except Exception as error:  # converters raise whatever their library does
        raise Inconvertible(f"{type(error).__name__}: {str(error)[:200]}") from error
    return [graph.SerializeToString()]


def runnable(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> LightgbmModel:
    return LightgbmModel(model, inputs, facts)


def restore(path: Path, digest: str, signature: Signature, facts: Mapping[str, Any]) -> LightgbmModel:
    return LightgbmModel(open_artefact(verified(path, digest), pinned=False), signature.inputs, facts)


def _inputs(names: list[str], infos: list[str], pandas: Sequence[Sequence[Any]]) -> tuple[Column, ...]:
    """LightGBM keeps the range of each feature in its training data, and pandas' categories in the order of their columns."""
    if names == [f"Column_{number}" for number in range(len(names))]:
        return tensor(len(names), nullable=True)
    categories, made = iter(pandas), []
    for name, info in zip(names, infos, strict=True):
        if info.startswith("["):
            low, high = (float(part) for part in info[1:-1].split(":"))
            made.append(Column(name, "FP64", nullable=True, minimum=low, maximum=high))
        elif pandas and info != "none":
            values = tuple(str(value) for value in next(categories, ()))
            made.append(Column(name, "BYTES", nullable=True, categories=values))
        else:
            made.append(Column(name, "FP64", nullable=True))
    return tuple(made)


def _task(objective: str, classes: int) -> dict[str, Any]:
    if objective == "binary":
        return {"task": "classification", "classes": [0, 1]}
    if objective in {"multiclass", "multiclassova"}:
        return {"task": "classification", "classes": list(range(classes))}
    return {"task": "regression", "classes": None}
