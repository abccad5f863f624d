"""The cache of one process: memory, and behind it a log on disk that a thread of its own writes and reads.

Workers on one data folder have a folder each, whichever is free when they start: what they keep, they keep for themselves.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, final

import structlog

from gateway.cache.entry import Entry
from gateway.cache.memory import Memory
from gateway.cache.segments import Segments

log = structlog.stdlib.get_logger(__name__)

MAX_WAITING: Final = 256  # entries that wait for the disk; what comes then stays in memory alone


@final
class LocalStore:
    """`gateway.cache.ports.Store`. Without a folder, or without room on the disk, it is memory alone."""

    def __init__(self, memory_bytes: int, disk_bytes: int, folder: Path | None, unix: Callable[[], float]) -> None:
        self._memory = Memory(memory_bytes, unix)
        self._unix = unix
        self._waiting = 0
        self._segments: Segments | None = None
        self._lock = -1
        self._thread: ThreadPoolExecutor | None = None
        if folder is not None and disk_bytes:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")
            self._thread.submit(self._open, folder, disk_bytes)

    def near(self, key: bytes) -> Entry | None:
        return self._memory.get(key)

    def far(self, key: bytes) -> Awaitable[Entry | None] | None:
        segments, thread = self._segments, self._thread
        if segments is None or thread is None:
            return None
        place = segments.places.get(key)
        if place is None or place.expires_at <= self._unix():
            return None
        return self._read(segments, thread, key)

    def put(self, entry: Entry) -> None:
        self._memory.put(entry)
        thread = self._thread
        if self._segments is not None and thread is not None and self._waiting < MAX_WAITING:
            self._waiting += 1
            writing = asyncio.get_running_loop().run_in_executor(thread, self._write, entry)
            writing.add_done_callback(self._written)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(self._shut, thread)

    async def _read(self, segments: Segments, thread: ThreadPoolExecutor, key: bytes) -> Entry | None:
        entry = await asyncio.get_running_loop().run_in_executor(thread, segments.read, key)
        if entry is not None:
            self._memory.put(entry)
        return entry

    def _open(self, folder: Path, disk_bytes: int) -> None:
        """On the thread. Without a usable folder there is no disk, and nobody waits for it."""
        try:
            own, self._lock = _claimed(folder)
            segments = Segments(own, disk_bytes)
            segments.open(self._unix())
        except OSError as error:
            log.warning("cache.no_disk", reason=str(error))
            return
        self._segments = segments

    def _write(self, entry: Entry) -> None:
        """On the thread."""
        segments = self._segments
        if segments is None:
            return
        try:
            segments.write(entry)
        except OSError as error:
            log.warning("cache.disk_failed", reason=str(error))
            self._segments = None  # full or broken: memory goes on by itself

    def _written(self, writing: "asyncio.Future[None]") -> None:
        self._waiting -= 1
        if not writing.cancelled() and (error := writing.exception()) is not None:
            log.error("cache.disk_failed", exc_info=error)

    def _shut(self, thread: ThreadPoolExecutor) -> None:
        thread.shutdown(wait=True)
        if self._segments is not None:
            self._segments.close()
            self._segments = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _claimed(folder: Path) -> tuple[Path, int]:
    """The first folder that no living process has, and the lock that says so. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1024):
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return folder / str(number), lock
    raise OSError("all folders of the cache are in use")
