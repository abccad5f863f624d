"""The page on Penstock beside other gateways: what was measured of each, and the table of it."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import dialogue, report
from benchmarks.peer_systems import LOADS, PeerLoad
from benchmarks.report import Machine, Measurement

MARKS = ("<!-- peers: written by make bench-peers ARGS=--write -->", "<!-- peers: end -->")
YARDSTICK = "nginx"
_HEAD = (
    "system",
    "version",
    "µs per request",
    "× nginx",
    "by round",
    "requests/s",
    "p50 / p99 ms",
    "µs per chunk",
    "× nginx",
    "first chunk p50 / p99 ms",
    "MiB idle / after",
    "first answer",
    "wrong key",
    "errors",
)
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Peer:
    """`ready_s` has the seconds from each start of the process to its first answer, and `refusal` the status for a wrong key."""

    name: str
    version: str
    ready_s: tuple[float, ...]
    refusal: int
    idle_mib: float
    loaded_mib: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`faults` says by system why it, or its streams, were not measured."""

    command: str
    machine: Machine
    connections: int
    peers: tuple[Peer, ...]
    measurements: tuple[Measurement, ...]
    faults: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figures:
    """One system under one load, over all rounds: medians, and the ratio to nginx of each round in which both were measured."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    ratios: tuple[float, ...]
    errors: int

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None


def per_chunk(measurement: Measurement, events: int) -> Measurement:
    """A gateway that merges chunks is charged for those that it was sent: `events` is how many of its own a stream has."""
    share = events / dialogue.EVENTS
    return dataclasses.replace(
        measurement,
        count=round(measurement.count / share),
        cpu_us=measurement.cpu_us * share,
        per_second=measurement.per_second / share,
    )


def figures(measurements: Sequence[Measurement], name: str, load: PeerLoad) -> Figures | None:
    """None if it was never measured under this load."""
    own = {each.round: each for each in measurements if (each.target, each.load) == (name, load)}
    yardstick = {each.round: each for each in measurements if (each.target, each.load) == (YARDSTICK, load)}
    if not own:
        return None
    return Figures(
        cpu_us=statistics.median(each.cpu_us for each in own.values()),
        per_second=statistics.median(each.per_second for each in own.values()),
        p50_ms=statistics.median(each.p50_ms for each in own.values()),
        p99_ms=statistics.median(each.p99_ms for each in own.values()),
        ratios=tuple(own[number].cpu_us / yardstick[number].cpu_us for number in sorted(own.keys() & yardstick.keys())),
        errors=sum(each.errors for each in own.values()),
    )


def render(result: Comparison) -> str:
    facts = result.machine
    rounds = max((each.round for each in result.measurements), default=0)
    origin = (
        f"`{result.command}`, {facts.date}, commit {facts.commit}: {result.connections} connections, rounds: {rounds}. "
        f"{facts.cpu}, {facts.cores} cores, Linux {facts.kernel}, load average at the end {facts.load_average:.1f}."
    )
    parts = [origin, report.table(_HEAD, [_row(peer, result.measurements) for peer in result.peers])]
    if result.faults:
        parts.append(
            "Not measured:\n\n"
            + "\n".join(f"- {name}: {fault}" for name, faults in result.faults.items() for fault in faults)
        )
    return "\n\n".join(parts)


def append_lines(path: Path, result: Comparison) -> None:
    """One line per measurement and one per system, each with the machine and the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = dataclasses.asdict(result.machine)
    with path.open("a", encoding="utf-8") as file:
        for each in [
            *(dataclasses.asdict(measurement) for measurement in result.measurements),
            *(dataclasses.asdict(peer) for peer in result.peers),
        ]:
            file.write(json.dumps(each | {"machine": machine}) + "\n")


def _row(peer: Peer, measurements: Sequence[Measurement]) -> tuple[str, ...]:
    plain, paced = (figures(measurements, peer.name, load) for load in LOADS)
    return (
        peer.name,
        peer.version,
        *_cost(plain),
        _by_round(plain),
        _NOTHING if plain is None else f"{plain.per_second:,.0f}",
        _latency(plain),
        *_cost(paced),
        _latency(paced),
        f"{peer.idle_mib:.0f} / {peer.loaded_mib:.0f}",
        f"{statistics.median(peer.ready_s):.2f} s",
        _refusal(peer.refusal),
        str(sum(each.errors for each in (plain, paced) if each is not None)),
    )


def _cost(load: Figures | None) -> tuple[str, str]:
    if load is None:
        return _NOTHING, _NOTHING
    return f"{load.cpu_us:,.1f}", _NOTHING if load.ratio is None else f"**{load.ratio:,.2f}**"


def _by_round(load: Figures | None) -> str:
    return _NOTHING if load is None or not load.ratios else " ".join(f"{ratio:,.2f}" for ratio in load.ratios)


def _latency(load: Figures | None) -> str:
    return _NOTHING if load is None else f"{load.p50_ms:.2f} / {load.p99_ms:.2f}"


def _refusal(status: int) -> str:
    return "let in" if status == 200 else str(status)
