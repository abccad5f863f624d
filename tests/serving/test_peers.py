"""Models of other servers: our own by the Open Inference Protocol, and of a scripted server that speaks as TorchServe does."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fixtures.predictions import Serving
from tests.fixtures.server import Json, Server
from tests.serving.models import Trained

SLOW_S = 30.0


class Scripted:
    """`answers` by path: a status and a body, which may be made of what was asked; None: nothing for a long time."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self._closing = False
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length", 0)))
                body = json.loads(data) if data else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                scripted.asked.append((self.path, headers, body))
                said = scripted.answers.get(self.path, (404, {"code": 404, "message": "Model not found"}))
                if said is None:
                    until = time.monotonic() + SLOW_S
                    while not scripted._closing and time.monotonic() < until:
                        time.sleep(0.02)
                    said = 200, {}
                status, answer = said
                answer = answer(body) if callable(answer) else answer
                whole = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole)
                if status == 200 and scripted.answers.get("close"):
                    self.close_connection = True

            do_GET = do_POST  # noqa: N815 — the base class names it

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class names it
                """Nothing: pytest shows what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._closing = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(predicting: Serving, scripted: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    peers = {
        "other": {"url": f"{predicting.url}/", "api_key": predicting.key},
        "stranger": {"url": predicting.url, "api_key": "sk-nobody"},
        "torch": {"url": scripted.url, "protocol": "torchserve", "api_key": "secret", "timeout_s": 2},
        "odd": {"url": scripted.url, "timeout_s": 2},
        "away": {"url": "http://127.0.0.1:9"},
    }
    config = {"registry": {"peers": peers}, "predictions": {"prices": {"fraud": {"request": 0.001}}}}
    server = Server(config, tmp_path_factory.mktemp("peers")).start()
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def offer(server: Server, name: str, artefact: object, **metadata: object) -> httpx.Response:
    return server.admin.post(
        f"/registry/{name}/versions",
        files={"artifact": ("peer.json", artefact if isinstance(artefact, bytes) else json.dumps(artefact).encode())},
        data={"metadata": json.dumps({"runtime": "remote", **metadata})},
    )


def register(server: Server, name: str, artefact: object, **metadata: object) -> Json:
    answer = offer(server, name, artefact, **metadata)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def ask(server: Server, name: str, body: Json) -> httpx.Response:
    """The snapshot follows within a second."""
    deadline = time.monotonic() + 20
    while (answer := server.post(f"/v1/predict/{name}", body)).json().get("error", {}).get("code") == "model_not_found":
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return answer


def signature(*names: str) -> Json:
    return {"inputs": [{"name": name, "datatype": "FP64"} for name in names]}


def test_a_model_of_another_server_answers_here(
    server: Server, predicting: Serving, trained: dict[str, Trained]
) -> None:
    """With the signature that its server tells, the same numbers, on every path, and a price."""
    made = register(server, "fraud", {"peer": "other", "model": "wine", "version": "1"}, alias="champion")
    assert (made["runtime"], made["facts"]["peer"], made["facts"]["protocol"]) == ("remote", "other", "oip")
    records = trained["wine"].records(7)
    wanted = predicting.post("/v1/predict/wine", {"instances": records}).json()
    answer = ask(server, "fraud", {"instances": records})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["predictions"] == wanted["predictions"]
    np.testing.assert_allclose(told["probabilities"], wanted["probabilities"], rtol=1e-6)
    assert float(answer.headers["x-penstock-cost-usd"]) == pytest.approx(0.001)
    metadata = server.http.get("/v2/models/fraud", headers={"authorization": f"Bearer {server.key}"}).json()
    theirs = predicting.http.get("/v2/models/wine", headers={"authorization": f"Bearer {predicting.key}"}).json()
    assert [each["name"] for each in metadata["inputs"]] == [each["name"] for each in theirs["inputs"]]
    wrong = ask(server, "fraud", {"instances": [{"nothing": 1}]})
    assert wrong.status_code == 400, "before anybody else is asked"


def test_rows_are_asked_of_torchserve_and_dicts_become_outputs(server: Server, scripted: Scripted) -> None:
    def predicted(body: Json) -> Json:
        rows = body["instances"]
        return {"predictions": [{"label": "yes" if row["a"] > row["b"] else "no", "score": row["a"]} for row in rows]}

    scripted.answers["/predictions/deny/2.0"] = 200, predicted
    register(server, "deny", {"peer": "torch", "model": "deny", "version": "2.0"}, signature=signature("a", "b"))
    answer = ask(server, "deny", {"instances": [{"a": 2, "b": 1}, {"a": 0.5, "b": 3}]}).json()
    assert answer["predictions"] == [{"label": "yes", "score": 2.0}, {"label": "no", "score": 0.5}]
    path, headers, body = scripted.asked[-1]
    assert (path, headers["authorization"]) == ("/predictions/deny/2.0", "Bearer secret")
    assert body == {"instances": [{"a": 2.0, "b": 1.0}, {"a": 0.5, "b": 3.0}]}


def test_a_connection_that_was_closed_meanwhile_is_made_again(server: Server, scripted: Scripted) -> None:
    scripted.answers["/predictions/plain"] = 200, lambda body: [2 * value for value in body["instances"]]
    scripted.answers["close"] = True
    register(server, "plain", {"peer": "torch", "model": "plain"}, signature=signature("a"))
    for value in (1.0, 2.0, 3.0):
        answer = ask(server, "plain", {"instances": [{"a": value}]})
        assert answer.json()["predictions"] == [2 * value]
    scripted.answers["close"] = False


@pytest.mark.parametrize(
    ("artefact", "metadata", "code", "says"),
    [
        (b"{", {}, "artefact_invalid", "JSON object"),
        ({"peer": "other"}, {}, "artefact_invalid", "model"),
        ({"peer": "other", "model": "wine", "url": "http://x"}, {}, "artefact_invalid", "url"),
        ({"peer": "nobody", "model": "wine"}, {}, "peer_unknown", "other"),
        ({"peer": "other", "model": "no-such"}, {}, "peer_model_missing", "404"),
        ({"peer": "stranger", "model": "wine"}, {}, "peer_credentials", "401"),
        ({"peer": "away", "model": "wine"}, {}, "peer_unavailable", "cannot be reached"),
        ({"peer": "torch", "model": "plain"}, {}, "signature_missing", "signature"),
        ({"peer": "torch", "model": "no-such"}, {"signature": signature("a")}, "sample_failed", "404"),
    ],
)
def test_what_cannot_be_had_is_told_when_it_is_registered(
    server: Server, artefact: object, metadata: Json, code: str, says: str
) -> None:
    answer = offer(server, "refused", artefact, **metadata)
    assert 400 <= answer.status_code <= 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert "sk-nobody" not in answer.text


FAULTS: dict[str, tuple[Any, int, str]] = {
    "refuses": ((422, {"error": "a is odd"}), 400, "a is odd"),
    "fails": ((500, {"error": "out of memory"}), 500, "out of memory"),
    "busy": ((503, b""), 503, "503"),
    "silent": (None, 504, "within 2 s"),
    "noise": ((200, b"\xff\xfe"), 500, "cannot be read"),
    "other": ((200, {"predictions": [1]}), 500, "cannot be read"),
    "short": (
        (200, {"outputs": [{"name": "y", "datatype": "FP64", "shape": [3], "data": [1.0]}]}),
        500,
        "cannot be read",
    ),
    "kind": ((200, {"outputs": [{"name": "y", "datatype": "BF16", "shape": [1], "data": [1.0]}]}), 500, "BF16"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_goes_wrong_there_is_told_here(server: Server, scripted: Scripted, fault: str) -> None:
    """And the next call is answered, over the same model."""

    def right(body: Json) -> Json:
        (tensor,) = body["inputs"]
        return {"outputs": [{"name": "y", "datatype": "FP64", "shape": tensor["shape"], "data": tensor["data"]}]}

    path = f"/v2/models/{fault}/infer"
    scripted.answers[path] = 200, right
    register(server, fault, {"peer": "odd", "model": fault}, signature=signature("a"))
    assert ask(server, fault, {"instances": [{"a": 1.5}]}).json()["predictions"] == [1.5]
    scripted.answers[path], status, says = FAULTS[fault]
    answer = ask(server, fault, {"instances": [{"a": 1.5}]})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]
    scripted.answers[path] = 200, right
    assert ask(server, fault, {"instances": [{"a": 2.5}]}).json()["predictions"] == [2.5]


def test_the_signature_is_what_the_server_tells(server: Server, scripted: Scripted) -> None:
    """An output of a value a row is one, also where it comes as a matrix of one column."""
    scripted.answers["/v2/models/told"] = (
        200,
        {
            "name": "told",
            "inputs": [{"name": "rows", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
        },
    )

    def summed(body: Json) -> Json:
        (tensor,) = body["inputs"]
        rows = np.reshape(tensor["data"], tensor["shape"])
        data = rows.sum(axis=1).astype(int).tolist()
        return {"outputs": [{"name": "y", "datatype": "INT64", "shape": [len(rows), 1], "data": data}]}

    scripted.answers["/v2/models/told/infer"] = 200, summed
    made = register(server, "told", {"peer": "odd", "model": "told"})
    assert made["signature"]["inputs"][0]["shape"] == [-1, 3]
    assert made["signature"]["outputs"][0]["shape"] == [-1]
    assert ask(server, "told", {"instances": [[1, 2, 3], [4, 5, 6]]}).json()["predictions"] == [6, 15]


def test_texts_numbers_and_gaps_travel(server: Server, scripted: Scripted) -> None:
    columns = [
        {"name": "text", "datatype": "BYTES"},
        {"name": "count", "datatype": "INT64"},
        {"name": "gap", "datatype": "FP64", "nullable": True},
        {"name": "pair", "datatype": "FP32", "shape": [-1, 2]},
    ]

    def echoed(body: Json) -> Json:
        return {
            "outputs": [{**each, "data": [0.0 if v is None else v for v in each["data"]]} for each in body["inputs"]]
        }

    scripted.answers["/v2/models/echo/infer"] = 200, echoed
    register(server, "echo", {"peer": "odd", "model": "echo"}, signature={"inputs": columns})
    rows = [
        {"text": "schön", "count": 2**53 + 1, "gap": None, "pair": [1, 2]},
        {"text": "", "count": -1, "gap": 0.5, "pair": [3, 4]},
    ]
    answer = ask(server, "echo", {"instances": rows})
    assert answer.status_code == 200, answer.text
    wanted = [{"text": "schön", "count": 2**53 + 1, "gap": 0.0, "pair": [1, 2]}, {**rows[1]}]
    assert answer.json()["predictions"] == wanted
    sent = {each["name"]: each for each in scripted.asked[-1][2]["inputs"]}
    assert sent["gap"]["data"] == [None, 0.5]
    assert (sent["pair"]["shape"], sent["pair"]["data"]) == ([2, 2], [1.0, 2.0, 3.0, 4.0])
