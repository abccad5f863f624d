"""One row of a logistic regression (30 features), asked over one connection and over several: CPU per request and latency, side by side.

    python -m benchmarks.predictions [--python .tools/lean/bin/python] [--rounds N] [--requests N] [--peers NAME …] [--write]

Penstock checks keys, holds and settles, validates each value by name and captures every call; the others do none of that. CPU time is
that of the server's processes by the kernel's clock. The servers take turns in every round, so that a busy machine is busy for all.
"""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import joblib
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import scorers
from benchmarks.process import Server, cpu_ns, free_port
from benchmarks.report import command, machine, table, write_section
from benchmarks.scorers import Row, System, post

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "RESULTS.md"
MARKS: Final = ("<!-- predictions: written by make bench-predictions ARGS=--write -->", "<!-- predictions: end -->")
KEY: Final = "sk-admin-of-the-benchmark-0123456789"
MANY: Final = 16
WARM: Final = 300


@dataclass(frozen=True, slots=True)
class Cell:
    cpu_us: float
    p50_ms: float
    p99_ms: float
    per_second: float
    errors: int


def main() -> int:
    options = argparse.ArgumentParser(description="Measures single-row predictions.")
    options.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="of the environment that has Penstock"
    )
    options.add_argument("--peers", nargs="*", default=[name for name, _ in scorers.PEERS], help="of those installed")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--requests", type=int, default=2000, help="per system, load and round")
    options.add_argument("--write", action="store_true", help="renew the section of benchmarks/RESULTS.md")
    given = options.parse_args()
    found: dict[tuple[str, int], list[Cell]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, ExitStack() as stack:
        systems = started(Path(folder), stack, given.python, given.peers)
        for system in systems:
            measured(system, 1, WARM)
        for _ in range(given.rounds):
            for connections in (1, MANY):
                for system in systems:
                    cell = measured(system, connections, given.requests)
                    found.setdefault((system.name, connections), []).append(cell)
    text = said(found, [system.name for system in systems], given.rounds)
    print(text)
    if given.write:
        write_section(RESULTS, text, MARKS)
    return int(any(cell.errors for cells in found.values() for cell in cells))


def started(folder: Path, stack: ExitStack, python: Path, peers: Sequence[str]) -> list[System]:
    """Each on a port of its own, with the same model."""
    row, pickle = row_and_graph(folder)
    systems = [penstock(folder, stack, row, python)]
    for name, factory, artefact in (
        ("FastAPI + ONNX Runtime", "onnx", row.graph),
        ("FastAPI + joblib", "pickled", pickle),
    ):
        port = free_port()
        arguments = ["-m", "uvicorn", "--factory", f"benchmarks.prediction_apps:{factory}", "--port", str(port)]
        server = stack.enter_context(
            Server(
                [sys.executable, *arguments, "--no-access-log", "--log-level", "warning"],
                log=folder / f"{factory}.log",
                environment={"MODEL": str(artefact), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )
        )
        server.wait_ready(port, "/openapi.json", limit_s=60)
        systems.append(System(name, server, port, post("/predict", row.records)))
    systems += [start(folder, stack, row) for name, start in scorers.PEERS if name in peers and scorers.installed(name)]
    for system in systems:
        assert (status := _asked(system)) == 200, f"{system.name} answers {status}"
    return systems


def row_and_graph(folder: Path) -> tuple[Row, Path]:
    """A row of the data with the fitted model's graph, and the same model as a pickle for this environment."""
    data = load_breast_cancer()
    rows = np.asarray(data.data, np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, data.target)
    graph, pickle = folder / "model.onnx", folder / "model.joblib"
    graph.write_bytes(to_onnx(model, rows[:1], options={id(model): {"zipmap": False}}).SerializeToString())
    joblib.dump(model, pickle)
    names = tuple(str(name).replace(" ", "_") for name in data.feature_names)
    return Row(names, rows[0].tolist(), graph), pickle


def penstock(folder: Path, stack: ExitStack, row: Row, python: Path, *, grpc: bool = False) -> System:
    """As a user has it: registered over REST, asked with a key that has a budget."""
    configuration, port = folder / "penstock.yaml", free_port()
    predictions: dict[str, Any] = {"prices": {"cancer": {"row": 0.000001}}}
    grpc_port = free_port() if grpc else None
    configuration.write_text(json.dumps({"predictions": {**predictions, "grpc_port": grpc_port}}))
    server = stack.enter_context(
        Server(
            [
                python,
                "-m",
                "admin",
                "serve",
                "--config",
                configuration,
                "--port",
                str(port),
                "--data-dir",
                folder / "data",
            ],
            log=folder / "penstock.log",
            environment={"PENSTOCK_ADMIN_KEY": KEY, "PYTHONPATH": str(ROOT)},
        )
    )
    server.wait_ready(port, "/health/ready")
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"}, timeout=120
    ) as admin:
        columns = [{"name": name, "datatype": "FP32"} for name in row.names]
        metadata = {"runtime": "onnx", "alias": "champion", "signature": {"inputs": columns}}
        form = {"artifact": ("model.onnx", row.graph.read_bytes())}
        made = admin.post("/admin/v1/registry/cancer/versions", files=form, data={"metadata": json.dumps(metadata)})
        assert made.status_code == 201, made.text
        budget = {"limit_usd": 1_000_000, "period": "day"}
        key = admin.post("/admin/v1/keys", json={"name": "bench", "budget": budget})
        assert key.status_code == 201, key.text
    secret: str = key.json()["key"]
    return System("Penstock", server, port, post("/v1/predict/cancer", row.records, secret), grpc_port, secret)


def measured(system: System, connections: int, requests: int) -> Cell:
    """`requests` in all, over so many connections that stay open."""
    each = requests // connections
    times: list[list[float]] = [[] for _ in range(connections)]
    errors = [0] * connections
    family = system.server.family()

    def ask(number: int) -> None:
        with socket.create_connection(("127.0.0.1", system.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(each):
                began = time.perf_counter()
                sock.sendall(system.request)
                errors[number] += _status(sock) != 200
                times[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(connections)]
    cpu, began = cpu_ns(family), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, used = time.perf_counter() - began, cpu_ns(family) - cpu
    every = sorted(one for part in times for one in part)
    return Cell(
        used / 1000 / len(every),
        every[len(every) // 2] * 1000,
        every[int(len(every) * 0.99)] * 1000,
        len(every) / wall,
        sum(errors),
    )


def _status(sock: socket.socket) -> int:
    """Reads one answer with a length."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(sock)
    head = data[:end].lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(data) < end + 4 + length:
        data += _some(sock)
    return int(data[9:12])


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65_536)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def _asked(system: System) -> int:
    with socket.create_connection(("127.0.0.1", system.port), timeout=60) as sock:
        sock.sendall(system.request)
        return _status(sock)


def said(found: dict[tuple[str, int], list[Cell]], names: Sequence[str], rounds: int) -> str:
    def middle(name: str, connections: int, field: str) -> float:
        return float(statistics.median(getattr(cell, field) for cell in found[name, connections]))

    base = {connections: middle("FastAPI + ONNX Runtime", connections, "cpu_us") for connections in (1, MANY)}
    lines: list[list[Any]] = []
    for name in names:
        cells = []
        for connections in (1, MANY):
            cpu = middle(name, connections, "cpu_us")
            cells += [
                f"{cpu:.0f}",
                f"{cpu / base[connections]:.2f}",
                f"{middle(name, connections, 'p50_ms'):.2f} / {middle(name, connections, 'p99_ms'):.2f}",
                f"{middle(name, connections, 'per_second'):,.0f}",
            ]
        errors = sum(cell.errors for connections in (1, MANY) for cell in found[name, connections])
        lines.append([name, *cells, str(errors)])
    host = machine()
    columns = ["µs per request", "× FastAPI + ONNX", "p50 / p99 ms", "requests/s"]
    head = ["server", *(f"{column}, {connections}" for connections in (1, MANY) for column in columns), "errors"]
    return (
        "## Predictions\n\n"
        f"`{command('bench-predictions', sys.argv[1:])}`, {host.date}, commit {host.commit}: one row of a logistic regression over 30 "
        f"features, over 1 connection and over {MANY}, medians of {rounds} rounds. Penstock with a key, a budget, a price, each "
        f"value checked and every call captured. {host.cpu}, {host.cores} cores, load average at the end {host.load_average:.1f}.\n\n"
        + table(head, lines)
    )


if __name__ == "__main__":
    raise SystemExit(main())
