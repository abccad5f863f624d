"""Leases in one process: what a single worker uses, and the measure of the other stores."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

from gateway.leases import book
from gateway.leases.accounts import Account, Borrow, Grant, Report, Seen, State
from gateway.leases.arithmetic import Pot, Share
from gateway.leases.book import Session

FORGET_EVERY = 256


@final
class MemoryLeases:
    """A lease store for one process. `clock` gives seconds from any start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._rows = _Memory()
        self._seq = itertools.count(1)

    async def borrow(self, session: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        return book.borrow(self._rows, session, next(self._seq), requests, self._clock())

    async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
        seq = next(self._seq)
        if seq % FORGET_EVERY == 0:
            self._rows.forget(self._wall() - 3600)
        return book.sync(self._rows, session, seq, reports, self._clock())

    async def close(self, session: str, settled: Mapping[str, int]) -> None:
        book.close(self._rows, session, settled, self._clock())

    async def state(self, accounts: Sequence[Account]) -> Sequence[State]:
        return book.state(self._rows, accounts, self._clock())

    async def reset(self, account: Account) -> None:
        book.reset(self._rows, account, self._clock())

    async def sessions(self) -> Sequence[Seen]:
        return book.sessions(self._rows, self._clock())

    async def disconnect(self) -> None:
        pass


@final
class _Memory:
    """Rows in dictionaries."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._pots: dict[str, Pot] = {}
        self._shares: dict[str, dict[str, Share]] = {}

    def session(self, session: str) -> Session | None:
        return self._sessions.get(session)

    def put_session(self, session: Session) -> None:
        self._sessions[session.id] = session

    def sessions(self) -> Iterable[Session]:
        return [session for session in self._sessions.values() if session.state != "closed"]

    def pot(self, account: str) -> Pot | None:
        return self._pots.get(account)

    def put_pot(self, account: str, pot: Pot) -> None:
        self._pots[account] = pot

    def share(self, session: str, account: str) -> Share | None:
        return self._shares.get(session, {}).get(account)

    def put_share(self, session: str, account: str, share: Share) -> None:
        self._shares.setdefault(session, {})[account] = share

    def shares(self, session: str) -> Sequence[tuple[str, Share]]:
        return list(self._shares.get(session, {}).items())

    def drop_shares(self, session: str) -> None:
        self._shares.pop(session, None)

    def forget(self, before: float) -> None:
        """Accounts that ended before that Unix time."""
        for account in [id_ for id_, pot in self._pots.items() if pot.ends_at is not None and pot.ends_at < before]:
            del self._pots[account]
            for shares in self._shares.values():
                shares.pop(account, None)
