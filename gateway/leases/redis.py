"""Leases in Redis 7: one script per call (redis.lua), one round trip. The clock is the server's.

Redis may lose data: it restarts empty, or from a file that is a second old, or a replica takes over that has not seen the
last writes. All of these are another run of the server, or lack the marker that the script left. Then nothing is lent for
the time in which a living session reports at least once, and sums of spending are taken from the ledger.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, final

import msgspec
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from gateway.leases.accounts import SHARE_TTL_S, Account, Borrow, Grant, Report, Seen, State
from gateway.leases.errors import Forgotten, Quarantined, SessionClosed, StoreUnavailable
from gateway.leases.guard import DEADLINE_S, Guard
from gateway.leases.ports import LedgerSums

SUMS_DEADLINE_S = 2.0


@final
class RedisLeases:
    """A lease store at `url` (redis://, rediss://, unix://), also one node of a cluster: all keys have one hash tag.

    `quarantine_s` must be long enough for every living session to report; 0 says that the store is known to be new.
    `clock` replaces the server's: for tests, one for all processes.
    """

    def __init__(
        self,
        url: str,
        *,
        ledger_sums: LedgerSums | None = None,
        prefix: str = "penstock",
        quarantine_s: float = SHARE_TTL_S,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._pool = ConnectionPool.from_url(url, socket_connect_timeout=deadline_s, socket_timeout=None, protocol=2)
        self._ledger_sums = ledger_sums
        self._key = f"{prefix}:{{leases}}"
        self._quarantine_s = quarantine_s
        self._clock = clock
        self._script = Path(__file__).with_suffix(".lua").read_bytes()
        self._sha = ""
        self._epoch: str | None = None
        self._seq = itertools.count(1)
        self._connection: AbstractConnection | None = None
        self._guard = Guard("Redis", (RedisError, OSError), deadline_s=deadline_s)

    async def borrow(self, session: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        wire = _json([[*_account(each.account), str(each.want), str(each.least)] for each in requests])
        while True:
            status, *values = await self._call_in_epoch("borrow", session, self._must_be_seeded, wire)
            match status:
                case b"ok":
                    return [Grant(int(granted), int(left), int(n)) for granted, left, n in _threes(values)]
                case b"unseeded":
                    await self._seed([each.decode() for each in values], requests)
                case b"quarantine":
                    wait_s = float(values[0])
                    message = f"Redis lost data: nothing is lent for {wait_s:.1f} s, until all sessions have reported"
                    raise Quarantined(message, retry_after_s=wait_s)
                case b"closed":
                    raise SessionClosed(f"session {session} was closed")
                case _:
                    raise StoreUnavailable("the message was overtaken by a later one")

    async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
        wire = _json([[*_account(each.account), str(each.settled), str(each.lent)] for each in reports])
        status, *values = await self._call_in_epoch("sync", session, wire)
        if status == b"closed":
            raise SessionClosed(f"session {session} was closed")
        return _states([report.account for report in reports], values)

    async def close(self, session: str, settled: Mapping[str, int]) -> None:
        wire = _json([[account, str(amount)] for account, amount in settled.items()])
        await self._call("close", session, SHARE_TTL_S, self._quarantine_s, self._must_be_seeded, wire)

    async def state(self, accounts: Sequence[Account]) -> Sequence[State]:
        _, *values = await self._call("state", _json([_account(each) for each in accounts]))
        return _states(accounts, values)

    async def reset(self, account: Account) -> None:
        await self._call("reset", account.id, account.limit)

    async def sessions(self) -> Sequence[Seen]:
        _, *values = await self._call("sessions")
        pairs = zip(values[::2], values[1::2], strict=True)
        return [Seen(session.decode(), float(silent_s)) for session, silent_s in pairs]

    async def disconnect(self) -> None:
        await self._hang_up()

    @property
    def _must_be_seeded(self) -> Literal[0, 1]:
        return 0 if self._ledger_sums is None else 1

    async def _seed(self, unknown: Sequence[str], requests: Sequence[Borrow]) -> None:
        """Accounts that Redis has no memory of: new ones, or all after a loss. Only the ledger knows which."""
        assert self._ledger_sums is not None
        try:
            async with asyncio.timeout(SUMS_DEADLINE_S):
                sums = await self._ledger_sums(unknown)
        except TimeoutError:
            raise StoreUnavailable(f"the ledger gave no sums within {SUMS_DEADLINE_S:g} s") from None
        ends = {
            id_: request.account.ends_at
            for request in requests
            for id_ in (request.account.id, *request.account.counted)
        }
        wire = [
            [id_, ends[id_], [[session, str(amount)] for session, amount in sums.get(id_, {}).items()]]
            for id_ in unknown
        ]
        await self._call("seed", _json(wire))

    async def _call_in_epoch(self, operation: str, session: str, *values: object) -> Any:
        """A call that means nothing to a store that forgot what it builds on. Raises Forgotten, once for each loss."""
        seq = next(self._seq)

        async def ask() -> Any:
            if self._connection is None:
                await self._connect()  # which tells the epoch, if there was none yet
            return await self._ask(
                operation, self._time(), session, seq, SHARE_TTL_S, self._quarantine_s, self._epoch, *values
            )

        answer = await self._guard.call(ask)
        if answer[0] == b"forgotten":
            self._epoch = answer[1].decode()
            raise Forgotten("Redis lost data: it must be told all that this session holds")
        return answer

    async def _call(self, operation: str, *values: object) -> Any:
        return await self._guard.call(lambda: self._ask(operation, self._time(), *values))

    def _time(self) -> str:
        return "" if self._clock is None else repr(self._clock())

    async def _ask(self, operation: str, *values: object) -> Any:
        """Once more on a new connection if the old one had ended; a message that did arrive is then overtaken by itself."""
        fresh = self._connection is None
        try:
            return await self._evaluate(operation, *values)
        except RedisConnectionError:
            if fresh:
                raise
        return await self._evaluate(operation, *values)

    async def _evaluate(self, operation: str, *values: object) -> Any:
        try:
            connection = self._connection or await self._connect()
            return await self._run(connection, operation, *values)
        except BaseException as error:
            if not isinstance(error, NoScriptError):
                await self._hang_up()  # or a late answer would be taken for the next one's
            raise

    async def _connect(self) -> AbstractConnection:
        """A new connection may lead to another run of the server, which may know less than the last one."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call] # the driver left it out
        self._connection = connection
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # the same
            self._sha = self._sha or (await _command(connection, "SCRIPT", "LOAD", self._script)).decode()
            info = (await _command(connection, "INFO", "server")).decode()
            run = next(line.removeprefix("run_id:") for line in info.splitlines() if line.startswith("run_id:"))
            _, epoch = await self._run(connection, "attach", self._time(), run, self._quarantine_s)
        except BaseException:
            await self._hang_up()
            raise
        self._epoch = self._epoch or epoch.decode()
        return connection

    async def _run(self, connection: AbstractConnection, operation: str, clock: object, *values: object) -> Any:
        arguments = (1, self._key, operation, clock, *values)
        try:
            return await _command(connection, "EVALSHA", self._sha, *arguments)
        except NoScriptError:
            return await _command(connection, "EVAL", self._script, *arguments)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


async def _command(connection: AbstractConnection, *words: Any) -> Any:
    await connection.send_command(*words, check_health=False)
    return await connection.read_response()


def _account(account: Account) -> list[object]:
    return [account.id, str(account.limit), account.rate_per_s, account.ends_at, account.counted]


def _states(accounts: Sequence[Account], values: Sequence[Any]) -> list[State]:
    rows = zip(accounts, _threes(values), strict=True)
    return [State(account.limit, int(used), int(lent), int(sharers)) for account, (used, lent, sharers) in rows]


def _threes(values: Sequence[Any]) -> "zip[tuple[Any, Any, Any]]":
    return zip(values[::3], values[1::3], values[2::3], strict=True)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
