"""What every system of `benchmarks.engines` is asked, and how its answers are measured. NumPy alone: it runs in two environments."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

K = 10
Answered = tuple[Sequence[float], Sequence[Sequence[int]]]
FEW = 40  # questions under a filter: some systems take a tenth of a second for each


class Asked:
    def __init__(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.queries = np.load(folder / "queries.npy")
        self.masks = dict(np.load(folder / "masks.npz"))

    def truth(self, mask: np.ndarray, queries: np.ndarray) -> list[set[int]]:
        rows = np.flatnonzero(mask)
        best: list[list[tuple[float, int]]] = [[] for _ in queries]
        for start in range(0, len(rows), 65_536):
            part = rows[start : start + 65_536]
            scores = queries @ self.vectors[part].T
            for at, row in enumerate(scores):
                top = np.argpartition(-row, min(K, len(row) - 1))[:K]
                best[at] = sorted([*best[at], *((float(-row[n]), int(part[n])) for n in top)])[:K]
        return [{row for _, row in each} for each in best]


def cpu_of(pid: int) -> float:
    """Seconds of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(
    system: str,
    asked: Asked,
    name: str,
    found: Callable[[np.ndarray], Sequence[int]],
    others: Callable[[], Sequence[int]] = tuple,
) -> float:
    """As `measure_all`, of one that is asked question by question."""

    def every(queries: np.ndarray) -> Answered:
        walls, answers = [], []
        for query in queries:
            began = time.perf_counter()
            answers.append(found(query))
            walls.append(time.perf_counter() - began)
        return walls, answers

    return measure_all(system, asked, name, every, others)


def measure_all(
    system: str,
    asked: Asked,
    name: str,
    every: Callable[[np.ndarray], Answered],
    others: Callable[[], Sequence[int]] = tuple,
) -> float:
    """Prints a row as JSON; its recall. `every`: seconds and answers of questions. `others`: processes whose time counts as well."""
    kind, share = name.split("-")
    mask = asked.masks[name]
    queries = asked.queries if kind == "none" else asked.queries[:FEW]
    right = asked.truth(mask, queries)
    every(queries[:5])
    before = time.process_time() + sum(map(cpu_of, others()))
    walls, answers = every(queries)
    cpu = time.process_time() + sum(map(cpu_of, others())) - before
    hits = sum(len(wanted.intersection(answer)) for wanted, answer in zip(right, answers, strict=True))
    recall = hits / sum(map(len, right))
    row = {"system": system, "filter": kind, "share": float(share), "recall": recall}
    print(json.dumps({**row, "per_cpu_s": len(queries) / cpu, "p50_ms": 1000 * statistics.median(walls)}), flush=True)
    return recall
