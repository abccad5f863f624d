"""What a job has done, in a file of its own: each chunk's answers, refusals, keys and place are one transaction.

So a row is answered once, however often the process is killed, and the output is written from here at the end: the same bytes whoever
scored which part. The epoch of the lease is in it as well: a process that lost its lease commits nothing any more.
"""

import fcntl
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, final

import msgspec

from inference.scoring.errors import LeaseLost

BUSY_S: Final = 20.0
WORKSHEET: Final = "worksheet.sqlite"
PREFIX: Final = "score_"  # of the ids of jobs, and so of their folders

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS chunks (number INTEGER PRIMARY KEY, answers BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS refusals (number INTEGER PRIMARY KEY, refusal BLOB NOT NULL)",
)


class Position(msgspec.Struct, frozen=True):
    """How much of the input is behind: rows, and of a query the last key and how many rows with that key were seen."""

    rows: int = 0
    refused: int = 0
    chunks: int = 0
    last: Any = None
    ties: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """A row that has no answer. `row` counts from 1; `feature` is the column at fault, if one is."""

    row: int
    key: Any
    code: str
    feature: str | None
    reason: str


class Answers(msgspec.Struct, frozen=True):
    """Of one chunk: keys in order, and for each output one value per row, nested as the model gave it."""

    keys: list[Any]
    outputs: dict[str, list[Any]]


class Lock:
    """A job's folder, as long as this process lives. Raises BlockingIOError if another has it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: IO[bytes] = (folder / "lock").open("wb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def sweep(folder: Path, wanted: frozenset[str]) -> None:
    """Takes away the worksheets of jobs that are over and that nobody works on."""
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        if each.is_dir() and each.name.startswith(PREFIX) and each.name not in wanted:
            with suppress(BlockingIOError), Lock(each):
                shutil.rmtree(each, ignore_errors=True)


def position_of(db: sqlite3.Connection) -> Position:
    """Of a worksheet whose tables are there."""
    found = _fact(db, "position")
    return Position() if found is None else msgspec.convert(found, Position)


def _fact(db: sqlite3.Connection, name: str) -> Any:
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else msgspec.msgpack.decode(row[0])


@final
class Worksheet:
    """Used by one thread. Raises LeaseLost if a later epoch has opened it."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._epoch = epoch
        self._db = sqlite3.connect(folder / WORKSHEET, timeout=BUSY_S, isolation_level=None)
        try:
            for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *_SCHEMA):
                self._db.execute(statement)
            with self._transaction(opening=True):
                self._keep("epoch", epoch)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._db.close()

    @property
    def position(self) -> Position:
        return position_of(self._db)

    @property
    def held(self) -> tuple[int, str] | None:
        """The chunk that was last held, and under which id."""
        found = self._fact("held")
        return None if found is None else (found[0], found[1])

    def hold(self, chunk: int, id_: str) -> None:
        """Raises LeaseLost."""
        with self._transaction():
            self._keep("held", (chunk, id_))

    def remember(self, name: str, value: Any) -> Any:
        """The value that was kept under this name first."""
        with self._transaction():
            found = self._fact(name)
            if found is None:
                self._keep(name, value)
                return value
            return found

    @contextmanager
    def chunk(self) -> Iterator["Chunk"]:
        """All of it is kept with the end of the block, or nothing. Raises LeaseLost."""
        with self._transaction():
            yield Chunk(self._db, self._keep)

    def answers(self) -> Iterator[Answers]:
        """In the order of the input."""
        for (blob,) in self._db.execute("SELECT answers FROM chunks ORDER BY number"):
            yield msgspec.msgpack.decode(blob, type=Answers)

    def refusals(self) -> Iterator[Refusal]:
        for (blob,) in self._db.execute("SELECT refusal FROM refusals ORDER BY number"):
            yield msgspec.msgpack.decode(blob, type=Refusal)

    @contextmanager
    def _transaction(self, *, opening: bool = False) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._require_epoch(opening=opening)
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _require_epoch(self, *, opening: bool) -> None:
        epoch = self._fact("epoch") or 0
        if epoch > self._epoch or (epoch != self._epoch and not opening):
            raise LeaseLost

    def _fact(self, name: str) -> Any:
        return _fact(self._db, name)

    def _keep(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, msgspec.msgpack.encode(value)))


@final
class Chunk:
    """A transaction of the worksheet."""

    def __init__(self, db: sqlite3.Connection, keep: Any) -> None:
        self._db = db
        self._keep = keep

    def known(self, key: str) -> bool:
        """Whether a row of this key has been seen before; from now on one has."""
        return self._db.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,)).rowcount == 0

    def write(
        self, position: Position, keys: list[Any], outputs: Mapping[str, list[Any]], refusals: Sequence[Refusal]
    ) -> None:
        """`position` is where the next chunk begins."""
        answers = msgspec.msgpack.encode(Answers(keys, dict(outputs)))
        self._db.execute("INSERT INTO chunks (answers) VALUES (?)", (answers,))
        self._db.executemany(
            "INSERT INTO refusals (refusal) VALUES (?)", [(msgspec.msgpack.encode(each),) for each in refusals]
        )
        self._keep("position", msgspec.to_builtins(position))
