"""What a search shows, asked of SQLite's file directly: SQLAlchemy's transaction alone costs as much as a graph's neighbours.

No transaction spans the statements. The passages are read first and the collection's generation last: if that is still the one that
the caller's index is of, nothing that a search could notice has changed in between, as every such change gets a generation.
While nobody writes to the file, what was said of generations holds, and nothing is asked at all (`retrieval.wal`).
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, final

from retrieval.access import Caller
from retrieval.collection_store import Collection
from retrieval.document_store import Document
from retrieval.index.state import State
from retrieval.passage_store import Found
from retrieval.shown import as_document, as_passage, documents_query, moment_query, passages_query, plain
from retrieval.wal import Watch

MOST: Final = 500  # passages of one statement
MOMENTS: Final = 4096  # callers in collections, while nobody writes

Shown = Sequence[tuple[Found, Document] | None]
Asked = tuple[str, str, str | None, bool]
Row = tuple[Any, ...]


@final
class Glance:
    """One per process; one glance at a time. `opened` as `Database.bare`."""

    def __init__(self, opened: Callable[[], sqlite3.Connection | None]) -> None:
        self._opened = opened
        self._file: sqlite3.Connection | None = None
        self._watch: Watch | None = None
        self._said: tuple[bytes, dict[Asked, Row]] = b"", {}
        self._none = False
        self._turn = threading.Lock()

    @property
    def there(self) -> bool:
        """Whether it may be asked: of another database than SQLite never, of a busy one not now."""
        return not self._none and not self._turn.locked()

    def shown(
        self,
        caller: Caller,
        state: State,
        collection: Collection,
        ids: Sequence[int],
        slots: Sequence[int],
        *,
        pinned: bool = False,
    ) -> Shown | None:
        """Blocks for microseconds. What is shown of each of the passages, if anything is. None where the truth has to be asked in full:
        something changed, access depends on labels, or keys read different versions. `pinned`: of the collection's, whichever is read.

        Of a collection without any labels, that is there for the caller: there is nothing else that could keep it from reading.
        """
        if state.columns.labelled or len(ids) > MOST:
            return None
        there = state.told.of(ids, slots)
        with self._turn:
            file = self._reader()
            if file is None:
                return None
            try:
                missing = [id_ for id_, known in zip(ids, there, strict=True) if known is None] if None in there else ()
                new = _passages(file, state.told.documents, collection.id, missing) if missing else {}
                now = self._moment(file, caller, collection.id)
            except sqlite3.Error:  # the way through SQLAlchemy says what is wrong, if it still is
                return None
        if now is None or not _same(now, state, collection, pinned=pinned):
            return None
        if new:
            state.told.remember(new)
            return [known or new.get(id_) for id_, known in zip(ids, there, strict=True)]
        return there

    def close(self) -> None:
        with self._turn:
            self._none = True
            self._watch = None  # what it looks at goes with the connection
            if self._file is not None:
                self._file.close()
                self._file = None

    def _reader(self) -> sqlite3.Connection | None:
        if self._file is None and not self._none:
            self._file = self._opened()
            self._none = self._file is None
            if self._file is not None:
                name = self._file.execute("PRAGMA database_list").fetchone()[2]
                self._file.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                self._watch = Watch.of(name)
        return self._file

    def _moment(self, file: sqlite3.Connection, caller: Caller, collection_id: str) -> Row | None:
        """As `shown.moment`."""
        granted = collection_id in caller.granted
        key = collection_id, caller.key_id, caller.team_id, granted
        # Before it is asked: what comes meanwhile is seen by the next.
        seen = None if self._watch is None else self._watch.seen()
        said, rows = self._said
        if seen is not None and seen == said:
            known = rows.get(key)
            if known is not None:
                return known
        else:
            rows = {}
        asked = {"id": collection_id, "key": caller.key_id, "team": caller.team_id}
        now: Row | None = file.execute(_moment(), {**asked, "granted": collection_id if granted else None}).fetchone()
        if seen is not None and now is not None and len(rows) < MOMENTS:
            rows[key] = now
            self._said = seen, rows
        return now


def _same(now: Row, state: State, collection: Collection, *, pinned: bool) -> bool:
    """Whether the truth of that moment is what the state was made from, and the caller reads that version."""
    generation, labelled, _, _, version, canary = now
    if generation != state.generation or labelled:
        return False
    return pinned or (version == collection.version and canary is None)


def _passages(
    file: sqlite3.Connection, documents: Mapping[int, Document], collection_id: str, ids: Sequence[int]
) -> dict[int, tuple[Found, Document]]:
    """Published ones of this collection."""
    passages = [as_passage(row) for row in file.execute(_of_passages(len(ids)), ids)]
    owners = {each.document_id for each in passages}
    unknown = [id_ for id_ in owners if id_ not in documents]
    known = {id_: documents[id_] for id_ in owners if id_ in documents}
    if unknown:
        rows = file.execute(_of_documents(len(unknown)), unknown)
        known |= {document.id: document for document in map(as_document, rows)}
    return {
        each.id: (each, document)
        for each in passages
        if (document := known.get(each.document_id)) is not None and document.collection_id == collection_id
    }


@cache
def _moment() -> str:
    return plain(moment_query, "sqlite")


@cache
def _of_passages(count: int) -> str:
    return plain(passages_query, "sqlite").replace("$ids", _marks(count))


@cache
def _of_documents(count: int) -> str:
    return plain(documents_query, "sqlite").replace("$ids", _marks(count))


def _marks(count: int) -> str:
    return ", ".join("?" * count)
