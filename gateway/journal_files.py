"""A session's directory on disk: who owns it, which segments it has, and how they are read."""

import fcntl
import mmap
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, final
from zlib import crc32

import msgspec

from gateway.journal_records import Record

MAGIC: Final = b"PSJRNL01"
HEADER: Final = struct.Struct("<8sQI")
FRAME: Final = struct.Struct("<II")

_HEAD: Final = struct.Struct("<8sQ")
_LOCK: Final = "lock"

READ_BYTES: Final = 64 * 1024  # of one piece: small enough for the heap, so that no pages come and go
RUN_BYTES: Final = 4 * 1024 * 1024


@final
class Session:
    """A directory that this process has locked."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.id = directory.name
        self._lock = lock

    def remove(self) -> None:
        """Renamed first, so that nobody finds half of a session."""
        gone = self.directory.with_name(f".{self.id}.gone")
        self.directory.rename(gone)
        shutil.rmtree(gone)

    def unlock(self) -> None:
        os.close(self._lock)


def start_session(data_dir: Path, session: str) -> Session:
    """A new directory, locked before it is seen under its name."""
    home = data_dir / "journal"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = home / f".{session}.new"
    made.mkdir(mode=0o700)
    lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.rename(home / session)
    return Session(home / session, lock)


def abandoned(data_dir: Path) -> Iterator[Session]:
    """The sessions whose owner is gone, locked for the caller, oldest first."""
    home = data_dir / "journal"
    names = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    for name in names:
        session = None if name.startswith(".") else _take(home / name)
        if session is not None:
            yield session


def _take(directory: Path) -> Session | None:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have recovered and removed it between open and flock.
        if os.fstat(lock).st_ino == (directory / _LOCK).stat().st_ino:
            return Session(directory, lock)
    except OSError:
        pass
    os.close(lock)
    return None


def segments(directory: Path) -> list[Path]:
    """In the order of their records. The last may not be in use yet."""
    return sorted(directory.glob("*.seg"))


def segment_path(directory: Path, index: int) -> Path:
    return directory / f"{index:08d}.seg"


class Run(msgspec.Struct, frozen=True, gc=False):
    """Consecutive records as they were written. `full`: it ended for its size, and there may be more at once."""

    first: int
    payloads: Sequence[bytes]
    full: bool = False

    @property
    def end(self) -> int:
        """The number of the record that is due next."""
        return self.first + len(self.payloads)

    def since(self, number: int) -> "Run":
        """Without the records before `number`."""
        if number <= self.first:
            return self
        return Run(min(number, self.end), self.payloads[number - self.first :], self.full)


@final
class Reader:
    """Reads a journal in order, also while this process writes it."""

    def __init__(self, directory: Path) -> None:
        """At the oldest record that is still there."""
        self._directory = directory
        self._view: mmap.mmap | None = None
        indexes = [int(path.stem) for path in segments(directory)]
        self._segment = min(indexes, default=1)
        self._offset = HEADER.size
        self._number = 0
        self._number = self._open(self._segment) or 0

    @property
    def number(self) -> int:
        """Of the next record."""
        return self._number

    @property
    def segment(self) -> int:
        """That the next record is in, or will be, unless it is the first of a new one."""
        return self._segment

    def read(self, limit: int) -> Run:
        """Up to `limit` records or about RUN_BYTES; fewer only at the end, which is before the first frame that is not whole."""
        first, found, room = self._number, list[bytes](), RUN_BYTES
        while True:
            room -= self._read_segment(found, limit, room)
            if len(found) == limit or room <= 0:
                return Run(first, found, full=True)
            if not self._turn():
                return Run(first, found)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None

    def _read_segment(self, found: list[bytes], limit: int, room: int) -> int:
        """To its last whole frame, or until there is enough; says how many bytes that were.

        By slices of the mapping, which keep the interpreter's lock: to take it back after a system call may take a busy process 5 ms.
        """
        view, began = self._view, self._offset
        if view is None:
            return 0
        while len(found) < limit and self._offset - began < room:
            piece = view[self._offset : self._offset + READ_BYTES]
            taken = self._take(piece, found, limit)
            if not taken and len(piece) == READ_BYTES:  # a record as long as that, or what a frame is not
                size, _ = FRAME.unpack_from(piece)
                taken = self._take(view[self._offset : self._offset + FRAME.size + size], found, limit)
            if not taken:
                break
            self._offset += taken
        return self._offset - began

    def _take(self, piece: bytes, found: list[bytes], limit: int) -> int:
        """Every record of every request passes here: no calls but the needed ones."""
        unpack, number, offset = FRAME.unpack_from, self._number, 0
        whole, last = len(piece), len(piece) - FRAME.size
        room = limit - len(found)
        while room and offset <= last:
            size, checksum = unpack(piece, offset)
            start = offset + 8
            end = start + size
            if not size or end > whole:
                break
            payload = piece[start:end]
            if crc32(payload, number & 0xFFFF_FFFF) != checksum:
                break
            found.append(payload)
            number += 1
            room -= 1
            offset = end
        self._number = number
        return offset

    def _turn(self) -> bool:
        """To the next segment, if it begins with the record that is due: else this one may still grow."""
        return self._open(self._segment if self._view is None else self._segment + 1) is not None

    def _open(self, segment: int) -> int | None:
        """The number of its first record. None, and nothing changed, if it is not in use yet or does not continue this one."""
        try:
            file = os.open(segment_path(self._directory, segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            first = _first(os.pread(file, HEADER.size, 0))
            if first is None or (self._view is not None and first != self._number):
                return None
            view = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        self.close()
        self._view, self._segment, self._offset = view, segment, HEADER.size
        return first


def segment_head(first: int) -> bytes:
    """What makes a segment a part of its journal."""
    return HEADER.pack(MAGIC, first, crc32(_HEAD.pack(MAGIC, first)))


def _first(head: bytes) -> int | None:
    if len(head) < HEADER.size:
        return None
    _, first, _ = HEADER.unpack(head)
    return int(first) if head == segment_head(first) else None


def frame(record: Record, number: int) -> bytes:
    payload = msgspec.msgpack.encode(record)
    return FRAME.pack(len(payload), crc32(payload, number & 0xFFFF_FFFF)) + payload


def add_segment(directory: Path, after: int, first: int, records: Sequence[Record]) -> None:
    """Puts records behind segment `after`, all or none of them; what a power cut left behind that one is forgotten."""
    for path in segments(directory):
        if int(path.stem) > after:
            path.unlink()
    frames = [frame(record, first + index) for index, record in enumerate(records)]
    write_whole(segment_path(directory, after + 1), segment_head(first) + b"".join(frames))


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there as a whole or not at all, and outlives a power cut."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
