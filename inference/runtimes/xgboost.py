"""Models of XGBoost, from its own JSON or UBJSON: trees and numbers, no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from inference.errors import ArtefactRefused
from inference.registry.artefacts import verified
from inference.runtimes.arrays import matrix, texts
from inference.runtimes.model import Columns, Description, Hints, Inconvertible, named, tensor
from inference.signature import Column, Signature

_FP32: Final = np.dtype(np.float32)
_CATEGORICAL: Final = "c"


@final
class XgboostModel:
    """`inference.ports.Runnable`."""

    def __init__(self, booster: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> None:
        self._booster = booster
        self._inputs = inputs
        self._facts = facts

    def run(self, columns: Columns) -> Columns:
        from xgboost import DMatrix  # noqa: PLC0415 — the module is loaded with the model

        booster = self._booster
        types = booster.feature_types
        rows = DMatrix(
            matrix(columns, self._inputs, _FP32),
            feature_names=booster.feature_names,
            feature_types=types,
            enable_categorical=types is not None and _CATEGORICAL in types,
            nthread=1,
        )
        return labelled(np.asarray(booster.predict(rows)), self._facts)

    def close(self) -> None:
        self._booster = None


def open_artefact(data: bytes, *, pinned: bool) -> Any:
    """Raises ArtefactRefused."""
    del pinned
    if data[:1] != b"{":
        raise ArtefactRefused(
            "This is neither JSON nor UBJSON of XGBoost: save the model with `save_model('model.json')`",
            code="pickle_refused" if data[:1] == b"\x80" else "artefact_invalid",
        )
    import xgboost  # noqa: PLC0415 — an error here names the extra

    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(data))
        booster.num_features()
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise ArtefactRefused(
            f"XGBoost cannot read the model: {str(error).splitlines()[0][:200]}", code="artefact_invalid"
        ) from error
    best = booster.attr("best_iteration")
    # scikit-learn's face of XGBoost answers with the best iteration, not with the last.
    return booster if best is None else booster[: int(best) + 1]


def describe(model: Any, hints: Hints) -> Description:
    learner = json.loads(model.save_config())["learner"]
    objective = learner["objective"]["name"]
    groups = int(learner["learner_model_param"]["num_class"])
    inputs = hints.inputs
    if inputs is None and model.feature_names:
        inputs = named(list(model.feature_names), hints, "FP32", nullable=True)
    if inputs is None:
        inputs = tensor(int(model.num_features()), "FP32", nullable=True)
    facts = {"estimator": "Booster", "objective": objective, **_task(objective, groups)}
    return Description(inputs, with_classes(facts, hints), nullable=True)


def convert(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> list[bytes]:
    """Raises Inconvertible."""
    del inputs, facts
    if model.feature_types is not None and _CATEGORICAL in model.feature_types:
        raise Inconvertible("splits by category have no operator in ONNX")
    from onnxmltools import convert_xgboost  # noqa: PLC0415 — seconds, for a registration alone
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415 — as above

    features = int(model.num_features())
    try:
        plain = model.copy()
        plain.feature_names = None  # the converter wants f0, f1, …
        return [convert_xgboost(plain, initial_types=[("X", FloatTensorType([None, features]))]).SerializeToString()]
    except Exception as error:  # converters raise whatever their library does
        raise Inconvertible(f"{type(error).__name__}: {str(error)[:200]}") from error


def runnable(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> XgboostModel:
    return XgboostModel(model, inputs, facts)


def restore(path: Path, digest: str, signature: Signature, facts: Mapping[str, Any]) -> XgboostModel:
    return XgboostModel(open_artefact(verified(path, digest), pinned=False), signature.inputs, facts)


def labelled(raw: Any, facts: Mapping[str, Any]) -> Columns:
    """Raw outputs of a booster as predictions and probabilities; classes by their labels where these are known."""
    if facts.get("task") != "classification" or facts.get("bare"):
        return {"predictions": raw.astype(np.int64) if facts.get("bare") else raw}
    probabilities = np.column_stack([1 - raw, raw]) if raw.ndim == 1 else raw
    return {"predictions": labels(probabilities.argmax(axis=1), facts), "probabilities": probabilities}


def labels(numbers: Any, facts: Mapping[str, Any]) -> Any:
    """Class numbers as labels."""
    classes = facts.get("labels")
    if not classes:
        return numbers.astype(np.int64)
    return texts(np.asarray(classes)[numbers])


def with_classes(facts: dict[str, Any], hints: Hints) -> dict[str, Any]:
    """Raises ArtefactRefused where the labels are not as many as the classes."""
    if facts["classes"] is None or hints.classes is None:
        return facts
    if len(hints.classes) != len(facts["classes"]):
        raise ArtefactRefused(
            f"The model has {len(facts['classes'])} classes, and the metadata names {len(hints.classes)}",
            param="metadata.classes",
            code="invalid_value",
        )
    return {**facts, "classes": list(hints.classes), "labels": list(hints.classes)}


def _task(objective: str, groups: int) -> dict[str, Any]:
    if objective in {"binary:logistic", "reg:logistic"} and objective.startswith("binary"):
        return {"task": "classification", "classes": [0, 1]}
    if objective == "multi:softprob":
        return {"task": "classification", "classes": list(range(groups))}
    if objective == "multi:softmax":
        return {"task": "classification", "classes": list(range(groups)), "bare": True}
    return {"task": "regression", "classes": None}
