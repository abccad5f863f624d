"""A server with models whose features it finds itself."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.scoring import graph
from tests.fixtures.server import Server

Json = dict[str, Any]


class Store(Server):
    """With what a test of features needs. `a`, `b` and `c` are what each model takes: it gives a + 2 b - c."""

    def view(self, name: str, **fields: Any) -> Json:
        body = {
            "name": name,
            "entities": [{"name": "driver_id"}],
            "features": [{"name": "a", "datatype": "FP32"}, {"name": "b", "datatype": "FP32", "default": 7.0}],
            **fields,
        }
        answer = self.admin.post("/features", json=body)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made

    def model(self, name: str, view: Json | None) -> None:
        lineage = {} if view is None else {"feature_view": view}
        metadata = {"runtime": "onnx", "lineage": lineage, "alias": "champion"}
        inputs = [{"name": one, "datatype": "FP32", "nullable": True} for one in "abc"]
        answer = self.admin.post(
            f"/registry/{name}/versions",
            files={"artifact": (f"{name}.onnx", graph(1.0))},
            data={"metadata": json.dumps({**metadata, "signature": {"inputs": inputs}})},
        )
        assert answer.status_code == 201, answer.text

    def write(self, view: str, *rows: Json) -> httpx.Response:
        return self.admin.post(f"/features/{view}/rows", json={"rows": list(rows)})

    def predict(self, model: str, *rows: Json | list[Any], key: str | None = None) -> httpx.Response:
        """Another worker than the one that took a change may answer: none here, so what was changed is in force."""
        return self.post(f"/v1/predict/{model}", {"instances": list(rows)}, key=key)

    def online(self, body: Json, key: str | None = None) -> httpx.Response:
        return self.post("/get-online-features", body, key=key)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store({"predictions": {"timeout_s": 20}}, tmp_path_factory.mktemp("features"))
    made.start()
    yield made
    alive = made.running()
    made.stop()
    assert alive, made.output


@pytest.fixture
def now() -> float:
    return time.time()
