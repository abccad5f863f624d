"""An index of the words of a collection's edition, by BM25: SQLite's FTS5 in a file of its own, so that no
tenant's words weigh in another's.

Where a collection declares tenancy, each of its tenants has such a file.

Its generation is in the file, and changes with its content in one transaction: whoever dies in between leaves what was there before.
What is damaged is thrown away and made again.
"""

import json
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import collection_store, document_store, passage_store
from retrieval.database import Database
from retrieval.errors import Unavailable
from retrieval.spaces import FIRST

log = structlog.stdlib.get_logger(__name__)

MAX_TERMS: Final = 64
COMMON: Final = 0.3  # of all passages: a word in more of them says nothing, as long as there are others
READ_AT_ONCE: Final = 1000
WAIT_S: Final = 30.0  # for who else writes to it
PASSING: Final = frozenset(
    {
        *(
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_NOMEM,
            sqlite3.SQLITE_READONLY,
        ),
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT),
    }
)

Slots = Callable[[NDArray[np.int64]], NDArray[np.int64]]

_GONE: Final = "DELETE FROM words WHERE rowid = ?"
_WORD = re.compile(r"\w+")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS state (generation INTEGER NOT NULL)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, tokenize = 'porter unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS vocabulary USING fts5vocab('words', 'row')",
    "CREATE TABLE IF NOT EXISTS owned (document INTEGER PRIMARY KEY)",  # of a tenant, which may lose one to another
)


@final
class Lexical:
    """Every method blocks. One reads at a time, and beside it one writes."""

    def __init__(
        self,
        database: Database,
        collection_id: str,
        folder: Path,
        edition: int = FIRST,
        tenant: str | None = None,
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._collection_id = collection_id
        self._edition = edition
        self._path = folder / file_of(edition)
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._generation = -1

    def refresh(self, generation: int) -> None:
        """To at least this generation of the collection."""
        if self._generation >= generation:
            return
        with self._writing:
            if self._generation >= generation:
                return
            try:
                self._generation = self._update(generation)
            except sqlite3.DatabaseError as error:
                _require_damage(error)
                self._throw_away(error)
                self._generation = self._update(generation)

    def search(self, text: str, slots_of: Slots, k: int) -> list[tuple[int, float]]:
        """The slots of the best `k` passages that have words of the text, with their BM25 (more is better).

        `slots_of` turns ids of passages into slots, -1 for what may not be found.
        """
        try:
            return self._search(text, slots_of, k)
        except sqlite3.DatabaseError as error:
            _require_damage(error)
            wanted = self._generation
            with self._writing:
                self._throw_away(error)
                self._generation = self._update(wanted)
            return self._search(text, slots_of, k)

    def close(self) -> None:
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            self._generation = -1

    def _search(self, text: str, slots_of: Slots, k: int) -> list[tuple[int, float]]:
        with self._reading:
            if self._reader is None:
                self._reader = _connect(self._path)
            terms = self._telling(self._reader, terms_of(text))
            if not terms:
                return []
            match = " OR ".join(f'"{term}"' for term in terms)
            rows = self._reader.execute("SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank", (match,))
            found: list[tuple[int, float]] = []
            while len(found) < k and (some := rows.fetchmany(1024)):
                slots = slots_of(np.array([id_ for id_, _ in some], np.int64))
                found += [(int(slot), -rank) for slot, (_, rank) in zip(slots, some, strict=True) if slot >= 0]
            rows.close()
        return found[:k]

    def _telling(self, reader: sqlite3.Connection, terms: Sequence[str]) -> Sequence[str]:
        """Without words that nearly every passage has: to rank by them costs much and orders nothing."""
        (total,) = reader.execute("SELECT count(*) FROM words_docsize").fetchone()
        marks = ", ".join("?" * len(terms))
        query = f"SELECT term, doc FROM vocabulary WHERE term IN ({marks})"  # noqa: S608 — question marks only
        common = {term for term, count in reader.execute(query, tuple(terms)) if count > COMMON * total > 100 * COMMON}
        rare = [term for term in terms if term not in common]
        return rare or terms

    def _update(self, generation: int) -> int:
        """One transaction, in which nobody else writes to the file. What it has from now on."""
        with _opened(self._path) as file:
            file.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                file.execute(statement)
            row = file.execute("SELECT generation FROM state").fetchone()
            since = -1 if row is None else int(row[0])
            if since < generation:
                since = self._apply(file, since)
            file.execute("COMMIT")
        return since

    def _apply(self, file: sqlite3.Connection, since: int) -> int:
        with self._database.reading() as tx:
            collection = collection_store.by_id(tx, self._collection_id)
            if collection is None or (collection.tenancy is None) != (self._tenant is None):
                return since
            if 0 <= since < collection.generation - collection_store.REMOVALS_KEPT:
                since = -1  # what was taken away is not known any more
                file.execute("DELETE FROM words")
                file.execute("DELETE FROM owned")
            if since >= 0:
                for pack in passage_store.removed(tx, self._collection_id, since):
                    file.executemany(_GONE, ((int(id_),) for id_ in np.frombuffer(pack, "<i8")))
            if self._tenant is not None:
                self._owned(file, tx, since, self._tenant)
            texts = passage_store.texts(tx, self._collection_id, since, READ_AT_ONCE, self._edition, self._tenant)
            for some in texts:
                file.executemany("INSERT OR REPLACE INTO words (rowid, text) VALUES (?, ?)", some)
        file.execute("DELETE FROM state")
        file.execute("INSERT INTO state VALUES (?)", (collection.generation,))
        return collection.generation

    def _owned(self, file: sqlite3.Connection, tx: Connection, since: int, tenant: str) -> None:
        """Documents that have become another tenant's leave, with all their words."""
        others = document_store.left(tx, self._collection_id, since, tenant) if since >= 0 else ()
        asked = (json.dumps(list(others)),)
        left = file.execute("SELECT document FROM owned WHERE document IN (SELECT value FROM json_each(?))", asked)
        gone = [id_ for (id_,) in left.fetchall()]
        file.executemany(_GONE, ((id_,) for id_ in passage_store.of_documents(tx, gone)))
        file.executemany("DELETE FROM owned WHERE document = ?", ((id_,) for id_ in gone))
        mine = ((each.id,) for each in document_store.described(tx, self._collection_id, since, tenant))
        file.executemany("INSERT OR IGNORE INTO owned VALUES (?)", mine)

    def _throw_away(self, error: Exception) -> None:
        log.warning("index.words_damaged", collection=self._collection_id, reason=str(error))
        self.close()
        clear(self._path)


def file_of(edition: int) -> str:
    """Where the words of an edition are, in the folder of their collection."""
    return "words.db" if edition == FIRST else f"words.e{edition}.db"


def edition_of(name: str) -> int | None:
    """As `file_of` named it."""
    number = name.removeprefix("words.e").removesuffix(".db")
    return FIRST if name == file_of(FIRST) else int(number) if number.isdecimal() else None


def clear(path: Path) -> None:
    """Nothing of it is left."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _require_damage(error: sqlite3.Error) -> None:
    """Who finds the file locked, or the disk full, has found no damage: what others work on is not to be deleted. Raises Unavailable."""
    if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in PASSING:
        raise Unavailable(f"The index of words cannot be used at the moment: {error}") from error


def terms_of(text: str) -> Sequence[str]:
    """Its words as the index has them before it takes their endings away; each once."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    return list(dict.fromkeys(_WORD.findall(plain)))[:MAX_TERMS]


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is made again
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = _connect(path)
    try:
        yield connection
    finally:
        with suppress(sqlite3.DatabaseError):
            connection.close()
