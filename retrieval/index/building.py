"""A graph is made by a child: it takes minutes of a core, and what goes wrong there goes wrong in nobody's server.

The child makes the file, opens it again, and measures how much effort its recall needs. Run as `python -m retrieval.index.building`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Final

import msgspec
import numpy as np

from retrieval.index import artefact, engines
from retrieval.index.artefact import Manifest
from retrieval.index.matrix import Matrix
from retrieval.index.planner import CERTAIN, Costs
from retrieval.index.ports import EngineAway, Graph, NotMade, Rows, Vector, Vectors
from retrieval.index.settings import RECALL, EngineSettings, Quantization

EFFORTS: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
SAMPLE: Final = 128
TIMED: Final = 15  # searches, for what they cost
SIGHT: Final = 300
COMPARED: Final = 5000
PATIENCE_S: Final = 6 * 3600.0
LOOK_S: Final = 0.2
OPEN_S: Final = 300.0


class Wanted(msgspec.Struct, frozen=True):
    """What the child is told: on its standard input, as there may be passwords in it."""

    engine: str
    settings: EngineSettings
    quantization: Quantization
    collection_id: str


class Made(msgspec.Struct, frozen=True):
    """`seconds`: it took to build, without what was measured afterwards."""

    effort: int
    recall: float
    seconds: float = 0.0
    costs: Costs | None = None


class _Task(msgspec.Struct, frozen=True):
    wanted: Wanted
    manifest: Manifest
    folder: str
    path: str


def build(folder: Path, manifest: Manifest, wanted: Wanted, given_up: Event) -> Manifest:
    """Blocks. Inside `artefact.writing`: the manifest with a graph. Raises NotMade, soon after it is given up as well."""
    path = (folder / manifest.files["vectors"].name).with_suffix(".graph")
    task = msgspec.json.encode(_Task(wanted, manifest, str(folder), str(path)))
    made = _made(task, path, given_up)
    return artefact.with_graph(manifest, wanted.engine, wanted.quantization, path, made.effort, made.costs)


def tried(folder: Path, manifest: Manifest, wanted: Wanted) -> tuple[float, int]:
    """Blocks. Seconds that a graph takes to build, and the bytes of its file. It is for nobody. Raises NotMade."""
    path = folder / "tried.graph"
    made = _made(msgspec.json.encode(_Task(wanted, manifest, str(folder), str(path))), path, Event())
    return made.seconds, path.stat().st_size


def _made(task: bytes, path: Path, given_up: Event) -> Made:
    try:
        return msgspec.json.decode(_output([sys.executable, "-m", __name__], task, given_up), type=Made)
    except NotMade:
        path.unlink(missing_ok=True)
        raise


def _output(command: Sequence[str], task: bytes, given_up: Event) -> bytes:
    """Raises NotMade."""
    root, until = str(Path(__file__).parents[2]), time.monotonic() + PATIENCE_S
    with subprocess.Popen(  # noqa: S603 — our own module
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        told: bytes | None = None
        given: bytes | None = task
        while told is None:
            try:
                told, complaint = child.communicate(given, timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                given = None  # it was taken
                if given_up.is_set() or time.monotonic() > until:
                    child.kill()
                    raise NotMade("given up" if given_up.is_set() else f"not within {PATIENCE_S:.0f} s") from None
            else:
                if child.returncode != 0:
                    last = complaint.decode(errors="replace").strip()[-300:]
                    raise NotMade(f"the child ended with {child.returncode}: {last}")
    return told


def measured(graph: Graph, rows: Rows, promised: float = RECALL) -> Made:
    """The least effort that finds what there is: half of what may be missed, as a sample is only a sample. Raises NotMade."""
    wanted = (1 + promised) / 2
    vectors = rows.vectors
    random = np.random.default_rng(1)
    picked = np.asarray(vectors[random.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)])
    noise = random.standard_normal(picked.shape, np.float32) / np.float32(np.sqrt(picked.shape[1]))
    noise[: len(noise) // 2] *= 0.1  # some questions are close to a passage, others are not
    queries = picked + 0.5 * noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    matrix = Matrix(vectors)
    truths = [set(matrix.search(query, 10, None, len(vectors)).slots.tolist()) for query in queries]
    fetch = int(10 / CERTAIN) + 2 if graph.coarse else 10  # as `State` asks it
    recall = 0.0
    for effort in EFFORTS:
        found = []
        for query, truth in zip(queries, truths, strict=True):
            slots = graph.search(query, fetch, max(fetch, effort)).slots
            if graph.coarse:
                slots = matrix.rescored(slots, query).slots[:10]
            found.append(len(truth.intersection(slots.tolist())) / len(truth))
        recall = float(np.mean(found))
        if recall >= wanted:
            return Made(effort, recall, costs=_costs(graph, matrix, queries))
    raise NotMade(f"its recall is {recall:.3f} at the most effort")


def _costs(graph: Graph, matrix: Matrix, queries: Vectors) -> Costs:
    """In time of this process, medians: the machine may be busy with others. What an engine does elsewhere is not in it."""
    random = np.random.default_rng(2)
    picked = np.sort(random.choice(matrix.rows, min(COMPARED, matrix.rows), replace=False)).astype(np.int64)

    def median(work: Callable[[Vector], object]) -> float:
        seconds = []
        for query in queries[:TIMED]:
            began = time.process_time()
            work(query)
            seconds.append(time.process_time() - began)
        return 1e6 * float(np.median(seconds))

    return Costs(
        median(lambda query: graph.search(query, SIGHT, SIGHT)) / SIGHT,
        median(lambda query: matrix.search_among(picked, query, 10)) / len(picked),
    )


def main() -> None:
    """Prints a `Made` as JSON."""
    os.nice(10)
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    wanted, files = task.wanted, task.manifest.files
    folder, path = Path(task.folder), Path(task.path)
    shape = (task.manifest.rows, task.manifest.dimensions)
    rows = Rows(
        np.memmap(folder / files["vectors"].name, "<f4", "r", shape=shape),
        np.fromfile(folder / files["ids"].name, "<i8"),
        np.fromfile(folder / files["owners"].name, "<i8"),
    )
    # A build asks for more at a time than a search, on a machine that is busy with it.
    settings = msgspec.structs.replace(wanted.settings, timeout_s=max(30.0, wanted.settings.timeout_s))
    engine = engines.made(wanted.engine, settings, wanted.quantization)
    try:
        began = time.monotonic()
        engine.build(rows, path, wanted.collection_id, task.manifest.generation)
        seconds = time.monotonic() - began
        graph = engine.load(path, rows)
        if not graph.ready(OPEN_S):
            raise NotMade("it cannot be opened")  # noqa: TRY301 — as the others
        made = msgspec.structs.replace(measured(graph, rows, settings.recall), seconds=seconds)
        graph.close()
    except (NotMade, EngineAway) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(msgspec.to_builtins(made)))


if __name__ == "__main__":
    main()
