"""Leases for several workers on one machine: rows in SQLite, one immediate transaction per call, on one thread.

The clock is the machine's since boot, which nobody can set and all workers share.
"""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, final

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.database import switch_to_wal
from gateway.leases import book
from gateway.leases.accounts import Account, Borrow, Grant, Report, Seen, State
from gateway.leases.arithmetic import Pot, Share
from gateway.leases.book import Session
from gateway.leases.guard import DISK_DEADLINE_S, Guard
from gateway.leases.worker import Worker
from gateway.tables import lease_accounts, lease_sessions, lease_shares

FORGET_EVERY = 256
T = TypeVar("T")


def since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@final
class SqliteLeases:
    """A lease store in a file, which is made if need be. Give it one of its own: a ledger writing elsewhere never delays it."""

    def __init__(
        self, path: Path, *, deadline_s: float = DISK_DEADLINE_S, clock: Callable[[], float] = since_boot
    ) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._clock = clock
        self._seq = itertools.count(1)
        self._connection: sqlite3.Connection | None = None
        self._worker = Worker("penstock-leases", interrupt=lambda: None)  # SQLite's own timeout is as long as ours
        self._guard = Guard(f"SQLite leases in {path.name}", (sqlite3.Error, OSError), deadline_s=deadline_s)

    async def borrow(self, session: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        return await self._do(lambda rows, now: book.borrow(rows, session, next(self._seq), requests, now))

    async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
        def job(rows: "_Tables", now: float) -> Sequence[State]:
            seq = next(self._seq)
            if seq % FORGET_EVERY == 0:
                rows.forget(time.time() - 3600, now - 30 * 86_400)
            return book.sync(rows, session, seq, reports, now)

        return await self._do(job)

    async def close(self, session: str, settled: Mapping[str, int]) -> None:
        await self._do(lambda rows, now: book.close(rows, session, settled, now))

    async def state(self, accounts: Sequence[Account]) -> Sequence[State]:
        return await self._do(lambda rows, now: book.state(rows, accounts, now))

    async def reset(self, account: Account) -> None:
        await self._do(lambda rows, now: book.reset(rows, account, now))

    async def sessions(self) -> Sequence[Seen]:
        return await self._do(book.sessions)

    async def disconnect(self) -> None:
        await self._worker.stop(self._hang_up)

    async def _do(self, job: Callable[["_Tables", float], T]) -> T:
        return await self._guard.call(lambda: self._worker.run(lambda: self._transaction(job)))

    def _transaction(self, job: Callable[["_Tables", float], T]) -> T:
        """On the thread. The clock is read under the lock, so that it never runs backwards between two workers."""
        connection = self._connection or self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = job(_Tables(connection), self._clock())
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._deadline_s, isolation_level=None)
        try:
            switch_to_wal(connection)
            # A power cut may take the last leases back, and with them every process that held one; their journals tell.
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in schema():
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()


def schema() -> list[str]:
    """As gateway.tables has it, for a file that migrations never saw."""
    dialect = sqlite.dialect()
    statements = []
    for table in (lease_accounts, lease_shares, lease_sessions):
        statements.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)))
        statements += [str(CreateIndex(each, if_not_exists=True).compile(dialect=dialect)) for each in table.indexes]
    return statements


@final
class _Tables:
    """Rows in SQLite, inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def session(self, session: str) -> Session | None:
        found = self._connection.execute("SELECT * FROM lease_sessions WHERE id = ?", (session,)).fetchone()
        return None if found is None else Session(*found)

    def put_session(self, session: Session) -> None:
        row = (session.id, session.seq, session.seen_at, session.state)
        self._connection.execute("INSERT OR REPLACE INTO lease_sessions VALUES (?, ?, ?, ?)", row)

    def sessions(self) -> Iterable[Session]:
        found = self._connection.execute("SELECT * FROM lease_sessions WHERE state <> 'closed'")
        return [Session(*row) for row in found]

    def pot(self, account: str) -> Pot | None:
        found = self._connection.execute(
            "SELECT settled, lent, level, filled_at, sharers, ends_at FROM lease_accounts WHERE id = ?", (account,)
        ).fetchone()
        return None if found is None else Pot(*found)

    def put_pot(self, account: str, pot: Pot) -> None:
        row = (account, pot.settled, pot.lent, pot.level, pot.filled_at, pot.sharers, pot.ends_at)
        self._connection.execute("INSERT OR REPLACE INTO lease_accounts VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def share(self, session: str, account: str) -> Share | None:
        found = self._connection.execute(
            "SELECT settled, lent FROM lease_shares WHERE session = ? AND account = ?", (session, account)
        ).fetchone()
        return None if found is None else Share(*found)

    def put_share(self, session: str, account: str, share: Share) -> None:
        row = (session, account, share.settled, share.lent)
        self._connection.execute("INSERT OR REPLACE INTO lease_shares VALUES (?, ?, ?, ?)", row)

    def shares(self, session: str) -> Sequence[tuple[str, Share]]:
        found = self._connection.execute(
            "SELECT account, settled, lent FROM lease_shares WHERE session = ?", (session,)
        )
        return [(account, Share(settled, lent)) for account, settled, lent in found]

    def drop_shares(self, session: str) -> None:
        self._connection.execute("DELETE FROM lease_shares WHERE session = ?", (session,))

    def forget(self, ended_before: float, closed_before: float) -> None:
        """Accounts by Unix time, closed sessions by the machine's clock."""
        ended = "SELECT id FROM lease_accounts WHERE ends_at < ?"
        self._connection.execute(f"DELETE FROM lease_shares WHERE account IN ({ended})", (ended_before,))  # noqa: S608 — a constant
        self._connection.execute("DELETE FROM lease_accounts WHERE ends_at < ?", (ended_before,))
        closed = "DELETE FROM lease_sessions WHERE state = 'closed' AND seen_at < ?"
        self._connection.execute(closed, (closed_before,))
