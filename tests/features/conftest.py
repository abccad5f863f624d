"""A server with models whose features it finds itself."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from tests.fixtures.scoring import graph
from tests.fixtures.server import Server
from tests.fixtures.threaded import served

NEVER = "1970-01-01T00:00:00Z"

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


class FeatureServer(HTTPServer):
    """Answers as feast 0.6x does: `known` by driver. `broken`: what it says instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: dict[int, tuple[float, float, str]] = {}
        self.broken: tuple[int, bytes] | None = None
        self.asked: list[Json] = []
        self.tokens: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: FeatureServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append({"path": self.path, **body})
        self.server.tokens.append(self.headers["authorization"])
        status, said = self.server.broken or (200, json.dumps(self._answer(body)).encode())
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def _answer(self, body: Json) -> Json:
        drivers = body["entities"]["driver_id"]
        found = [self.server.known.get(driver) for driver in drivers]
        results = [
            {"values": drivers, "statuses": ["PRESENT"] * len(drivers), "event_timestamps": [NEVER] * len(drivers)}
        ]
        results += [
            {
                "values": [None if one is None else one[index] for one in found],
                "statuses": ["NOT_FOUND" if one is None else "PRESENT" for one in found],
                "event_timestamps": [NEVER if one is None else one[2] for one in found],
            }
            for index in range(2)
        ]
        return {"metadata": {"feature_names": ["driver_id", "a", "b"]}, "results": results}

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def feast() -> Iterator[FeatureServer]:
    with served(FeatureServer()) as server:
        yield server


@pytest.fixture(scope="module")
def store(feast: FeatureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Of a module, as what modules put in it is: their tests may be shared out, and what comes later begins again.

    `main` is the feature server that it knows.
    """
    main = {"url": f"http://127.0.0.1:{feast.server_port}", "token": "sesame", "timeout_s": 10}
    config = {"features": {"feast": {"main": main}}, "predictions": {"timeout_s": 20}}
    made = Store(config, tmp_path_factory.mktemp("features"))
    made.start()
    yield made
    alive = made.running()
    made.stop()
    assert alive, made.output


@pytest.fixture
def now() -> float:
    return time.time()


def refusal(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert set(error) == {"message", "type", "param", "code"}
    if param is not None:
        assert error["param"] == param, answer.text
