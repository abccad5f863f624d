"""KServe's own way to serve a model from Python: a class with `predict`, over the pickle in `MODEL`.

python benchmarks/scorer_kserve.py --http_port 8080 --grpc_port 8081
"""

import os
from typing import Any

import joblib
import kserve
from kserve import InferOutput, InferRequest, InferResponse, ModelServer
from kserve.utils.utils import generate_uuid


class Cancer(kserve.Model):  # type: ignore[misc]  # in its own environment alone
    """30 numbers a row in, one label out."""

    def __init__(self) -> None:
        super().__init__("cancer")
        self.model = joblib.load(os.environ["MODEL"])  # noqa: TID251 — a program of its own
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "rows", "datatype": "FP32", "shape": [-1, 30]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": "predict", "datatype": "INT64", "shape": [-1]}]

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:  # noqa: ARG002 — KServe names them
        rows = payload.inputs[0].as_numpy()
        made = self.model.predict(rows)
        output = InferOutput("predict", list(made.shape), "INT64")
        output.set_data_from_numpy(made.astype("int64"), binary_data=False)
        return InferResponse(payload.id or generate_uuid(), self.name, [output])


if __name__ == "__main__":
    ModelServer(workers=1).start([Cancer()])
