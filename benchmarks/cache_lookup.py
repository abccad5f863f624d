"""What a look-up in the cache by meaning costs in a partition of so many questions: by comparing with all, and by its graph.

    python -m benchmarks.cache_lookup [--write]      (make bench-lookup ARGS=…)

CPU time of one thread. The vectors are drawn: topics with some twenty questions each, as long as the embedded model's.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from embedding import bundled
from embedding.engine import Engine
from gateway.cache.index import GRAPH_FROM, Asked, Near, Partition
from gateway.settings import SemanticSpec

MARKS = ("<!-- cache look-up: written by make bench-lookup ARGS=--write -->", "<!-- cache look-up: end -->")
COUNTS = (2_000, 20_000, 100_000)
DIMENSIONS = 384
LOOKUPS = 300
BLOCK = 1_000
NEVER = 1e12
THRESHOLD = 0.6  # eight and more are as near, so that there is something to miss
PATTERNS = (
    "How do I {verb} {thing} number {number}?", "Can you tell me how to {verb} {thing} {number} in {place}?",
    "What is the price to {verb} {thing} for {number} people in {place}?", "How warm is room {number}?",
    "Why can't I {verb} {thing} since the {place} update {number}?",
)  # fmt: skip
VERBS = ("reset", "cancel", "change", "track", "return", "upgrade", "find", "delete", "export", "share")
THINGS = ("my password", "an order", "the invoice", "my plan", "a parcel", "my account", "the report", "a refund")
PLACES = ("Canada", "Kenya", "Mexico", "France", "Japan", "Peru", "Norway", "India", "Chile", "Egypt")
WORDED = 10_000

Rows = NDArray[np.float32]


class Row(NamedTuple):
    """Times are seconds of CPU, memory bytes."""

    questions: int
    exact_s: float
    graph_s: float
    recall: float
    build_s: float
    exact_bytes: int
    graph_bytes: int


def measured(count: int) -> Row:
    random = np.random.default_rng(count)
    topics = random.standard_normal((count // 20, DIMENSIONS), np.float32)
    partition = Partition(count, graph_from=1)
    empty = _resident()
    for start in range(0, count, BLOCK):
        for at, vector in enumerate(_about(random, topics, min(BLOCK, count - start))):
            number = start + at
            partition.add(Asked(number.to_bytes(32, "big"), NEVER, f"What is known about {number}?", vector), 0.0)
    filled = _resident()
    asked = _near(random, partition)
    exact_s, exact = _looked_up(partition, asked)
    began = time.process_time()
    asyncio.run(_grown(partition))
    build_s = time.process_time() - began
    graph_bytes = _resident() - filled
    graph_s, graph = _looked_up(partition, asked)
    return Row(count, exact_s, graph_s, _recall(graph, exact), build_s, filled - empty, graph_bytes)


def worded(count: int = WORDED) -> float:
    """The recall among questions of few patterns, as near to each other as questions get, by the embedded model."""
    random = Random(1)
    texts = sorted({_question(random) for _ in range(count)})
    random.shuffle(texts)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        rows = _unit(asyncio.run(_embedded(texts, Path(folder))))
    partition = Partition(count, graph_from=1)
    for number, (text, vector) in enumerate(zip(texts[LOOKUPS:], rows[LOOKUPS:], strict=True)):
        partition.add(Asked(number.to_bytes(32, "big"), NEVER, text, vector), 0.0)
    _, exact = _looked_up(partition, rows[:LOOKUPS])
    asyncio.run(_grown(partition))
    _, graph = _looked_up(partition, rows[:LOOKUPS])
    return _recall(graph, exact)


def _question(random: Random) -> str:
    return random.choice(PATTERNS).format(
        verb=random.choice(VERBS),
        thing=random.choice(THINGS),
        place=random.choice(PLACES),
        number=random.randint(1, 5000),
    )


async def _embedded(texts: Sequence[str], folder: Path) -> Rows:
    engine = Engine(bundled.MINILM, bundled.opener(folder, threads=1))
    try:
        parts = [(await engine.embed(texts[at : at + 64])).vectors for at in range(0, len(texts), 64)]
    finally:
        await engine.close()
    return np.concatenate(parts).astype(np.float32)


def _recall(found: Sequence[Sequence[Near]], wanted: Sequence[Sequence[Near]]) -> float:
    both = sum(
        len({near.key for near in one} & {near.key for near in each}) for one, each in zip(found, wanted, strict=True)
    )
    return both / sum(len(each) for each in wanted)


async def _grown(partition: Partition) -> None:
    while partition.due:
        await partition.grow()


def _about(random: np.random.Generator, topics: Rows, count: int) -> Rows:
    some = topics[random.integers(0, len(topics), count)]
    return _unit(some + 0.6 * random.standard_normal(some.shape, np.float32))


def _near(random: np.random.Generator, partition: Partition) -> Rows:
    """Other words for questions that are there."""
    numbers = random.integers(0, len(partition), LOOKUPS)
    rows = partition._vectors.of([int(number) for number in numbers])  # noqa: SLF001 — nothing else has them
    return _unit(rows + 0.4 / DIMENSIONS**0.5 * random.standard_normal(rows.shape, np.float32))


def _unit(rows: Any) -> Rows:
    made: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def _looked_up(partition: Partition, asked: Rows) -> tuple[float, list[list[Near]]]:
    """Seconds of each, of the second round: in the first, what questions say is found out."""
    found = [partition.nearest(vector, THRESHOLD, 0.0) for vector in asked]
    began = time.process_time()
    for vector in asked:
        partition.nearest(vector, THRESHOLD, 0.0)
    return (time.process_time() - began) / len(asked), found


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def page(rows: Sequence[Row], recall: float) -> str:
    heads = ("questions", "comparing with all", "graph", "recall of 8", "making the graph", "memory", "of the graph")
    body = [
        (
            f"{row.questions:,}",
            f"{row.exact_s * 1000:.2f} ms",
            f"**{row.graph_s * 1000:.2f} ms**",
            f"{row.recall:.4f}",
            f"{row.build_s:.1f} s",
            f"{row.exact_bytes / 2**20:.0f} MiB",
            f"{row.graph_bytes / 2**20:.0f} MiB",
        )
        for row in rows
    ]
    origin = (
        f"`make bench-lookup`: CPU time of one look-up in one partition, {DIMENSIONS} dimensions, {LOOKUPS} look-ups near questions "
        f"that are there, vectors drawn around topics. A graph is made from {GRAPH_FROM:,} questions on, in a thread; while it is, "
        f"and below, a look-up compares with all. A partition holds {SemanticSpec().max_entries:,} unless `max_entries` says more. "
        f"Among {WORDED:,} questions of a few patterns, by the embedded model, the graph's recall is {recall:.4f}; "
        "what it does not find is asked."
    )
    return "\n\n".join(("### A look-up among many questions", origin, report.table(heads, body)))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench-lookup ARGS=…", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="renew the section in RESULTS.md")
    options = parser.parse_args(arguments)
    made = page([measured(count) for count in COUNTS], worded())
    print(made)
    if options.write:
        report.write_section(Path(__file__).parent / "RESULTS.md", made, MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
