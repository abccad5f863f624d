"""What every system of `benchmarks.engines` is asked, and how its answers are measured. NumPy alone: it runs in two environments.

The first half of the questions is there to find an effort with, the second to be measured by.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

K = 10
Answered = tuple[
    Sequence[float], Sequence[Sequence[int]]
]  # seconds and answers: of all questions, or of the first ones
Answering = Callable[[np.ndarray], Answered]
PATIENCE_S = 4.0  # with a system under one filter: some take a second for each question
LEAST = 3  # questions, however long they take


class Asked:
    """`folder` as `benchmarks.engines.make` leaves it."""

    def __init__(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.masks = dict(np.load(folder / "masks.npz"))
        queries = np.load(folder / "queries.npy")
        half = len(queries) // 2
        self.tuning, self.queries = queries[:half], queries[half:]
        self._truths = np.load(folder / "truths.npz")
        self._half = half

    def truth(self, name: str) -> list[set[int]]:
        """The neighbours of each of `queries` under a filter."""
        return [set(row[row >= 0].tolist()) for row in self._truths[name][self._half :]]

    def recall(self, answers: Sequence[Sequence[int]]) -> float:
        """Without a filter, of answers to `tuning`."""
        right = self._truths["none-1.0"][: self._half]
        hits = sum(len(set(row.tolist()).intersection(found)) for row, found in zip(right, answers, strict=True))
        return hits / (K * len(right))


def one_by_one(found: Callable[[np.ndarray], Sequence[int]]) -> Answering:
    """Of a system that is asked question by question, until it has had its time."""

    def every(queries: np.ndarray) -> Answered:
        walls: list[float] = []
        answers: list[Sequence[int]] = []
        until = time.perf_counter() + PATIENCE_S
        for query in queries:
            began = time.perf_counter()
            if began > until and len(walls) >= LEAST:
                break
            answers.append(found(query))
            walls.append(time.perf_counter() - began)
        return walls, answers

    return every


def serve(
    system: str, asked: Asked, answering: Callable[[str], Answering], others: Callable[[], Sequence[int]] = tuple
) -> None:
    """Says on its standard output that it is ready, and a row as JSON for each name of a filter on its standard input.

    `others`: processes whose time counts as well.
    """
    print(json.dumps({"system": system}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_measured(asked, line.strip(), answering(line.strip()), others)), flush=True)


def _measured(asked: Asked, name: str, every: Answering, others: Callable[[], Sequence[int]]) -> dict[str, float | str]:
    right = asked.truth(name)
    every(asked.queries[:LEAST])
    before = time.process_time() + sum(map(cpu_of, others()))
    walls, answers = every(asked.queries)
    cpu = time.process_time() + sum(map(cpu_of, others())) - before
    right = right[: len(answers)]
    hits = sum(len(wanted.intersection(answer)) for wanted, answer in zip(right, answers, strict=True))
    return {
        "recall": hits / sum(map(len, right)),
        "cpu_s": cpu / len(answers),
        "p50_s": statistics.median(walls),
        "took_s": sum(walls),
    }


def cpu_of(pid: int) -> float:
    """Seconds of a process and its threads, exact to what the scheduler knows."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
