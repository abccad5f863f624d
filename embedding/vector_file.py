"""Vectors in a SQLite file that the processes of a machine share: bounded, the least recently used go first.

It is a cache: whatever is wrong with the file is a miss and never an error. In place of a damaged one a new one is begun, under the next
number: other processes may still have the old one open, and SQLite deletes a log by its name, whoever's that has become.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import structlog

log = structlog.get_logger(__name__)

OPEN_WAIT_S: Final = 1.0  # for another process that makes the file
READ_WAIT_MS: Final = 50  # for a lock: whoever waits longer embeds
WRITE_WAIT_MS: Final = 5000  # nobody waits for a write
AWAY_S: Final = 2.0  # a file that is locked, full or cannot be read is left alone for so long
USED_EVERY_S: Final = 3600  # how exactly it is known when a vector was last used
MAX_USED: Final = 512  # that wait to be written down
_FORMAT: Final = 1  # of the table and what stands in it
_AT_ONCE: Final = 500  # keys of one statement
_EVICTED: Final = 64  # of one statement
_LOG_BYTES: Final = 4 * 1024 * 1024

# `id` is the beginning of the key, as SQLite finds whole numbers in the tree itself; `key` tells those apart that begin alike.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL, used INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used);
"""
_PUT: Final = "INSERT OR REPLACE INTO vectors (id, key, used, value) VALUES (?, ?, ?, ?)"
_USED: Final = "UPDATE vectors SET used = ? WHERE id = ?"
_EVICT: Final = "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY used LIMIT ?)"


@final
class VectorFile:
    """`embedding.cache.Store`. `unix` is the clock. Any thread may call it."""

    def __init__(self, folder: Path, max_bytes: int, unix: Callable[[], float], *, away_s: float = AWAY_S) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._unix = unix
        self._away_s = away_s
        self._opening = threading.Lock()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._number = 0
        self._opened: tuple[sqlite3.Connection, sqlite3.Connection] | None = None
        self._used: dict[int, int] = {}
        self._unread_until = self._unwritten_until = 0.0
        self._told = False

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if time.monotonic() < self._unread_until:
            return found
        try:
            with self._reading:
                self._read(self._connections()[0], keys, found)
        except (sqlite3.Error, OSError) as error:
            self._unread_until = self._failed(error)
        if len(self._used) > MAX_USED:
            self.put({})
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        if time.monotonic() < self._unwritten_until:
            return
        try:
            with self._writing:
                writer = self._connections()[1]
                self._write(writer, entries)
                self._evict(writer)
            self._told = False
        except (sqlite3.Error, OSError) as error:
            self._unwritten_until = self._failed(error)

    def size(self) -> int | None:
        return sum(path.stat().st_size for path in self._folder.glob(f"{_FORMAT}-*") if path.exists())

    def close(self) -> None:
        if self._used:
            self.put({})
        self._shut()

    def _read(self, reader: sqlite3.Connection, keys: Sequence[bytes], found: dict[bytes, bytes]) -> None:
        wanted = {_id(key): key for key in keys}
        now = int(self._unix())
        for some in _parts(list(wanted), _AT_ONCE):
            marks = ",".join("?" * len(some))
            rows = reader.execute(f"SELECT id, key, used, value FROM vectors WHERE id IN ({marks})", some)  # noqa: S608 — question marks alone
            for id_, key, used, value in rows:
                if key == wanted[id_]:
                    found[key] = value
                    if now - used > USED_EVERY_S:
                        self._used[id_] = now

    def _write(self, writer: sqlite3.Connection, entries: Mapping[bytes, bytes]) -> None:
        used, self._used = self._used, {}
        now = int(self._unix())
        with writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany(_PUT, [(_id(key), key, now, value) for key, value in entries.items()])
            writer.executemany(_USED, [(at, id_) for id_, at in used.items()])

    def _evict(self, writer: sqlite3.Connection) -> None:
        """Until it fits: a page is free when all that stood on it is gone, so how many go is not known before."""
        (page_bytes,) = writer.execute("PRAGMA page_size").fetchone()
        most = self._max_bytes // page_bytes
        while _pages(writer) > most:
            with writer:
                writer.execute("BEGIN IMMEDIATE")
                if not writer.execute(_EVICT, (_EVICTED,)).rowcount:
                    break
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        if pages > most:
            writer.executescript(
                f"PRAGMA incremental_vacuum({pages - most})"
            )  # `execute` gives one page back and stops

    def _connections(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """One that reads and one that writes. Raises sqlite3.Error, OSError."""
        with self._opening:
            if self._opened is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._number = max(self._number, self._newest(), 1)
                path = self._folder / f"{_FORMAT}-{self._number}.sqlite"
                path.touch(mode=0o600)
                self._opened = _connected(path, READ_WAIT_MS), _connected(path, WRITE_WAIT_MS)
                self._drop_older()
            return self._opened

    def _failed(self, error: Exception) -> float:
        """Until when to leave it alone."""
        damaged = not isinstance(error, sqlite3.OperationalError | OSError)
        if not self._told:
            log.warning("embedding.cache.damaged" if damaged else "embedding.cache.away", reason=str(error))
        self._told = True
        if damaged:
            self._shut()
            self._number += 1
        return time.monotonic() + self._away_s

    def _shut(self) -> None:
        with self._reading, self._writing, self._opening:
            opened, self._opened = self._opened, None
        for connection in opened or ():
            with suppress(sqlite3.Error):
                connection.close()

    def _newest(self) -> int:
        found = (path.stem.partition("-")[2] for path in self._folder.glob(f"{_FORMAT}-*.sqlite"))
        return max((int(number) for number in found if number.isdecimal()), default=0)

    def _drop_older(self) -> None:
        """Whoever has an older one open keeps it until it closes it."""
        for path in self._folder.glob("*-*.sqlite*"):
            number = path.name.partition("-")[2].partition(".")[0]
            if number.isdecimal() and (path.name.partition("-")[0] != str(_FORMAT) or int(number) < self._number):
                with suppress(OSError):
                    path.unlink()


def _connected(path: Path, wait_ms: int) -> sqlite3.Connection:
    """Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=OPEN_WAIT_S, check_same_thread=False, isolation_level=None)
    try:
        for setting in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}").fetchall()
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA busy_timeout = {wait_ms}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _pages(connection: sqlite3.Connection) -> int:
    """In use."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages) - int(free)


def _id(key: bytes) -> int:
    return int.from_bytes(key[:8], "big", signed=True)


def _parts(ids: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    return (ids[start : start + length] for start in range(0, len(ids), length))
