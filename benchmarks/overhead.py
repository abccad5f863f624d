"""What a request costs in the gateway: CPU time, requests per second and latency, against nginx in the same minutes.

    python -m benchmarks.overhead [--rounds 3] [--seconds 4] [--soak N] [--write]      (make bench ARGS=…)

The gateway runs on core 0, the upstream and the load on core 1. Both systems stay up and take turns within each round,
so that the machine's moods meet both; a ratio is taken within a round, and the median over the rounds is reported.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import dialogue, report, targets, timing
from benchmarks.dialogue import Load
from benchmarks.process import free_port
from benchmarks.report import Measurement, Report, SoakPoint, StartUp
from benchmarks.targets import Target, Upstreams
from benchmarks.timing import Cell, WrongAnswer

_HERE = Path(__file__).parent
_STARTS = 5
_SOAK_CONNECTIONS = 32


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker gives up root and still has to look in
        with targets.upstreams(folder) as ports:
            result = _run(folder, ports, options, command=report.command("bench", arguments))
    print("\n" + report.render(result))
    report.append_lines(_HERE / "out" / "overhead.jsonl", result)
    if options.write:
        report.write_section(_HERE / "RESULTS.md", report.render(result))
        report.write_section(_HERE.parent / "README.md", report.claims(result))
    return 1 if options.strict and report.missed(result) else 0


def _run(folder: Path, ports: Upstreams, options: argparse.Namespace, *, command: str) -> Report:
    start = _start_up(folder, ports, options.python)
    with (
        targets.nginx(folder, ports) as yardstick,
        targets.penstock(folder, ports, options.python, records=not options.no_records) as gateway,
        targets.penstock(
            folder / "cached", ports, options.python, records=not options.no_records, cached=True
        ) as cached,
    ):
        pair = (yardstick, gateway)
        for target in (*pair, cached):
            _check(target, ports)
        time.sleep(1)
        idle_mib: dict[str, float] = {
            "nginx": yardstick.server.rss_mib(),
            "penstock": gateway.rested_mib,
            "penstock with the admin API": gateway.server.rss_mib(),
        }
        pairs: dict[Load, Sequence[Target]] = {cell.load: pair for cell in options.cells}
        pairs["hit"] = (yardstick, cached)
        _warm_up(pairs, options.cells)
        measurements = tuple(_rounds(pairs, options.cells, options.rounds))
        soak = tuple(_soak(gateway, options.soak))
    return Report(command, report.machine(), start, idle_mib, measurements, soak)


def _start_up(folder: Path, ports: Upstreams, python: Path) -> StartUp:
    """Process start to the first 200 on /health/ready, not pinned: into an empty data folder, and into one in use."""
    return StartUp(
        first_s=tuple(_time_start(folder / f"first-{number}", ports, python) for number in range(_STARTS)),
        again_s=tuple(_time_start(folder / "first-0", ports, python) for _ in range(_STARTS)),
    )


def _time_start(folder: Path, ports: Upstreams, python: Path) -> float:
    folder.mkdir(exist_ok=True)
    port = free_port()
    with targets.penstock_server(folder, ports, python, port, "benchmark-start-up") as server:
        return server.wait_ready(port, "/health/ready")


def _check(target: Target, ports: Upstreams) -> None:
    """Before anything is timed: the right answer, a refusal of a wrong key, whole streams."""
    plain: tuple[Load, ...] = ("plain", *target.keys)
    for load in plain:
        status, body = target.ask(load, target.key_for(load))
        if status != 200 or json.loads(body) != json.loads(dialogue.answer()):
            raise WrongAnswer(f"{target.name} does not pass the answer on: {status} {body!r}")
    status, body = target.ask("plain", "sk-wrong")
    if status != 401:
        raise WrongAnswer(f"{target.name} lets a wrong key in: {status} {body!r}")
    loads: tuple[Load, ...] = ("paced", "flood")
    for load in loads:
        status, body = target.ask(load, target.key)
        if status != 200 or _events(body) != _events(b"".join(dialogue.events())):
            raise WrongAnswer(f"{target.name} changes the stream: {status} {body[-300:]!r}")
    print(
        f"{target.name}: answer, refusal and streams are right (upstream ports {ports.plain_port}, {ports.stream_port})"
    )


def _events(stream: bytes) -> list[Any]:
    """Each event's JSON, and the end mark as it is."""
    payloads = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line]
    return [payload if payload == b"[DONE]" else json.loads(payload) for payload in payloads]


def _warm_up(pairs: Mapping[Load, Sequence[Target]], cells: Sequence[Cell]) -> None:
    for load in dict.fromkeys(cell.load for cell in cells):
        for target in pairs[load]:
            timing.generate(target, Cell(load, 32, 1.0))


def _rounds(pairs: Mapping[Load, Sequence[Target]], cells: Sequence[Cell], rounds: int) -> Iterator[Measurement]:
    for number in range(1, rounds + 1):
        for cell in cells:
            pair = pairs[cell.load]
            for target in pair if number % 2 else reversed(pair):
                measurement = timing.measure(target, cell, number)
                print(report.line(measurement), flush=True)
                yield measurement


def _soak(gateway: Target, requests: int) -> Iterator[SoakPoint]:
    """Resident memory along `requests` plain requests; yields nothing for 0."""
    done = 0
    while done < requests:
        if not done:
            yield SoakPoint(0, gateway.server.rss_mib())
        done += int(timing.generate(gateway, Cell("plain", _SOAK_CONNECTIONS, 2))["count"])
        point = SoakPoint(done, gateway.server.rss_mib())
        print(f"soak: {point.rss_mib:.1f} MiB after {point.requests:,} requests", flush=True)
        yield point


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the environment to measure")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument("--seconds", type=float, default=4, help="per cell (4)")
    parser.add_argument("--connections", type=_numbers, default=(1, 32, 256), help="of the plain rows (1,32,256)")
    parser.add_argument(
        "--streams", type=_numbers, default=(32,), help="connections of the streamed rows (32); empty: none"
    )
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="then send N requests and follow the memory")
    parser.add_argument("--no-records", action="store_true", help="switch the record of requests off, to see its cost")
    parser.add_argument("--write", action="store_true", help="renew the figures in RESULTS.md and the README")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a bound is missed")
    options = parser.parse_args(arguments)
    if options.write and not (32 in options.connections and 32 in options.streams):
        parser.error("--write wants the rows with 32 connections, plain and streamed")
    seconds = options.seconds
    options.cells = [Cell("plain", connections, seconds) for connections in options.connections]
    accounts: tuple[Load, ...] = ("free", "one", "eight", "hit")
    options.cells += [Cell(load, 32, seconds) for load in accounts if 32 in options.connections]
    options.cells += [Cell("paced", connections, seconds) for connections in options.streams]
    options.cells += [Cell("flood", connections, seconds) for connections in options.streams]
    return options


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
