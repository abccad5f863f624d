"""What was measured, as a table for people and as lines of JSON for machines."""

import dataclasses
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.dialogue import Load

# Penstock's CPU time per unit, in multiples of nginx's in the same round: what we hold ourselves to.
BOUNDS: dict[tuple[Load, int], float] = {
    ("plain", 32): 3.5,
    ("plain", 256): 3.5,
    ("paced", 32): 2.0,
    ("flood", 32): 2.0,
}
# What seven more accounts may cost a request, in microseconds of CPU.
SCOPES_BOUND_US = 25
READY_BOUND_S = 1.5
IDLE_BOUND_MIB = 80

_OVERHEAD = ("<!-- overhead: written by make bench ARGS=--write -->", "<!-- overhead: end -->")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One target in one cell of one round. The unit is a request, on streams a chunk; p50 and p99 are of the whole
    answer, on streams of the first chunk."""

    round: int
    target: str
    load: Load
    connections: int
    count: int
    errors: int
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class StartUp:
    first_s: tuple[float, ...]
    again_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SoakPoint:
    requests: int
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Machine:
    date: str
    commit: str
    cpu: str
    cores: int
    kernel: str
    python: str
    load_average: float


@dataclass(frozen=True, slots=True)
class Report:
    command: str
    machine: Machine
    start: StartUp
    idle_mib: Mapping[str, float]
    measurements: tuple[Measurement, ...]
    soak: tuple[SoakPoint, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One cell over all rounds: medians of both targets, and the ratio of each round."""

    load: Load
    connections: int
    nginx: Measurement
    penstock: Measurement
    ratios: tuple[float, ...]
    errors: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def bound(self) -> float | None:
        return BOUNDS.get((self.load, self.connections))


def rows(measurements: Sequence[Measurement]) -> tuple[Row, ...]:
    cells = dict.fromkeys((each.load, each.connections) for each in measurements)
    return tuple(_row([each for each in measurements if (each.load, each.connections) == cell]) for cell in cells)


def scopes_us(measurements: Sequence[Measurement]) -> float | None:
    """CPU time that a request of a key bound by eight accounts takes beyond one bound by one; None if it was not measured."""
    penstock = {row.load: row.penstock.cpu_us for row in rows(measurements)}
    return penstock["eight"] - penstock["one"] if {"eight", "one"} <= penstock.keys() else None


def hit_us(measurements: Sequence[Measurement]) -> tuple[float, float] | None:
    """CPU time of an answer out of the exact cache, and of one that is asked upstream; None if they were not measured."""
    penstock = {(row.load, row.connections): row.penstock.cpu_us for row in rows(measurements)}
    if not {("hit", 32), ("plain", 32)} <= penstock.keys():
        return None
    return penstock["hit", 32], penstock["plain", 32]


def missed(report: Report) -> list[str]:
    """Every bound that was not met, in words."""
    found = [
        f"{row.load} at {row.connections}: {row.ratio:.2f} times nginx, the bound is {row.bound}"
        for row in rows(report.measurements)
        if row.bound is not None and row.ratio > row.bound
    ]
    found += [
        f"{row.load} at {row.connections}: {row.errors} errors" for row in rows(report.measurements) if row.errors
    ]
    more = scopes_us(report.measurements)
    if more is not None and more > SCOPES_BOUND_US:
        found.append(f"eight accounts cost {more:.1f} µs more than one, the bound is {SCOPES_BOUND_US}")
    hit = hit_us(report.measurements)
    if hit is not None and hit[0] >= hit[1]:
        found.append(f"an exact hit costs {hit[0]:.1f} µs, a request that is passed on {hit[1]:.1f}")
    if statistics.median(report.start.first_s) > READY_BOUND_S:
        found.append(f"ready after {statistics.median(report.start.first_s):.2f} s, the bound is {READY_BOUND_S}")
    if report.idle_mib["penstock"] > IDLE_BOUND_MIB:
        found.append(f"idle memory of {report.idle_mib['penstock']:.0f} MiB, the bound is {IDLE_BOUND_MIB}")
    return found


def render(report: Report) -> str:
    """The report as Markdown."""
    facts = report.machine
    origin = (
        f"`{report.command}`, {facts.date}, commit {facts.commit}. {facts.cpu}, {facts.cores} cores, "
        f"Linux {facts.kernel}, Python {facts.python}, load average at the end {facts.load_average:.1f}."
    )
    parts = [
        origin,
        _overhead_table(report.measurements),
        _start_table(report),
    ]
    more = scopes_us(report.measurements)
    if more is not None:
        parts.append(
            "`plain` is a key with a budget, requests and tokens per minute; `free` one without any, `one` with one budget, `eight` with "
            f"budgets on eight scopes, which cost {more:.1f} µs more than one (bound: {SCOPES_BOUND_US})."
        )
    hit = hit_us(report.measurements)
    if hit is not None:
        parts.append(
            f"`hit` is the plain request out of the exact cache in memory, with the same key: {hit[0]:.1f} µs, where asking upstream "
            f"costs {hit[1]:.1f} (bound: less). nginx has no cache there and passes it on."
        )
    if report.soak:
        parts.append(_soak_table(report.soak))
    bounds = missed(report)
    parts.append(
        "Every bound is met." if not bounds else "Bounds missed:\n\n" + "\n".join(f"- {each}" for each in bounds)
    )
    return "\n\n".join(parts)


def line(measurement: Measurement) -> str:
    m = measurement
    return (
        f"round {m.round}  {m.load:5} {m.connections:4} connections  {m.target:13}  {m.cpu_us:7.1f} µs CPU  "
        f"{m.per_second:8,.0f}/s  p50 {m.p50_ms:.2f} ms  p99 {m.p99_ms:.2f} ms  {m.errors} errors"
    )


def append_lines(path: Path, report: Report) -> None:
    """One line per measurement, each with the machine and the date, so that runs can be compared later on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine_facts = dataclasses.asdict(report.machine)
    with path.open("a", encoding="utf-8") as file:
        for measurement in report.measurements:
            file.write(json.dumps(dataclasses.asdict(measurement) | {"machine": machine_facts}) + "\n")
        summary = {
            "start": dataclasses.asdict(report.start),
            "idle_mib": dict(report.idle_mib),
            "machine": machine_facts,
        }
        file.write(json.dumps(summary | {"soak": [dataclasses.asdict(point) for point in report.soak]}) + "\n")


def claims(report: Report) -> str:
    """What the root README says of speed and size: three sentences, no figure typed by hand."""
    found = {(row.load, row.connections): row for row in rows(report.measurements)}
    plain, paced = found["plain", 32], found["paced", 32]
    first, idle = statistics.median(report.start.first_s), report.idle_mib["penstock"]
    return (
        f"- **Fast.** A request costs {plain.penstock.cpu_us:.0f} µs of CPU with key check, budget, limits, routing, metrics, "
        f"ledger and request record: {plain.ratio:.1f} times what nginx needs to pass it on "
        f"({plain.nginx.cpu_us:.0f} µs, same machine, same minutes, 32 connections).\n"
        f"- **Unnoticed on streams.** A chunk of a paced stream costs {paced.penstock.cpu_us:.0f} µs, "
        f"{paced.ratio:.1f} times nginx's.\n"
        f"- **Small.** It answers {first:.1f} s after the start of its process and rests in {idle:.0f} MiB."
    )


def write_section(path: Path, content: str, marks: tuple[str, str] = _OVERHEAD) -> None:
    """Replaces what stands between the two marks, or appends it with them."""
    text = path.read_text(encoding="utf-8")
    section = f"{marks[0]}\n\n{content}\n\n{marks[1]}"
    head, begin, rest = text.partition(marks[0])
    path.write_text(head + section + rest.partition(marks[1])[2] if begin else f"{text}\n{section}\n", encoding="utf-8")


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in every)


def command(target: str, arguments: Sequence[str]) -> str:
    """How to repeat this run; `make` itself adds --python."""
    own = arguments[2:] if arguments[:1] == ["--python"] else arguments
    return f'make {target} ARGS="{" ".join(own)}"' if own else f"make {target}"


def machine() -> Machine:
    cpu = next(row.split(":", 1)[1].strip() for row in _lines("/proc/cpuinfo") if row.startswith("model name"))
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        commit=_commit(),
        cpu=cpu,
        cores=sum(row.startswith("processor") for row in _lines("/proc/cpuinfo")),
        kernel=platform.release(),
        python=platform.python_version(),
        load_average=float(_lines("/proc/loadavg")[0].split()[0]),
    )


def _row(cell: Sequence[Measurement]) -> Row:
    nginx = {each.round: each for each in cell if each.target == "nginx"}
    penstock = {each.round: each for each in cell if each.target == "penstock"}
    return Row(
        load=cell[0].load,
        connections=cell[0].connections,
        nginx=_median(nginx.values()),
        penstock=_median(penstock.values()),
        ratios=tuple(penstock[number].cpu_us / nginx[number].cpu_us for number in sorted(penstock)),
        errors=sum(each.errors for each in cell),
    )


def _median(rounds: Iterable[Measurement]) -> Measurement:
    every = list(rounds)
    return dataclasses.replace(
        every[0],
        round=0,
        cpu_us=statistics.median(each.cpu_us for each in every),
        per_second=statistics.median(each.per_second for each in every),
        p50_ms=statistics.median(each.p50_ms for each in every),
        p99_ms=statistics.median(each.p99_ms for each in every),
    )


def _overhead_table(measurements: Sequence[Measurement]) -> str:
    head = (
        "load",
        "connections",
        "nginx µs",
        "Penstock µs",
        "ratio",
        "by round",
        "bound",
        "nginx/s",
        "Penstock/s",
        "nginx p50 / p99 ms",
        "Penstock p50 / p99 ms",
        "errors",
    )
    body = [
        (
            row.load,
            str(row.connections),
            f"{row.nginx.cpu_us:.1f}",
            f"{row.penstock.cpu_us:.1f}",
            f"**{row.ratio:.2f}**",
            " ".join(f"{ratio:.2f}" for ratio in row.ratios),
            "" if row.bound is None else f"{row.bound}",
            f"{row.nginx.per_second:,.0f}",
            f"{row.penstock.per_second:,.0f}",
            f"{row.nginx.p50_ms:.2f} / {row.nginx.p99_ms:.2f}",
            f"{row.penstock.p50_ms:.2f} / {row.penstock.p99_ms:.2f}",
            str(row.errors),
        )
        for row in rows(measurements)
    ]
    return table(head, body)


def _start_table(report: Report) -> str:
    first, again = report.start.first_s, report.start.again_s
    return table(
        ("what", "median", "from", "to", "bound"),
        [
            _spread("ready, first start", first, READY_BOUND_S),
            _spread("ready, later starts", again, READY_BOUND_S),
            ("idle memory, Penstock", f"{report.idle_mib['penstock']:.0f} MiB", "", "", f"{IDLE_BOUND_MIB} MiB"),
            *(
                (f"idle memory, {name}, once it was used", f"{mib:.0f} MiB", "", "", "")
                for name, mib in report.idle_mib.items()
                if name not in {"nginx", "penstock"}
            ),
            ("idle memory, nginx", f"{report.idle_mib['nginx']:.0f} MiB", "", "", ""),
        ],
    )


def _spread(what: str, seconds: Sequence[float], bound_s: float) -> tuple[str, ...]:
    return (
        what,
        f"{statistics.median(seconds):.2f} s",
        f"{min(seconds):.2f} s",
        f"{max(seconds):.2f} s",
        f"{bound_s} s",
    )


def _soak_table(points: Sequence[SoakPoint]) -> str:
    return table(
        ("requests", "Penstock RSS MiB"), [(f"{point.requests:,}", f"{point.rss_mib:.1f}") for point in points]
    )


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
