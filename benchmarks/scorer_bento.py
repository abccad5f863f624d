"""A service of BentoML over the graph in `MODEL`, with one worker and ONNX Runtime on one thread, as the FastAPI beside it.

bentoml serve scorer_bento:Cancer --working-dir benchmarks
"""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Cancer:
    """Rows by name in, the label and the chances out."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])  # noqa: TID251 — a program of its own
        self.input = self.session.get_inputs()[0].name

    @bentoml.api  # type: ignore[untyped-decorator]  # in its own environment alone
    def predict(self, instances: list[dict[str, float]]) -> dict[str, Any]:
        rows = np.asarray([list(one.values()) for one in instances], np.float32)
        label, chances = self.session.run(None, {self.input: rows})
        return {"predictions": label.tolist(), "probabilities": chances.tolist()}
