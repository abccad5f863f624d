"""A graph is made by a child: it takes minutes of a core, and what goes wrong there goes wrong in nobody's server.

The child makes the file, opens it again, and measures how much effort its recall needs. Run as `python -m retrieval.index.building`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Final

import msgspec
import numpy as np

from retrieval.index import artefact
from retrieval.index.artefact import Manifest
from retrieval.index.hnsw import Hnsw
from retrieval.index.matrix import Matrix
from retrieval.index.ports import Graph, GraphEngine, Vectors

EFFORTS: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
RECALL: Final = 0.995  # at 10, of the sample; what is promised is 0.99
SAMPLE: Final = 128
PATIENCE_S: Final = 6 * 3600.0
LOOK_S: Final = 0.2


class Made(msgspec.Struct, frozen=True):
    effort: int
    recall: float


class NotMade(Exception):
    """The child ended without a graph that is worth its name."""


def build(folder: Path, manifest: Manifest, given_up: Event) -> Manifest:
    """Blocks. Inside `artefact.writing`: the manifest with a graph. Raises NotMade, soon after it is given up as well."""
    path = folder / f"{manifest.generation}.graph"
    command = [sys.executable, "-m", __name__, str(folder / manifest.files["vectors"].name), str(path)]
    command += [str(manifest.rows), str(manifest.dimensions)]
    try:
        made = msgspec.json.decode(_output(command, given_up), type=Made)
    except NotMade:
        path.unlink(missing_ok=True)
        raise
    return artefact.with_graph(manifest, Hnsw.name, path, made.effort)


def _output(command: Sequence[str], given_up: Event) -> str:
    """Raises NotMade."""
    root, until = str(Path(__file__).parents[2]), time.monotonic() + PATIENCE_S
    with subprocess.Popen(  # noqa: S603 — our own module
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        told = None
        while told is None:
            try:
                told, complaint = child.communicate(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                if given_up.is_set() or time.monotonic() > until:
                    child.kill()
                    raise NotMade("given up" if given_up.is_set() else f"not within {PATIENCE_S:.0f} s") from None
            else:
                if child.returncode != 0:
                    raise NotMade(f"the child ended with {child.returncode}: {complaint.strip()[-300:]}")
    return told


def measured(graph: Graph, vectors: Vectors) -> Made:
    """The least effort that finds what there is. Raises NotMade."""
    random = np.random.default_rng(1)
    picked = np.asarray(vectors[random.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)])
    noise = random.standard_normal(picked.shape, np.float32) / np.float32(np.sqrt(picked.shape[1]))
    noise[: len(noise) // 2] *= 0.1  # some questions are close to a passage, others are not
    queries = picked + 0.5 * noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    matrix = Matrix(vectors)
    truths = [set(matrix.search(query, 10, None, len(vectors)).slots.tolist()) for query in queries]
    recall = 0.0
    for effort in EFFORTS:
        found = [
            len(truth.intersection(graph.search(query, 10, effort).slots.tolist()))
            for query, truth in zip(queries, truths, strict=True)
        ]
        recall = sum(found) / sum(len(truth) for truth in truths)
        if recall >= RECALL:
            return Made(effort, recall)
    raise NotMade(f"its recall is {recall:.3f} at the most effort")


def main(vectors_file: str, path: str, rows: str, dimensions: str) -> None:
    """Prints a `Made` as JSON."""
    os.nice(10)
    engine: GraphEngine = Hnsw()
    vectors = np.memmap(vectors_file, "<f4", "r", shape=(int(rows), int(dimensions)))
    engine.build(vectors, Path(path))
    made = measured(engine.load(Path(path), int(rows), int(dimensions)), vectors)
    sys.stdout.write(json.dumps(msgspec.to_builtins(made)))


if __name__ == "__main__":
    main(*sys.argv[1:])
