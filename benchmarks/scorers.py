"""The servers of classic models that Penstock is compared with: where each is installed, how it is started, what it is asked.

Each serves the same logistic regression from Python in an environment of its own, in as few processes as it takes (MLServer without
its pool of processes, the others with one worker), with no keys and nothing kept.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.process import Server, free_port

FEATURES: Final = 30
START_LIMIT_S: Final = 240.0

_ROOT: Final = Path(__file__).resolve().parents[1]
_INSTALLED: Final = _ROOT / ".tools" / "scorers"
_BENCHMARKS: Final = _ROOT / "benchmarks"


@dataclass(frozen=True, slots=True)
class System:
    """A server that answers, and the bytes of one request to it. `grpc`: its port for that, if it has one."""

    name: str
    server: Server
    port: int
    request: bytes
    grpc: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the data, and the graph of the model as a file."""

    names: Sequence[str]
    values: Sequence[float]
    graph: Path

    @property
    def records(self) -> bytes:
        return json.dumps({"instances": [dict(zip(self.names, self.values, strict=True))]}).encode()

    def tensor(self, *outputs: str) -> bytes:
        one = {"name": "rows", "datatype": "FP32", "shape": [1, FEATURES], "data": list(self.values)}
        wanted = {"outputs": [{"name": output} for output in outputs]} if outputs else {}
        return json.dumps({"inputs": [one], **wanted}).encode()

    @property
    def frame(self) -> bytes:
        return json.dumps({"dataframe_split": {"columns": list(self.names), "data": [list(self.values)]}}).encode()


def post(path: str, body: bytes, key: str | None = None) -> bytes:
    shown = f"authorization: Bearer {key}\r\n" if key else ""
    lines = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{shown}content-type: application/json\r\n"
    return f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body


def mlserver(folder: Path, stack: ExitStack, row: Row) -> System:
    """Its stock runtime of scikit-learn."""
    home, port, grpc = folder / "mlserver", free_port(), free_port()
    home.mkdir()
    _fit("mlserver", "joblib", home / "model.joblib", folder)
    settings = {
        "http_port": port,
        "grpc_port": grpc,
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "host": "127.0.0.1",
    }
    (home / "settings.json").write_text(json.dumps(settings))
    inputs = [{"name": "rows", "datatype": "FP32", "shape": [-1, FEATURES]}]
    outputs = [{"name": "predict", "datatype": "INT64", "shape": [-1]}]
    model = {
        "name": "cancer",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib"},
        "inputs": inputs,
        "outputs": outputs,
    }
    (home / "model-settings.json").write_text(json.dumps(model))
    server = _started("mlserver", folder, stack, ["-m", "mlserver.cli.main", "start", home])
    server.wait_ready(port, "/v2/models/cancer/ready", limit_s=START_LIMIT_S)
    return System(
        "MLServer", server, port, post("/v2/models/cancer/infer", row.tensor("predict", "predict_proba")), grpc
    )


def bentoml(folder: Path, stack: ExitStack, row: Row) -> System:
    """A service over ONNX Runtime: its quickest way."""
    port = free_port()
    program = ["-m", "bentoml", "serve", "scorer_bento:Cancer", "--working-dir", _BENCHMARKS, "--port", str(port)]
    variables = {"MODEL": str(row.graph), "BENTOML_HOME": str(folder / "bento"), "BENTOML_DO_NOT_TRACK": "True"}
    server = _started("bentoml", folder, stack, [*program, "--host", "127.0.0.1"], variables)
    server.wait_ready(port, "/readyz", limit_s=START_LIMIT_S)
    return System("BentoML", server, port, post("/predict", row.records))


def mlflow(folder: Path, stack: ExitStack, row: Row) -> System:
    """`mlflow models serve`."""
    home, port = folder / "mlflow-model", free_port()
    _fit("mlflow", "mlflow", home, folder)
    program = ["-m", "mlflow", "models", "serve", "-m", home, "-p", str(port), "-w", "1", "--env-manager", "local"]
    server = _started("mlflow", folder, stack, program, {"HOME": str(folder)})
    server.wait_ready(port, "/ping", limit_s=START_LIMIT_S)
    return System("MLflow models serve", server, port, post("/invocations", row.frame))


def kserve(folder: Path, stack: ExitStack, row: Row) -> System:
    """A class of its SDK."""
    port, grpc, pickle = free_port(), free_port(), folder / "kserve.joblib"
    _fit("kserve", "joblib", pickle, folder)
    program = [_BENCHMARKS / "scorer_kserve.py", "--http_port", str(port), "--grpc_port", str(grpc)]
    server = _started("kserve", folder, stack, program, {"MODEL": str(pickle)})
    server.wait_ready(port, "/v2/models/cancer/ready", limit_s=START_LIMIT_S)
    return System("KServe", server, port, post("/v2/models/cancer/infer", row.tensor()), grpc)


Start = Callable[[Path, ExitStack, Row], System]
PEERS: Final[tuple[tuple[str, Start], ...]] = (
    ("mlserver", mlserver),
    ("bentoml", bentoml),
    ("mlflow", mlflow),
    ("kserve", kserve),
)


def installed(name: str) -> bool:
    return (_INSTALLED / name / ".ready").is_file()


def _fit(name: str, kind: str, target: Path, folder: Path) -> None:
    with Server(
        [_python(name), _BENCHMARKS / "scorer_fit.py", kind, target],
        log=folder / f"{name}-fit.log",
        environment=_plain(),
    ) as fitting:
        fitting.wait_end(START_LIMIT_S)


def _started(
    name: str, folder: Path, stack: ExitStack, program: Sequence[Any], variables: dict[str, str] | None = None
) -> Server:
    environment = {**_plain(), **(variables or {}), "PATH": f"{_python(name).parent}:{os.defpath}"}
    return stack.enter_context(
        Server([_python(name), *program], log=folder / f"{name}.log", environment=environment, folder=folder)
    )


def _plain() -> dict[str, str]:
    """One thread for arithmetic, as everywhere here."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}


def _python(name: str) -> Path:
    return _INSTALLED / name / "bin" / "python"
