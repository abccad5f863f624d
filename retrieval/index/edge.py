"""qdrant-edge, an embedded engine, in a process of its own: its optimiser holds the interpreter's lock, and it trusts its files.

A graph is a shard that was made once, packed into one file of the artefact, and unpacked by each process that searches it: a shard is
its opener's alone, and changes when it is opened. What dies or hangs is killed and started again; meanwhile everything is compared.
"""

import fcntl
import os
import secrets
import select
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Final, final

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.guard import SILENCE_S, Guard
from retrieval.index.ports import EngineAway, Hits, Ids, NotMade, Rows, Vector
from retrieval.index.settings import EngineSettings, Quantization

FIELD: Final = "document"
LINKS: Final = 16
BUILD_EFFORT: Final = 200
TOGETHER: Final = 1000
FULL_SCAN_KB: Final = 4096  # below it the engine compares what passes a filter
OVERSAMPLING: Final = {"int8": 1.5, "binary": 4.0}
LOCK: Final = "owner"
SHARD: Final = "shard-"

REQUEST: Final = struct.Struct("<III")  # k, effort, number of documents; then the query and the documents
ANSWER: Final = struct.Struct("<i")  # number of hits, then slots and scores; -1 and the length of a complaint
LENGTH: Final = struct.Struct("<I")


@final
class Edge:
    """A `GraphEngine`."""

    name = "qdrant_edge"

    def __init__(self, settings: EngineSettings, quantization: Quantization = "none") -> None:
        self._settings = settings
        self._quantization = quantization

    def build(self, rows: Rows, path: Path, collection_id: str = "", generation: int = 0) -> None:
        del collection_id, generation
        edge = _library()
        for left in path.parent.glob(f"{SHARD}*"):  # of a build that was killed; the folder is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=SHARD, dir=path.parent) as folder:
            shard = edge.EdgeShard.create(folder, _config(edge, rows.vectors.shape[1], self._quantization))
            operation = edge.UpdateOperation
            # Before anything is optimised: a field that is indexed later costs filtered searches their recall.
            shard.update(operation.create_field_index(FIELD, edge.PayloadSchemaType.Integer))
            for start in range(0, len(rows.ids), TOGETHER):
                some = zip(
                    range(start, len(rows.ids)),
                    np.asarray(rows.vectors[start : start + TOGETHER]).tolist(),
                    rows.documents[start : start + TOGETHER].tolist(),
                    strict=False,
                )
                shard.update(operation.upsert_points([edge.Point(at, one, {FIELD: of}) for at, one, of in some]))
            while shard.optimize():
                pass
            shard.flush()
            if shard.info().points_count != len(rows.ids):
                raise NotMade(f"{shard.info().points_count} points of {len(rows.ids)}")
            shard.close()
            with tarfile.open(path, "w") as packed:
                packed.add(folder, arcname=".")

    def load(self, path: Path, rows: Rows) -> "EdgeGraph":
        _library()
        count, dimensions = rows.vectors.shape
        return EdgeGraph(path, count, dimensions, self._settings.timeout_s, self._quantization)

    def drop(self, collection_id: str) -> None:
        """Nothing is anywhere else."""

    def close(self) -> None:
        """Each graph is closed by itself."""


@final
class EdgeGraph:
    """One search at a time, each within the deadline."""

    engine = Edge.name
    filters = True
    inside = False
    lost = False

    def __init__(
        self,
        path: Path,
        rows: int,
        dimensions: int,
        timeout_s: float,
        quantization: Quantization = "none",
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.rows = rows
        self.nbytes = 0
        self.coarse = quantization != "none"
        self._path = path
        self._dimensions = dimensions
        self._timeout_s = timeout_s
        self._quantization = quantization
        self._guard = Guard(self.engine, (OSError, ValueError), silence_s)
        self._turn = threading.Lock()
        self._child: _Child | None = None
        self._closed = False
        self._start()

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        with self._guard.call():
            if not self._turn.acquire(timeout=self._timeout_s):
                raise EngineAway("too many searches wait for it")
            try:
                return self._search(query, min(k, self.rows), effort, documents)
            finally:
                self._turn.release()

    def ready(self, timeout_s: float) -> bool:
        """Whether it answers by then; searches do not wait for that."""
        with self._turn:
            return self._child is not None and self._child.ready(timeout_s)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._stop()

    def _search(self, query: Vector, k: int, effort: int, documents: Ids | None) -> Hits:
        if self._child is None or self._child.process.poll() is not None:
            self._stop()
            self._start()
        child = self._child
        if child is None or not child.ready(0):
            if child is not None and child.process.poll() is None:
                raise EngineAway("it is not open yet")
            raise EngineAway("it cannot be opened")
        asked = np.zeros(0, np.int64) if documents is None else documents
        try:
            until = time.monotonic() + self._timeout_s
            child.write(REQUEST.pack(k, effort, len(asked)) + query.astype("<f4").tobytes() + asked.tobytes(), until)
            return child.hits(until)
        except (OSError, EngineAway):
            self._stop()  # what it would still say belongs to no search any more
            raise

    def _start(self) -> None:
        if not self._closed:
            self._child = _Child(self._path, self._dimensions, self._quantization)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def __del__(self) -> None:
        with suppress(Exception):
            self._stop()


class _Child:
    """The process, and the folder where it unpacks the shard: locked for as long as one of us lives."""

    def __init__(self, path: Path, dimensions: int, quantization: Quantization) -> None:
        _sweep(path.parent)
        self.folder = path.parent / f"edge-{secrets.token_hex(8)}"
        self.folder.mkdir(mode=0o700)
        with (self.folder / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = [sys.executable, "-m", "retrieval.index.edge_worker", str(path), str(self.folder)]
            self.process = subprocess.Popen(  # noqa: S603 — our own module
                [*command, str(dimensions), quantization],
                cwd=str(Path(__file__).parents[2]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock.fileno(),),
            )
        self._opened = False
        os.set_blocking(self._in.fileno(), False)

    @property
    def _in(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ready(self, timeout_s: float) -> bool:
        if not self._opened:
            until = time.monotonic() + timeout_s
            try:
                self._opened = len(self.hits(until)) == 0
            except (EngineAway, OSError):
                return False
        return self._opened

    def write(self, data: bytes, until: float) -> None:
        """Raises EngineAway, OSError."""
        while data:
            _wait(self._in, select.POLLOUT, until)
            data = data[os.write(self._in.fileno(), data) :]

    def hits(self, until: float) -> Hits:
        """Raises EngineAway, OSError."""
        (count,) = ANSWER.unpack(self._read(ANSWER.size, until))
        if count < 0:
            (length,) = LENGTH.unpack(self._read(LENGTH.size, until))
            raise EngineAway(self._read(length, until).decode(errors="replace"))
        slots = np.frombuffer(self._read(8 * count, until), "<i8")
        return Hits(slots.astype(np.int64), np.frombuffer(self._read(4 * count, until), "<f4").astype(np.float32))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, size: int, until: float) -> bytes:
        data = b""
        while len(data) < size:
            _wait(self._out, select.POLLIN, until)
            more = os.read(self._out.fileno(), size - len(data))
            if not more:
                raise EngineAway("its process ended")
            data += more
        return data


def _wait(pipe: IO[bytes], event: int, until: float) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise EngineAway("no answer within the deadline")


def _sweep(folder: Path) -> None:
    """What processes left that were killed."""
    for left in folder.glob("edge-*"):
        with suppress(OSError), (left / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def _config(edge: ModuleType, dimensions: int, quantization: Quantization) -> object:
    made: dict[Quantization, Callable[[], object]] = {
        "none": lambda: None,
        "int8": lambda: edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=True),
        "binary": lambda: edge.BinaryQuantizationConfig(always_ram=True),
    }
    return edge.EdgeConfig(
        edge.EdgeVectorParams(dimensions, edge.Distance.Dot, quantization_config=made[quantization]()),
        hnsw_config=edge.HnswIndexConfig(LINKS, BUILD_EFFORT, FULL_SCAN_KB, max_indexing_threads=1),
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
    )


def installed() -> bool:
    try:
        _library()
    except Unavailable:
        return False
    return True


def _library() -> ModuleType:
    try:
        import qdrant_edge  # noqa: PLC0415 — an extra
    except ImportError as error:
        raise Unavailable("The engine qdrant_edge needs its library: install the extra `qdrant-edge`") from error
    library: ModuleType = qdrant_edge
    return library
