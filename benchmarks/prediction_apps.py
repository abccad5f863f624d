"""What a team writes itself to serve a model: FastAPI in front of ONNX Runtime or of the pickled pipeline. No keys, nothing kept.

uvicorn --factory benchmarks.prediction_apps:onnx        MODEL in the environment is the artefact
"""

import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """Rows by the names of the features, in the order of the first."""

    instances: list[dict[str, float]]

    def rows(self) -> Any:
        return np.asarray([list(one.values()) for one in self.instances], np.float32)


def onnx() -> FastAPI:
    """One thread, as the other servers have."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(_model().read_bytes(), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Body) -> dict[str, Any]:
        label, chances = session.run(None, {name: body.rows()})
        return {"predictions": label.tolist(), "probabilities": chances.tolist()}

    return app


def pickled() -> FastAPI:
    """The book's first server: joblib, and two calls of the model for each request."""
    model = joblib.load(_model())
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Body) -> dict[str, Any]:
        rows = body.rows()
        return {"predictions": model.predict(rows).tolist(), "probabilities": model.predict_proba(rows).tolist()}

    return app


def _model() -> Path:
    return Path(os.environ["MODEL"])  # noqa: TID251 — a program of its own, started with it
