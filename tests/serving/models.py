"""Real models on real data: scikit-learn's bundled sets, converted to ONNX."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inference.ports import Bundle
from inference.signature import Column, Signature


class Trained(NamedTuple):
    """`rows` the model has not seen are few and enough; `probabilities` only of classifiers."""

    bundle: Bundle
    rows: NDArray[np.float32]
    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None

    def records(self, count: int = 5) -> list[dict[str, Any]]:
        names = [column.name for column in self.bundle.signature.inputs]
        if len(names) == 1:
            return [{names[0]: row.tolist()} for row in self.rows[:count]]
        return [dict(zip(names, row.tolist(), strict=True)) for row in self.rows[:count]]


def train(folder: Path) -> dict[str, Trained]:
    """Digits take one tensor, the others a column for each feature."""
    made = {}
    for name, data in {
        "cancer": load_breast_cancer(),
        "wine": load_wine(),
        "diabetes": load_diabetes(),
        "digits": load_digits(),
    }.items():
        rows = np.asarray(data.data, np.float32)
        classifies = name != "diabetes"
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300) if classifies else Ridge())
        model.fit(rows, data.target)
        path = folder / f"{name}.onnx"
        options = {id(model): {"zipmap": False}} if classifies else None
        graph = to_onnx(model, rows[:1], options=options, target_opset=17).SerializeToString()
        path.write_bytes(graph)
        inputs = tuple(Column(_plain(one), "FP32", (-1,)) for one in getattr(data, "feature_names", ()))
        if name == "digits":
            inputs = (Column("pixels", "FP32", (-1, 64)),)
        outputs: tuple[Column, ...] = (Column("prediction", "FP32"),)
        if classifies:
            outputs = (Column("label", "INT64"), Column("probabilities", "FP32", (-1, len(set(data.target.tolist())))))
        signature = Signature(inputs, outputs)
        bundle = Bundle(name, 1, "onnx", hashlib.sha256(graph).hexdigest(), path, signature, {})
        some = rows[:: max(1, len(rows) // 40)]
        chances = model.predict_proba(some) if classifies else None
        made[name] = Trained(bundle, some, model.predict(some), chances)
    return made


def _plain(name: object) -> str:
    return str(name).replace(" ", "_")
