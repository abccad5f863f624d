"""Signs of work: whether the database has anything to do of some kinds, asked together with the newest revision.

Whoever works on what lies in the database would otherwise ask for it by itself, again and again, for ever. One question a moment, of a
handful of index entries, tells all of them whether it is worth asking.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, final

from sqlalchemy import Engine

from gateway.database import NEWEST_REVISION

BATCHES: Final = "batches"
RUNS: Final = "responses"  # in the background
JOBS: Final = "ingestion jobs"
REEMBEDDINGS: Final = "re-embeddings"

PATIENCE_S: Final = 1.0  # at the end, with a database that does not answer


@final
class Signs:
    """`kinds`: a condition in SQL for each kind of work, true while there is some. Until the first answer there may be any."""

    def __init__(self, engine: Engine, kinds: Mapping[str, str]) -> None:
        self._engine = engine
        self._kinds = tuple(kinds)
        self._question = f"SELECT {', '.join((f'({NEWEST_REVISION})', *kinds.values()))}"
        self._there = dict.fromkeys(kinds, True)
        self._followers: list[tuple[str, asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._kept: Any = (
            None  # a connection of SQLite's: to fetch one from the pool costs ten times as much as the question
        )
        self._asking = threading.Lock()

    def there(self, kind: str) -> bool:
        return self._there[kind]

    def follow(self, kind: str, tell: Callable[[], None]) -> None:
        """Calls `tell` on the running event loop whenever there is some of it, and was none."""
        self._followers.append((kind, asyncio.get_running_loop(), tell))

    def look(self) -> int:
        """Blocks: asks, and returns the newest revision. Raises SQLAlchemyError, sqlite3.Error."""
        with self._asking:
            revision, *said = self._ask()
        there = dict(zip(self._kinds, map(bool, said), strict=True))
        if there != self._there:
            known, self._there = self._there, there
            for kind, loop, tell in self._followers:
                if there[kind] and not known[kind]:
                    with suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(tell)
        return int(revision)

    def close(self) -> None:
        """After the last question. One that hangs is left to the end of the process."""
        if self._asking.acquire(timeout=PATIENCE_S):
            self._let_go()
            self._asking.release()

    def _ask(self) -> tuple[Any, ...]:
        if self._engine.dialect.name != "sqlite":
            with self._engine.connect() as connection:
                return tuple(connection.exec_driver_sql(self._question).one())
        try:
            if self._kept is None:
                fetched = self._engine.raw_connection()
                self._kept = fetched.driver_connection
                fetched.detach()
            answer: tuple[Any, ...] = self._kept.execute(self._question).fetchone()
        except sqlite3.Error:
            self._let_go()
            raise
        return answer

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
