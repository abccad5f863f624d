"""Penstock side by side with other gateways: CPU time per request and per streamed chunk, memory, start-up.

    python -m benchmarks.peers [--rounds 3] [--seconds 4] [--only NAME,…] [--write]      (make bench-peers ARGS=…)

As in `overhead.py`, what is measured runs on core 0 and the upstreams and the load on core 1. All systems stay up and take turns within
each round; a ratio to nginx is taken within a round. What answers wrongly or cannot stream is not timed, and the page says why.
"""

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import comparison, peer_answers, report, targets, timing
from benchmarks.comparison import YARDSTICK, Comparison, Peer
from benchmarks.peer_systems import LOADS, START_LIMIT_S, PeerLoad, System, Targets, systems
from benchmarks.report import Measurement
from benchmarks.targets import Target, Upstreams
from benchmarks.timing import Cell, WrongAnswer

_HERE = Path(__file__).parent
_STARTS = 3
_SETTLE_S = 3
_WARM_UP_S = 2.0
# wrk walks off in the middle of its last requests, one per connection, whose cost is charged to those that were answered: a
# system that answers few gets more time, so that this stays small.
_REQUESTS = 1500
_LONGEST_S = 30
_FAILURES = (RuntimeError, OSError, http.client.HTTPException, subprocess.SubprocessError)
_MOST_ERRORS = 0.01  # beyond that, what a failure costs is what would be measured
_LONGEST_REASON = 400


class Faults:
    """Why a system, or one of its loads, is not measured. Said at once, and again on the page."""

    def __init__(self) -> None:
        self.by_system: dict[str, list[str]] = {}

    def add(self, name: str, error: Exception) -> None:
        words = " ".join(str(error).replace(str(_HERE.parent), "…").split()) or type(error).__name__
        words = (
            words
            if len(words) <= _LONGEST_REASON
            else f"{words[: _LONGEST_REASON // 2]} … {words[-_LONGEST_REASON // 2 :]}"
        )
        print(f"{name}: {words}", flush=True)
        self.by_system.setdefault(name, []).append(words)


@dataclass(slots=True)
class Running:
    """A system that is up. `targets` has the loads that it answers rightly, and loses those under which it fails."""

    system: System
    version: str
    targets: dict[PeerLoad, Target]
    ready_s: tuple[float, ...]
    refusal: int
    idle_mib: float
    seconds: dict[PeerLoad, float] = field(default_factory=dict)

    def rss_mib(self) -> float:
        """A router has one process per load: the larger of the two."""
        return max((target.server.rss_mib() for target in self.targets.values()), default=0.0)

    def drop(self, load: PeerLoad, error: Exception, faults: Faults) -> None:
        del self.targets[load]
        faults.add(f"{self.system.name}, {load}", error)


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker gives up root and still has to look in
        with targets.upstreams(folder) as ports:
            result = _run(folder, ports, options, report.command("bench-peers", arguments))
    page = comparison.render(result)
    print("\n" + page)
    comparison.append_lines(_HERE / "out" / "peers.jsonl", result)
    if options.write:
        report.write_section(_HERE / "RESULTS.md", page, comparison.MARKS)
    return 0


def start(system: System, folder: Path, ports: Upstreams, starts: int, stack: ExitStack, faults: Faults) -> Running:
    """Starts it `starts` times while nothing else is busy; it stays up the last time."""
    version = system.version()
    ready_s = [_start_once(system, _room(folder, system, number), ports) for number in range(starts - 1)]
    up = stack.enter_context(system.start(_room(folder, system, starts), ports))
    ready_s.append(_first_answer(up))
    refusal, _ = up["plain"].ask("plain", "sk-wrong")
    running = Running(system, version, _right(system, up, faults), tuple(ready_s), refusal, 0.0)
    time.sleep(_SETTLE_S)
    running.idle_mib = running.rss_mib()
    print(f"{system.name} {version}: up after {ready_s[-1]:.2f} s, {running.idle_mib:.0f} MiB", flush=True)
    return running


def _run(folder: Path, ports: Upstreams, options: argparse.Namespace, command: str) -> Comparison:
    faults, running = Faults(), list[Running]()
    with ExitStack() as stack:
        for system in systems(options.python):
            if options.only and system.name.lower() not in options.only:
                continue
            try:
                running.append(start(system, folder, ports, options.starts, stack, faults))
            except _FAILURES as error:
                faults.add(system.name, error)
        for each in running:
            _warm_up(each, options.connections, options.seconds, faults)
        measurements = tuple(_rounds(running, options.connections, options.rounds, faults))
        peers = tuple(_peer(each) for each in running)
    return Comparison(command, report.machine(), options.connections, peers, measurements, faults.by_system)


def _start_once(system: System, folder: Path, ports: Upstreams) -> float:
    with system.start(folder, ports) as up:
        return _first_answer(up)


def _room(folder: Path, system: System, number: int) -> Path:
    room = folder / f"{system.name}-{number}"
    room.mkdir()
    room.chmod(0o755)
    return room


def _first_answer(up: Targets) -> float:
    """Seconds from the start of the process to its first answer to a chat; routers want a moment more to find their worker."""
    plain = up["plain"]
    return plain.server.wait_until(partial(plain.answers, "plain"), limit_s=START_LIMIT_S)


def _right(system: System, up: Targets, faults: Faults) -> dict[PeerLoad, Target]:
    """The loads that it answers rightly. Raises WrongAnswer where it is not even the plain one."""
    plain = up["plain"]
    peer_answers.check_answer(*plain.ask("plain", plain.key))
    right: dict[PeerLoad, Target] = {"plain": plain}
    try:
        events = peer_answers.check_stream(*up["paced"].ask("paced", up["paced"].key))
    except _FAILURES as error:
        faults.add(system.name, error)
    else:
        right["paced"] = replace(up["paced"], events=events)
    return right


def _warm_up(running: Running, connections: int, seconds: float, faults: Faults) -> None:
    for load, target in tuple(running.targets.items()):
        running.seconds[load] = seconds
        try:
            found = timing.generate(target, Cell(load, connections, _WARM_UP_S))
        except _FAILURES as error:
            running.drop(load, error, faults)
            continue
        if load == "plain":
            rate = found["count"] / found["seconds"]
            running.seconds[load] = min(_LONGEST_S, max(seconds, _REQUESTS / max(1.0, rate)))


def _rounds(running: Sequence[Running], connections: int, rounds: int, faults: Faults) -> Iterator[Measurement]:
    for number in range(1, rounds + 1):
        for load in LOADS:
            for each in running if number % 2 else reversed(running):
                if load not in each.targets:
                    continue
                try:
                    measurement = _measure(each, load, connections, number)
                except _FAILURES as error:
                    each.drop(load, error, faults)
                    continue
                print(report.line(measurement), flush=True)
                yield measurement


def _measure(running: Running, load: PeerLoad, connections: int, number: int) -> Measurement:
    target = running.targets[load]
    measurement = timing.measure(target, Cell(load, connections, running.seconds[load]), number)
    answers = measurement.count if load == "plain" else measurement.count / target.events + measurement.errors
    if measurement.errors > _MOST_ERRORS * answers:
        raise WrongAnswer(f"{measurement.errors} of {answers:,.0f} answers under load were errors")
    measurement = replace(measurement, target=running.system.name)
    return measurement if load == "plain" else comparison.per_chunk(measurement, target.events)


def _peer(running: Running) -> Peer:
    return Peer(
        running.system.name,
        running.version,
        running.ready_s,
        running.refusal,
        running.idle_mib,
        running.rss_mib(),
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers ARGS=…", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of Penstock's environment")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument("--seconds", type=float, default=4, help="per cell at least (4)")
    parser.add_argument("--connections", type=int, default=32, help="at once (32)")
    parser.add_argument(
        "--starts", type=int, default=_STARTS, help=f"of each system, for the time to its first answer ({_STARTS})"
    )
    parser.add_argument("--only", type=_names, default=(), metavar="NAME,…", help="these beside nginx")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    options = parser.parse_args(arguments)
    if options.only:
        options.only = {YARDSTICK, *options.only}
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in text.split(",") if name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
