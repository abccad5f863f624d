"""Models trained once, on data that scikit-learn brings, and a server to register them at."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import joblib
import lightgbm
import numpy as np
import onnx
import pytest
import skops.io
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from tests.fixtures.server import ROOT, Server


class Trained:
    """One model, the data it was trained on, and what its library answers to it."""

    def __init__(self, runtime: str, artefact: bytes, rows: Any, predictions: Any, probabilities: Any = None) -> None:
        self.runtime, self.artefact, self.rows = runtime, artefact, rows
        self.predictions, self.probabilities = predictions, probabilities

    @property
    def matrix(self) -> Any:
        return np.asarray(self.rows, np.float64)


def _sklearn(model: Any, data: Any) -> Trained:
    rows, labels = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels)
    probabilities = model.predict_proba(rows) if hasattr(model, "predict_proba") else None
    return Trained("sklearn", skops.io.dumps(model), rows, model.predict(rows), probabilities)


def _cancer() -> Trained:
    return _sklearn(make_pipeline(StandardScaler(), LogisticRegression()), load_breast_cancer(return_X_y=True))


def _diabetes() -> Trained:
    return _sklearn(Ridge(), load_diabetes(return_X_y=True, as_frame=True))


def _digits() -> Trained:
    rows, labels = load_digits(return_X_y=True)
    return _sklearn(make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)), (rows[:600], labels[:600]))


def _spread() -> Trained:
    return _sklearn(LabelSpreading(), load_breast_cancer(return_X_y=True))


def _xgboost() -> Trained:
    rows, labels = load_wine(return_X_y=True, as_frame=True)
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=3, n_jobs=1).fit(rows, labels)
    artefact = bytes(model.get_booster().save_raw("json"))
    return Trained("xgboost", artefact, rows, model.predict(rows), model.predict_proba(rows))


def _lightgbm() -> Trained:
    rows, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    rows.columns = rows.columns.str.replace(" ", "_")  # as LightGBM writes them
    model = lightgbm.LGBMClassifier(n_estimators=6, num_leaves=8, n_jobs=1, verbose=-1).fit(rows, labels)
    artefact = model.booster_.model_to_string().encode()
    return Trained("lightgbm", artefact, rows, model.predict(rows), model.predict_proba(rows))


def _graph() -> Trained:
    """rows (n, 3) times weights: a graph that is looked at in a moment."""
    weights = np.array([[1.0], [2.0], [-1.0]], np.float32)
    node = onnx.helper.make_node("MatMul", ["rows", "weights"], ["sums"])
    made = onnx.helper.make_graph(
        [node],
        "sums",
        [onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor_value_info("sums", onnx.TensorProto.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    return Trained("onnx", model.SerializeToString(), rows, rows @ weights)


MAKERS: dict[str, Callable[[], Trained]] = {
    "graph": _graph,
    "cancer": _cancer,
    "diabetes": _diabetes,
    "digits": _digits,
    "spread": _spread,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
}


class Models(dict[str, Trained]):
    """Trained when first asked for."""

    def __missing__(self, name: str) -> Trained:
        self[name] = made = MAKERS[name]()
        return made


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


@pytest.fixture(scope="session")
def pickled() -> bytes:
    """A pipeline as most people keep one."""
    rows, labels = load_wine(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    import io  # noqa: PLC0415 — for this one fixture

    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


class _Relative(Server):
    """With a data directory below its working directory, as `.penstock` is for whoever names none."""

    @property
    def data(self) -> Path:
        return Path(os.path.relpath(super().data, ROOT))


class Desk:
    """`/admin/v1/registry` of a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = server.admin

    def register(
        self,
        name: str,
        artefact: bytes,
        runtime: str,
        *,
        reference: bytes | None = None,
        headers: Any = None,
        **metadata: Any,
    ) -> httpx.Response:
        files: dict[str, Any] = {
            "artifact": ("model.bin", artefact),
            "metadata": (None, json.dumps({"runtime": runtime, **metadata})),
        }
        if reference is not None:
            files["reference"] = ("reference.csv", reference)
        return self.http.post(f"/registry/{name}/versions", files=files, headers=headers)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, pickled: bytes) -> Iterator[Desk]:
    """With one pickle that is allowed, and an artefact of two megabytes at most."""
    import hashlib  # noqa: PLC0415 — for this one fixture

    config = {"registry": {"pickles": [hashlib.sha256(pickled).hexdigest()], "max_mb": 2}}
    server = _Relative(config, tmp_path_factory.mktemp("registry")).start(with_key=False)
    yield Desk(server)
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "aside"
    made.mkdir()
    return made
