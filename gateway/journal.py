"""The journal of one serving process: what it is about to do and what it did, safe from `kill -9` the moment `append` returns.

One directory per session under `<data_dir>/journal/`, locked (flock) while its owner lives, with segments of a fixed size:

    segment   header | frame | frame | … | zeros
    header    magic, u64 number of its first record, u32 crc32 of both
    frame     u32 length of the payload, u32 crc32 of the payload seeded with the record's number, payload

A segment is allocated and written with zeros before it is used: a full disk is seen then, never as SIGBUS in the middle of
an append, and no request waits for it. It is mapped into memory, so an append is a copy into the page cache, which outlives
the process. A frame that was cut short by a kill, or whose page a power cut lost, fails its checksum; reading stops there.
The seed ties a frame to its place. No file is used twice, so what follows a torn frame is zeros, not an older record.
"""

import contextlib
import mmap
import os
import threading
from pathlib import Path
from typing import Final, Self, final
from zlib import crc32

import msgspec
import structlog

from gateway.journal_files import FRAME, HEADER, Session, segment_head, segment_path, segments, start_session
from gateway.journal_records import Began, Closed, Intent, Opened, Record

MEBI: Final = 1024 * 1024
SEGMENT_BYTES: Final = 4 * MEBI  # mapped pages count as memory until the segment is full
MAX_BYTES: Final = 1024 * MEBI
RETRY_S: Final = 0.5

_ZEROS: Final = bytes(MEBI // 4)

log = structlog.stdlib.get_logger(__name__)


class JournalFull(Exception):
    """The journal may not grow: the disk is full, or what it holds could not be shipped for too long."""


@final
class Journal:
    """Written by one thread. A second one prepares the next segment, and syncs if told to."""

    def __init__(self, session: Session, segment_bytes: int, max_bytes: int, sync_every_s: float | None) -> None:
        self._session = session
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._sync_every_s = sync_every_s
        self._encode = msgspec.msgpack.Encoder().encode
        self._frame = FRAME.pack_into
        self._closed = False
        self._refused = False
        self._allocating = threading.Lock()
        self._retired: list[_Segment] = []
        self._current = _Segment.allocate(session.directory, 1, segment_bytes)
        self._spare: _Segment | None = None
        self._appended = 0
        self._offset: int = HEADER.size
        self._soft_end = 0
        self._use(self._current)
        self._wake = threading.Event()
        self._preparer = threading.Thread(target=self._prepare, name="penstock-journal", daemon=True)

    @classmethod
    def create(
        cls,
        data_dir: Path,
        session: str,
        *,
        at: float,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = MAX_BYTES,
        sync_every_s: float | None = None,
    ) -> Self:
        """A new session's journal with its Opened record. `sync_every_s`: how much a power cut may cost. Raises OSError."""
        journal = cls(start_session(data_dir, session), segment_bytes, max_bytes, sync_every_s)
        journal.append(Opened(session, at))
        journal._preparer.start()
        journal._wake.set()
        return journal

    @property
    def session(self) -> str:
        return self._session.id

    @property
    def directory(self) -> Path:
        return self._session.directory

    @property
    def appended(self) -> int:
        """How many records there are: the number of the next one."""
        return self._appended

    def append(self, record: Record) -> None:
        """Returns when the record is safe from the death of this process. Raises JournalFull, and then nothing was written.

        While there is no next segment, the last quarter of this one is kept for settlements: what a call begins with is refused.
        """
        payload = self._encode(record)
        size = len(payload)
        start = self._offset
        end = start + 8 + size
        if end > self._soft_end:
            start = self._make_room(record, 8 + size)
            end = start + 8 + size
        number = self._appended
        view = self._view
        view[start + 8 : end] = payload
        self._frame(view, start, size, crc32(payload, number & 0xFFFF_FFFF))
        self._offset = end
        self._appended = number + 1

    def segment_released(self) -> None:
        """Called by who deleted a segment that was shipped: there may be room for the next one."""
        self._wake.set()

    def close(self, at: float) -> None:
        """Appends Closed, if there is room; nothing may be appended after that. The session stays locked until `release`."""
        if self._closed:
            return
        with contextlib.suppress(JournalFull):
            self.append(Closed(at))
        self._closed = True
        self._wake.set()
        self._preparer.join()
        for segment in (*self._retired, self._current):
            segment.close(sync=self._sync_every_s is not None)
        if self._spare is not None:
            self._spare.close(sync=False)
            self._spare.path.unlink()

    def release(self, *, remove: bool) -> None:
        """Lets go of the directory after `close`. What is not removed is recovered by the next start."""
        if remove:
            self._session.remove()
        self._session.unlock()

    def _make_room(self, record: Record, size: int) -> int:
        """Where the next frame starts, perhaps in the next segment."""
        if self._closed:
            raise ValueError("the journal is closed")
        fits = self._offset + size <= self._segment_bytes
        begins = type(record) is Began or type(record) is Intent
        if self._spare is None and (not fits or begins) and not self._refused:
            self._allocate_spare()  # the second thread got no time since the last turn; a disk that is full it has seen
        spare = self._spare
        if spare is None:
            if not fits or begins:
                raise JournalFull(
                    "the journal has no room: its disk is full, or the database has been away for too long"
                )
            return self._offset
        if fits:
            self._soft_end = self._segment_bytes
            return self._offset
        if HEADER.size + size > self._segment_bytes:
            raise ValueError(f"a record of {size:,} bytes does not fit into a segment of {self._segment_bytes:,}")
        self._retired.append(self._current)
        self._current, self._spare = spare, None
        self._use(spare)
        self._wake.set()
        return self._offset

    def _use(self, segment: "_Segment") -> None:
        """The header makes it a part of the journal."""
        segment.begin(self._appended)
        self._view = segment.view
        self._offset = HEADER.size
        self._soft_end = self._segment_bytes * 3 // 4

    def _prepare(self) -> None:
        """The second thread: the next segment is ready before this one is full, and the disk has what is older than `sync_every_s`."""
        while not self._closed:
            waits = [RETRY_S] if self._spare is None else []
            waits += [] if self._sync_every_s is None else [self._sync_every_s]
            self._wake.wait(min(waits, default=None))
            self._wake.clear()
            self._allocate_spare()
            try:
                while self._retired:
                    self._retired[0].close(sync=self._sync_every_s is not None)
                    del self._retired[0]
                if self._sync_every_s is not None:
                    os.fdatasync(self._current.file)
            except OSError:
                log.exception("journal.sync_failed", session=self.session)

    def _allocate_spare(self) -> None:
        """`_refused` says that there can be none for now."""
        with self._allocating:
            if self._spare is not None or self._closed:
                return
            used = sum(map(_size, segments(self.directory)))
            refusal = (
                f"it has reached its {self._max_bytes:,} bytes" if used + self._segment_bytes > self._max_bytes else ""
            )
            if not refusal:
                try:
                    self._spare = _Segment.allocate(self.directory, self._current.index + 1, self._segment_bytes)
                except OSError as error:
                    refusal = str(error)
            if refusal and not self._refused:
                log.error("journal.full", session=self.session, reason=refusal)
            self._refused = bool(refusal)


def _size(path: Path) -> int:
    """0 for a segment that was shipped and deleted a moment ago."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@final
class _Segment:
    """A file of zeros, mapped."""

    def __init__(self, path: Path, index: int, file: int, view: mmap.mmap) -> None:
        self.path = path
        self.index = index
        self.file = file
        self.view = view

    @classmethod
    def allocate(cls, directory: Path, index: int, size: int) -> Self:
        """Raises OSError, and leaves nothing then."""
        path = segment_path(directory, index)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
            for start in range(0, size, len(_ZEROS)):  # by write, which lets the other threads run, unlike a page fault
                os.pwrite(file, _ZEROS[: size - start], start)
            return cls(path, index, file, mmap.mmap(file, size))
        except OSError:
            path.unlink()
            os.close(file)
            raise

    def begin(self, first: int) -> None:
        self.view[: HEADER.size] = segment_head(first)

    def close(self, *, sync: bool) -> None:
        self.view.close()
        if sync:
            os.fdatasync(self.file)
        os.close(self.file)
