"""Leases in PostgreSQL: one function call, one round trip, one transaction. The functions are in migration 0002.

The clock is the server's. The driver blocks on a thread of its own, since its asynchronous form would wait for a server
that hangs even after it was told to stop.
"""

import itertools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import msgspec
import psycopg

from gateway.leases.accounts import SHARE_TTL_S, Account, Borrow, Grant, Report, Seen, State
from gateway.leases.errors import SessionClosed
from gateway.leases.guard import DISK_DEADLINE_S, Guard
from gateway.leases.worker import Worker

_CLOSED = "PSCLO"  # raised by lease_enter
_CONNECT_TIMEOUT_S = 2  # the least that libpq takes

_BORROW = "SELECT * FROM lease_borrow(%s, %s, %s::jsonb, %s, %s)"
_SYNC = "SELECT * FROM lease_sync(%s, %s, %s::jsonb, %s, %s)"
_CLOSE = "SELECT lease_close(%s, %s::jsonb, %s, %s)"
_STATE = "SELECT * FROM lease_state(%s::jsonb, %s)"
_RESET = "SELECT lease_reset(%s, %s, %s)"
_SESSIONS = "SELECT id, greatest(0, lease_now(%s) - seen_at) FROM lease_sessions WHERE state <> 'closed' ORDER BY id"


@final
class PostgresLeases:
    """A lease store in the migrated database at `url`. `clock` replaces the server's: for tests, one for all processes."""

    def __init__(
        self, url: str, *, deadline_s: float = DISK_DEADLINE_S, clock: Callable[[], float] | None = None
    ) -> None:
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._deadline_s = deadline_s
        self._clock = clock
        self._seq = itertools.count(1)
        self._connection: psycopg.Connection[Any] | None = None
        self._worker = Worker("penstock-leases", self._cut_off)
        self._guard = Guard("PostgreSQL", (psycopg.Error, OSError), deadline_s=deadline_s)

    async def borrow(self, session: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        wire = [_account(each.account) | {"want": each.want, "least": each.least} for each in requests]
        rows = await self._call(_BORROW, session, next(self._seq), _json(wire), SHARE_TTL_S, self._now())
        return [Grant(*row) for row in rows]

    async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
        wire = [_account(each.account) | {"settled": each.settled, "lent": each.lent} for each in reports]
        rows = await self._call(_SYNC, session, next(self._seq), _json(wire), SHARE_TTL_S, self._now())
        return [State(report.account.limit, *row) for report, row in zip(reports, rows, strict=True)]

    async def close(self, session: str, settled: Mapping[str, int]) -> None:
        await self._call(_CLOSE, session, _json(settled), SHARE_TTL_S, self._now())

    async def state(self, accounts: Sequence[Account]) -> Sequence[State]:
        rows = await self._call(_STATE, _json([_account(each) for each in accounts]), self._now())
        return [State(account.limit, *row) for account, row in zip(accounts, rows, strict=True)]

    async def reset(self, account: Account) -> None:
        await self._call(_RESET, account.id, account.limit, self._now())

    async def sessions(self) -> Sequence[Seen]:
        return [Seen(*row) for row in await self._call(_SESSIONS, self._now())]

    async def disconnect(self) -> None:
        await self._worker.stop(self._hang_up)

    async def _call(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._guard.call(lambda: self._worker.run(lambda: self._execute(statement, values)))

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """On the thread."""
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = self._connect()
        try:
            return connection.execute(statement, values).fetchall()
        except psycopg.Error as error:
            if error.sqlstate == _CLOSED:
                raise SessionClosed(f"session {values[0]} was closed") from error
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        limit_ms = int(self._deadline_s * 1000)
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            prepare_threshold=None,  # PgBouncer hands every transaction to another server session
            options=f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms} -c jit=off",
        )

    def _cut_off(self) -> None:
        """From the event loop, when nobody waits any more: the driver sees its connection end and the thread is free again."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()

    def _now(self) -> float | None:
        return None if self._clock is None else self._clock()


def _account(account: Account) -> dict[str, object]:
    return {
        "id": account.id,
        "limit": account.limit,
        "rate": account.rate_per_s,
        "counted": account.counted,
        "ends_at": account.ends_at,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
