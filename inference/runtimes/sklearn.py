"""Models of scikit-learn: from skops, which builds objects of known types, or from a pickle that the configuration pins by its hash.

Only for processes that may die of what they load.
"""

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from inference.errors import ArtefactRefused
from inference.registry.artefacts import verified
from inference.runtimes.arrays import DTYPES, matrix, texts
from inference.runtimes.model import Columns, Description, Hints, Inconvertible, named, tensor
from inference.signature import Column, Signature

ZIP: Final = b"PK\x03\x04"
OPSET: Final = {"": 18, "ai.onnx.ml": 3}

# Types that skops does not trust by itself, and whose state is numbers: nothing in them names code to run.
TRUSTED: Final = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
        "xgboost.sklearn.XGBRegressor",
    }
)


@final
class SklearnModel:
    """`inference.ports.Runnable`."""

    def __init__(self, model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> None:
        self._model = model
        self._inputs = inputs
        self._framed = bool(facts.get("frame"))

    def run(self, columns: Columns) -> Columns:
        rows = self._rows(columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions and names: said once, at the registration
            if not hasattr(self._model, "predict"):
                return {"output": _dense(self._model.transform(rows))}
            made = {"predictions": texts(np.asarray(self._model.predict(rows)))}
            if hasattr(self._model, "predict_proba"):
                probabilities = self._model.predict_proba(rows)
                if isinstance(probabilities, np.ndarray):  # of several outputs it is a list, which has no one shape
                    made["probabilities"] = probabilities
        return made

    def close(self) -> None:
        self._model = None

    def _rows(self, columns: Columns) -> Any:
        if not self._framed:
            return matrix(columns, self._inputs, np.dtype(np.float64))
        import pandas as pd  # noqa: PLC0415 — only for models that were trained on one

        return pd.DataFrame({each.name: columns[each.name] for each in self._inputs})


def open_artefact(data: bytes, *, pinned: bool) -> Any:
    """Raises ArtefactRefused."""
    if data[:4] == ZIP:
        return _from_skops(data)
    if not pinned:
        raise ArtefactRefused("A pickle runs code of its author when it is opened", code="pickle_refused")
    import joblib  # noqa: PLC0415 — comes with scikit-learn

    try:
        return joblib.load(io.BytesIO(data))
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError, KeyError) as error:
        raise ArtefactRefused(f"The pickle cannot be read: {error}", code="artefact_invalid") from error


def describe(model: Any, hints: Hints) -> Description:
    """Raises ArtefactRefused for what is no fitted estimator."""
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    features = getattr(model, "n_features_in_", None)
    if not hasattr(model, "predict") and not hasattr(model, "transform"):
        raise ArtefactRefused(f"A {type(model).__name__} neither predicts nor transforms", code="artefact_invalid")
    nullable = _takes_nan(model)
    if hints.inputs is not None:
        inputs = hints.inputs
    elif names:
        inputs = named(names, hints, nullable=nullable)
    elif features is not None:
        inputs = tensor(int(features), nullable=nullable)
    else:
        raise ArtefactRefused(
            "The model does not say what it was trained on (it may not be fitted): give a signature in the metadata",
            param="metadata.signature",
            code="signature_missing",
        )
    classes = getattr(model, "classes_", None)
    facts = {
        "estimator": type(model).__name__,
        "task": _task(model),
        "classes": np.asarray(classes).tolist() if classes is not None and not isinstance(classes, list) else None,
        "frame": bool(names),
    }
    return Description(inputs, facts, nullable)


def convert(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> list[bytes]:
    """Graphs to be tried, the most exact one first: double precision where every operator has it. Raises Inconvertible."""
    from skl2onnx import to_onnx  # noqa: PLC0415 — seconds, for a registration alone
    from skl2onnx.common.data_types import (  # noqa: PLC0415 — as above
        DoubleTensorType,
        FloatTensorType,
        StringTensorType,
    )

    apart = facts.get("frame") and (
        any(each.datatype == "BYTES" for each in inputs) or "ColumnTransformer" in repr(model)
    )
    made, why = [], "no operator"
    for numbers in (DoubleTensorType, FloatTensorType):
        if apart:
            types = [
                (each.name, (StringTensorType if each.datatype == "BYTES" else numbers)([None, 1])) for each in inputs
            ]
        else:
            types = [("X", numbers([None, _features(inputs)]))]
        options = {id(model): {"zipmap": False}} if facts.get("task") == "classification" else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph = to_onnx(model, initial_types=types, options=options, target_opset=OPSET)
            made.append(graph.SerializeToString())
        except Exception as error:  # noqa: BLE001 — converters raise whatever their library does
            why = f"{type(error).__name__}: {str(error)[:200]}"
    if not made:
        raise Inconvertible(why)
    return made


def runnable(model: Any, inputs: tuple[Column, ...], facts: Mapping[str, Any]) -> SklearnModel:
    return SklearnModel(model, inputs, facts)


def restore(path: Path, digest: str, signature: Signature, facts: Mapping[str, Any]) -> SklearnModel:
    model = open_artefact(verified(path, digest), pinned=bool(facts.get("pinned")))
    return SklearnModel(model, signature.inputs, facts)


def _from_skops(data: bytes) -> Any:
    from skops import io as skops  # noqa: PLC0415 — an error here names the extra

    try:
        strange = sorted(set(skops.get_untrusted_types(data=data)) - TRUSTED)
    except Exception as error:
        raise ArtefactRefused(f"This is no file of skops: {error}", code="artefact_invalid") from error
    if strange:
        raise ArtefactRefused(
            f"The file wants to make objects of types that are not trusted: {', '.join(strange[:8])}",
            code="untrusted_types",
        )
    try:
        return skops.loads(data, trusted=sorted(TRUSTED))
    except Exception as error:
        raise ArtefactRefused(f"skops cannot read the file: {error}", code="artefact_invalid") from error


def _features(inputs: tuple[Column, ...]) -> int:
    return inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) > 1 else len(inputs)


def _task(model: Any) -> str:
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 — as for the others

    if is_classifier(model):
        return "classification"
    return "regression" if is_regressor(model) else "other"


def _takes_nan(model: Any) -> bool:
    try:
        return bool(model.__sklearn_tags__().input_tags.allow_nan)
    except AttributeError:
        return False


def _dense(value: Any) -> NDArray[Any]:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, DTYPES["FP64"])
