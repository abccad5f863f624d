"""What was asked and answered, kept for labels and monitors: first appended to a file of this process, then a row of the database.

A capture is in the file before its answer is sent, so that `kill -9` loses none that a client has seen. Everything is
bounded: what of one call is kept, the files that the database has not taken yet, the rows of the table. What is left out is counted.
"""

import asyncio
import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final
from zlib import crc32

import msgspec
import structlog
from numpy.typing import NDArray

from inference.stacked import Stacked

log = structlog.stdlib.get_logger(__name__)

FACTS: Final = 14  # fields of `Captured` before inputs and outputs
FRAME: Final = struct.Struct("<II")  # length and checksum of what follows
SUFFIX: Final = ".capture"
REDACTED: Final = "[redacted]"
SEGMENT_BYTES: Final = 8 << 20
SHIP_S: Final = 1.0
LOOK_S: Final = 60.0  # between looks for files that a dead process has left

Arrays = Mapping[str, NDArray[Any]]


class Captured(NamedTuple):
    """The facts of one call; `error` is a code. `inputs` and `outputs` are JSON."""

    id: str
    at: float
    model: str
    version: int
    arm: str
    rollout: str | None
    key_id: str
    team_id: str | None
    org_id: str | None
    error: str | None
    valid: bool
    latency_s: float
    cost_nanousd: int
    rows: int
    inputs: bytes | None = None
    outputs: bytes | None = None


class Terms(msgspec.Struct, frozen=True):
    """`sample`: the share of calls that is kept, `samples` that of a model.

    `redact`: columns whose values are not kept, by model; `*`: every one.

    `call_bytes`: of one call's inputs and outputs together. `file_bytes`: of all files that are not in the database yet.
    """

    sample: float = 1.0
    samples: Mapping[str, float] = {}
    redact: Mapping[str, frozenset[str]] = {}
    call_bytes: int = 256 << 10
    file_bytes: int = 256 << 20


_encode = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode
_decode = msgspec.msgpack.Decoder(Captured).decode

Store = Callable[[list[Captured]], None]


@final
class Capture:
    """Lives on one event loop. `store` writes to the database, in a thread, and a call twice only once; `random` is in [0, 1)."""

    def __init__(self, folder: Path, terms: Terms, store: Store, random: Callable[[], float]) -> None:
        self._folder = folder
        self._terms = terms
        self._store = store
        self._random = random
        self._file = -1
        self._path: Path | None = None
        self._written = 0
        self._waiting: list[tuple[int, Path, int]] = []  # locked files that the database has not taken yet
        self._serial = 0
        self.kept = 0
        self.dropped = 0  # there was no room
        self.cut = 0  # too large: their facts alone are kept

    def take(self, facts: Captured, inputs: Arrays, outputs: Arrays) -> None:
        """Appends to the file: what the kernel has, no end of this process takes away."""
        terms = self._terms
        share = terms.samples.get(facts.model, terms.sample)
        if share < 1 and self._random() >= share:
            return
        hidden = terms.redact.get(facts.model, ())
        whole: tuple[bytes | None, bytes | None] = _json(_shown(inputs, hidden)), _json(_shown(outputs, hidden))
        if len(whole[0] or b"") + len(whole[1] or b"") > terms.call_bytes:
            whole = None, None
            self.cut += 1
        body = _encode((*facts[:FACTS], *whole))
        self._append(FRAME.pack(len(body), crc32(body)) + body)

    async def run(self) -> None:
        """Brings files into the database until cancelled; also those of processes that are gone."""
        looked = -LOOK_S
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() - looked >= LOOK_S:
                looked = loop.time()
                self._waiting += await asyncio.to_thread(abandoned, self._folder)
            await self.ship()
            await asyncio.sleep(SHIP_S)

    async def ship(self) -> None:
        """What was captured so far is in the database, unless that is away: then it stays in its files."""
        self._roll()
        while self._waiting:
            file, path, _ = self._waiting[0]
            try:
                await asyncio.to_thread(self._bring, file, path)
            except Exception as error:  # noqa: BLE001 whatever the database says: it is tried again
                log.warning("captures.not_stored", reason=type(error).__name__, files=len(self._waiting))
                return
            del self._waiting[0]

    async def close(self) -> None:
        await self.ship()
        for file, _, _ in self._waiting:
            os.close(file)
        self._waiting = []

    def _append(self, data: bytes) -> None:
        if self._pending + self._written + len(data) > self._terms.file_bytes:
            self.dropped += 1
            return
        try:
            if self._file < 0:
                self._open()
            _write(self._file, data)
        except OSError as error:
            self.dropped += 1
            log.error("captures.not_written", reason=error.strerror)  # noqa: TRY400 the reason says it all
            return
        self.kept += 1
        self._written += len(data)
        if self._written > SEGMENT_BYTES:
            self._roll()

    def _open(self) -> None:
        """A new file, locked before it is seen under its name."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._serial += 1
        name = f"{os.getpid()}-{os.urandom(4).hex()}-{self._serial}"
        fresh = self._folder / f".{name}.new"
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = fresh.rename(self._folder / f"{name}{SUFFIX}")
        self._file = file

    @property
    def _pending(self) -> int:
        return sum([size for _, _, size in self._waiting]) if self._waiting else 0

    def _roll(self) -> None:
        if self._file >= 0 and self._path is not None:
            self._waiting.append((self._file, self._path, self._written))
            self._file, self._path, self._written = -1, None, 0

    def _bring(self, file: int, path: Path) -> None:
        rows = read(path)
        if rows:
            self._store(rows)
        path.unlink()
        os.close(file)


def read(path: Path) -> list[Captured]:
    """All that is whole: a crash may have torn the last one."""
    data, rows, first = path.read_bytes(), [], 0
    while first + FRAME.size <= len(data):
        size, checksum = FRAME.unpack_from(data, first)
        body = data[first + FRAME.size : first + FRAME.size + size]
        if len(body) < size or crc32(body) != checksum:
            break
        rows.append(_decode(body))
        first += FRAME.size + size
    return rows


def abandoned(folder: Path) -> list[tuple[int, Path, int]]:
    """Files whose process is gone, locked for this one."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append((file, path, path.stat().st_size))
        except OSError:  # its process lives, or another one was faster
            os.close(file)
    return found


def _shown(arrays: Arrays, hidden: frozenset[str] | tuple[()]) -> dict[str, Any]:
    if not hidden:
        if type(arrays) is Stacked:
            columns = arrays.matrix.T.tolist() if arrays.given is None else zip(*arrays.given, strict=True)
            return dict(zip(arrays.names, columns, strict=True))
        return {name: array.tolist() for name, array in arrays.items()}
    everything = "*" in hidden
    return {name: REDACTED if everything or name in hidden else array.tolist() for name, array in arrays.items()}


def _write(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
