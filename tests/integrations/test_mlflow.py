"""MLflow as a source and a sink: its real server, its own client, and webhooks that it sends."""

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.server import ROOT, Server

PYTHON = ROOT / ".tools" / "mlflow" / "bin" / "python"
SECRET = "a-secret-of-webhooks-0123456789"

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PYTHON.exists(), reason="MLflow is not installed: make test-integrations"),
]

LOG = """
import json, sys
import mlflow, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
scale = float(sys.argv[1])
weights = np.array([[1.0], [2.0], [-1.0]], np.float32) * scale
graph = helper.make_graph(
    [helper.make_node("MatMul", ["rows", "weights"], ["sums"])], "sums",
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3])],
    [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["n", 1])],
    [numpy_helper.from_array(weights, "weights")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
with mlflow.start_run():
    mlflow.log_metric("auc", 0.9 * scale)
    mlflow.log_param("depth", 3)
    info = mlflow.onnx.log_model(model, name="model", registered_model_name="fraud", pip_requirements=["onnx"], save_as_external_data=False)
client = mlflow.MlflowClient()
newest = max(int(each.version) for each in client.search_model_versions("name='fraud'"))
client.set_model_version_tag("fraud", str(newest), "team", "risk")
client.set_registered_model_alias("fraud", "champion", str(newest))
print(newest)
"""
READ = """
import json, sys
import mlflow, numpy as np
client = mlflow.MlflowClient()
version = client.get_model_version_by_alias(sys.argv[1], sys.argv[2])
model = mlflow.onnx.load_model(f"models:/{sys.argv[1]}@{sys.argv[2]}")
print(json.dumps({"version": version.version, "tags": version.tags, "nodes": [node.op_type for node in model.graph.node]}))
"""
HOOK = """
import sys
import mlflow
client = mlflow.MlflowClient()
from mlflow.entities.webhook import WebhookEvent
client.create_webhook(name="penstock", url=sys.argv[1], secret=sys.argv[2], events=["model_version_alias.created"])
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


class Mlflow:
    """`mlflow server`, and programs that use its client."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._environ = {
            "PATH": f"{PYTHON.parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        command = [str(PYTHON), "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        self._output = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=self._environ,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> "Mlflow":
        deadline = time.monotonic() + 240
        while True:
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.5)

    def program(self, text: str, *words: str) -> str:
        done = subprocess.run(
            [str(PYTHON), "-c", text, *words],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.log()
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def log(self) -> str:
        return (self._folder / "server.log").read_text()[-4000:]

    def stop(self) -> None:
        os.killpg(self._process.pid, 9)  # its workers too
        self._process.wait(20)
        self._output.close()


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path_factory.mktemp("mlflow"))
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def penstock(mlflow: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    told = {"tracking_uri": mlflow.url, "python": str(PYTHON), "webhook_secret": SECRET}
    server = Server({"registry": {"mlflow": told, "timeout_s": 240}}, tmp_path_factory.mktemp("penstock"))
    server.start(with_key=False)
    server.admin.timeout = httpx.Timeout(300)
    yield server
    server.stop()


def register(server: Server, name: str, **metadata: Any) -> httpx.Response:
    return server.admin.post(f"/registry/{name}/versions", files={"metadata": (None, json.dumps(metadata))})


def test_models_come_from_mlflow_follow_its_aliases_and_go_back(mlflow: Mlflow, penstock: Server) -> None:
    """With what MLflow knows of them; its webhook moves our champion, and its client loads what we publish."""
    mlflow.program(HOOK, f"{penstock.url}/webhooks/mlflow", SECRET)  # first: MLflow looks for new ones once a minute
    assert mlflow.program(LOG, "1.0") == "1"
    made = register(penstock, "fraud", uri="models:/fraud@champion", alias="champion")
    assert made.status_code == 201, made.text + penstock.output
    version = made.json()
    assert (version["version"], version["runtime"], version["source"]["uri"]) == (1, "onnx", "models:/fraud/1")
    assert version["tags"]["team"] == "risk"
    assert (version["lineage"]["metrics"], version["lineage"]["parameters"]) == ({"auc": 0.9}, {"depth": "3"})
    assert version["lineage"]["run"]

    assert mlflow.program(LOG, "2.0") == "2"  # a new version, and the alias moved to it
    deadline = time.monotonic() + 120
    while penstock.admin.get("/registry/fraud").json()["aliases"] != {"champion": 2}:
        assert time.monotonic() < deadline, mlflow.log() + penstock.output
        time.sleep(0.5)
    followed = penstock.admin.get("/registry/fraud/versions/2").json()
    assert (followed["source"]["uri"], followed["created_by"]) == ("models:/fraud/2", "mlflow webhook")
    assert followed["digest"] != version["digest"]

    published = penstock.admin.post("/registry/fraud/versions/2/publish", json={"alias": "served"})
    assert published.status_code == 200, published.text
    read = json.loads(mlflow.program(READ, "fraud", "served"))
    assert read["version"] == published.json()["version"] == "3"
    assert read["tags"]["penstock.bundle"] == followed["bundle"]
    assert read["nodes"] == ["MatMul"]


def test_what_mlflow_does_not_have_is_told(mlflow: Mlflow, penstock: Server) -> None:
    """An unknown model, a uri that is none, and a webhook that somebody else signed."""
    del mlflow
    missing = register(penstock, "loans", uri="models:/loans@champion")
    assert (missing.status_code, missing.json()["error"]["code"]) == (503, "mlflow_failed")
    assert "loans" in missing.json()["error"]["message"]
    assert register(penstock, "loans", uri="s3://bucket/model").json()["error"]["param"] == "metadata.uri"
    headers = {"x-mlflow-delivery-id": "1", "x-mlflow-timestamp": str(int(time.time()))}
    forged = {**headers, "x-mlflow-signature": f"v1,{hashlib.sha256(b'x').hexdigest()}"}
    answer = penstock.http.post("/webhooks/mlflow", content=b"{}", headers=forged)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_signature")
