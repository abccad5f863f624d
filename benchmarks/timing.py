"""One cell of a benchmark: a load against a running system for some seconds, and the CPU time that the system took for it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import dialogue, targets
from benchmarks.dialogue import Load
from benchmarks.process import cpu_ns
from benchmarks.report import Measurement
from benchmarks.targets import Target

_CHAT = Path(__file__).parent / "chat.lua"


class WrongAnswer(RuntimeError):
    """What answers wrongly is not timed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One load at one concurrency."""

    load: Load
    connections: int
    seconds: float


def measure(target: Target, cell: Cell, number: int) -> Measurement:
    """`number` is the round's."""
    before = target.server.family()
    spent = cpu_ns(before)
    figures = generate(target, cell)
    after = target.server.family()
    if after != before:
        raise RuntimeError(f"{target.name} changed its processes under load: {before} became {after}")
    return Measurement(
        round=number,
        target=target.name,
        load=cell.load,
        connections=cell.connections,
        count=int(figures["count"]),
        errors=int(figures["errors"]),
        cpu_us=(cpu_ns(after) - spent) / 1000 / max(1, figures["count"]),
        per_second=figures["count"] / figures["seconds"],
        p50_ms=figures["p50_ms"],
        p99_ms=figures["p99_ms"],
    )


def generate(target: Target, cell: Cell) -> dict[str, float]:
    """Runs the load generator and reads the one line of JSON that it prints."""
    command = ["taskset", "-c", str(targets.LOAD_CORE)]
    command += _wrk(target, cell) if dialogue.route(cell.load) == "plain" else _streams(target, cell)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            figures: dict[str, float] = json.loads(line.removeprefix("RESULT "))
            return figures
    raise RuntimeError(f"the load generator failed: {done.stdout[-500:]} {done.stderr[-500:]}")


def _wrk(target: Target, cell: Cell) -> list[str]:
    options = ["-t1", f"-c{cell.connections}", f"-d{cell.seconds:.0f}s", "--timeout", "20s", "-s", str(_CHAT)]
    url = f"http://127.0.0.1:{target.port}{target.path(cell.load)}"
    body = dialogue.request_body(target.model(cell.load), stream=False).decode()
    more = [part for header in target.headers.items() for part in header]
    return ["wrk", *options, url, "--", target.key_for(cell.load), body, *more]


def _streams(target: Target, cell: Cell) -> list[str]:
    asked = [str(target.port), target.path(cell.load), target.key_for(cell.load), target.model(cell.load)]
    more = [f"{name}: {value}" for name, value in target.headers.items()]
    size = [str(cell.connections), str(cell.seconds), str(target.events)]
    return [sys.executable, "-m", "benchmarks.stream_load", *asked, *size, *more]
