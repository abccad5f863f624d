"""Entries on disk: an append-only log in a few files, of which the oldest goes when there is no more room.

A process that dies in the middle of a write leaves a torn end, and a disk may lose or change what it was given. So every record has a
check over its head and one over its content: reading a file stops at the first head that is wrong, and content that is wrong is a
miss. Nothing is synced: what is lost is asked again.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

from gateway.cache.entry import KEY_BYTES, Entry, packed, unpacked

FILES: Final = 8  # an eighth of the room is given up at a time
MAX_PLACES: Final = 65_536  # some 20 MB of memory that say where things lie
_HEAD: Final = struct.Struct(f">4s{KEY_BYTES}sdI")  # magic, key, when it expires, length
_CHECK: Final = struct.Struct(">I")
_MAGIC: Final = b"PSC1"
HEAD_BYTES: Final = _HEAD.size + _CHECK.size


class Place(NamedTuple):
    """Where an entry's content lies."""

    file: int
    at: int
    length: int
    expires_at: float


@final
class Segments:
    """In a folder of its own. Belongs to one thread, but for `places`, which anybody may look at."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._file_bytes = max(64 * 1024, max_bytes // FILES)
        self.places: dict[bytes, Place] = {}
        self._files: dict[int, int] = {}  # by number, oldest first: descriptors
        self._written = 0
        self._count = 0

    def open(self, unix: float) -> None:
        """Finds what was kept before. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.glob("*.cache"), key=_number):
            number = _number(path)
            self._files[number] = descriptor = os.open(path, os.O_RDONLY)
            for key, place in _records(descriptor, number):
                if place.expires_at > unix:
                    self.places[key] = place
                else:
                    self.places.pop(key, None)
        self._begin()

    def read(self, key: bytes) -> Entry | None:
        place = self.places.get(key)
        if place is None:
            return None
        descriptor = self._files.get(place.file)
        try:
            raw = b"" if descriptor is None else os.pread(descriptor, place.length, place.at)
        except OSError:
            raw = b""
        entry = unpacked(raw, key)
        if entry is None:
            self.places.pop(key, None)
        return entry

    def write(self, entry: Entry) -> None:
        """Raises OSError; then nothing of it is found again."""
        raw = packed(entry)
        if len(raw) > self._file_bytes:
            return
        if self._written + HEAD_BYTES + len(raw) > self._file_bytes or self._count >= MAX_PLACES // FILES:
            self._begin()
        head = _HEAD.pack(_MAGIC, entry.key, entry.expires_at, len(raw))
        number = next(reversed(self._files))
        whole = head + _CHECK.pack(zlib.crc32(head)) + raw
        at = self._written + HEAD_BYTES
        if os.pwrite(self._files[number], whole, self._written) < len(whole):
            raise OSError("the disk took only a part of it")
        self._written += len(whole)
        self._count += 1
        self.places[entry.key] = Place(number, at, len(raw), entry.expires_at)

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        self.places = {}

    def _begin(self) -> None:
        """A new file. One that an earlier process wrote is never added to: its end may be torn."""
        number = next(reversed(self._files), 0) + 1
        path = self._folder / f"{number:08d}.cache"
        self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._written = self._count = 0
        while len(self._files) > FILES or self._size() > FILES * self._file_bytes:
            self._forget(next(iter(self._files)))

    def _size(self) -> int:
        """With the new file as large as it may become."""
        *older, _ = self._files.values()
        return sum(os.fstat(descriptor).st_size for descriptor in older) + self._file_bytes

    def _forget(self, number: int) -> None:
        os.close(self._files.pop(number))
        (self._folder / f"{number:08d}.cache").unlink(missing_ok=True)
        for key in [key for key, place in self.places.items() if place.file == number]:
            del self.places[key]


def _records(descriptor: int, number: int) -> Iterator[tuple[bytes, Place]]:
    size = os.fstat(descriptor).st_size
    at = 0
    while at + HEAD_BYTES <= size:
        raw = os.pread(descriptor, HEAD_BYTES, at)
        head = raw[: _HEAD.size]
        magic, key, expires_at, length = _HEAD.unpack(head)
        at += HEAD_BYTES
        if magic != _MAGIC or _CHECK.unpack(raw[_HEAD.size :])[0] != zlib.crc32(head) or at + length > size:
            return
        yield key, Place(number, at, length, expires_at)
        at += length


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0
