"""The store's operations over rows that somebody keeps: in a dictionary, or in SQLite. One at a time, all or nothing.

PostgreSQL and Redis do the same on their side, so that no lock is held while a message travels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.leases import arithmetic
from gateway.leases.accounts import SHARE_TTL_S, Account, Borrow, Grant, Report, Seen, State, kind_of
from gateway.leases.arithmetic import Pot, Share
from gateway.leases.errors import SessionClosed, StoreUnavailable


class Session(Struct, frozen=True):
    """`seq` numbers its messages: one that a later one has overtaken has no effect. Silent: its buckets and slots are gone."""

    id: str
    seq: int
    seen_at: float
    state: Literal["open", "silent", "closed"] = "open"


class Rows(Protocol):
    """What is kept. A `put` replaces."""

    def session(self, session: str) -> Session | None: ...
    def put_session(self, session: Session) -> None: ...
    def sessions(self) -> Iterable[Session]:
        """All that are not closed."""
        ...

    def pot(self, account: str) -> Pot | None: ...
    def put_pot(self, account: str, pot: Pot) -> None: ...
    def share(self, session: str, account: str) -> Share | None: ...
    def put_share(self, session: str, account: str, share: Share) -> None: ...
    def shares(self, session: str) -> Sequence[tuple[str, Share]]: ...
    def drop_shares(self, session: str) -> None: ...


def borrow(rows: Rows, session: str, seq: int, requests: Sequence[Borrow], now: float) -> list[Grant]:
    if not _enter(rows, session, seq, now):
        raise StoreUnavailable("the message was overtaken by a later one")
    _expire(rows, now)
    return [_lend(rows, session, request, now) for request in requests]


def sync(rows: Rows, session: str, seq: int, reports: Sequence[Report], now: float) -> list[State]:
    if _enter(rows, session, seq, now):
        _expire(rows, now)
        for report in reports:
            _accept(rows, session, report, now)
    return state(rows, [report.account for report in reports], now)


def close(rows: Rows, session: str, settled: Mapping[str, int], now: float) -> None:
    known = rows.session(session)
    if known is not None and known.state == "closed":
        return
    rows.put_session(Session(session, 0 if known is None else known.seq, now, "closed"))
    _expire(rows, now)
    shares = dict(rows.shares(session))
    for account in shares.keys() | settled.keys():
        pot = rows.pot(account)
        if pot is None and kind_of(account) != "spend":
            continue
        rows.put_pot(account, arithmetic.left(pot or Pot(), shares.get(account), settled.get(account, 0), now))
    rows.drop_shares(session)


def state(rows: Rows, accounts: Sequence[Account], now: float) -> list[State]:
    states = []
    for account in accounts:
        pot = arithmetic.filled(rows.pot(account.id) or Pot(), account, now)
        used = arithmetic.used(pot, account, _elsewhere(rows, account))
        states.append(State(account.limit, used, pot.lent, max(pot.sharers, 1)))
    return states


def reset(rows: Rows, account: Account, now: float) -> None:
    pot = rows.pot(account.id)
    if pot is not None:
        rows.put_pot(account.id, arithmetic.reset(pot, account, now))


def sessions(rows: Rows, now: float) -> list[Seen]:
    return [Seen(session.id, max(0.0, now - session.seen_at)) for session in rows.sessions()]


def _enter(rows: Rows, session: str, seq: int, now: float) -> bool:
    """Whether the message is newer than all before it."""
    known = rows.session(session)
    if known is not None and known.state == "closed":
        raise SessionClosed(f"session {session} was closed")
    if known is not None and known.seq >= seq:
        return False
    rows.put_session(Session(session, seq, now))
    return True


def _expire(rows: Rows, now: float) -> None:
    """Takes buckets and slots from sessions that fell silent. After a reboot or a clock set back, their silence starts anew."""
    for session in list(rows.sessions()):
        if session.state == "silent":
            continue
        if session.seen_at > now:
            rows.put_session(replace(session, seen_at=now))
        elif session.seen_at < now - SHARE_TTL_S:
            rows.put_session(replace(session, state="silent"))
            for account, share in rows.shares(session.id):
                pot = rows.pot(account)
                if share.lent and pot is not None and kind_of(account) != "spend":
                    rows.put_pot(account, arithmetic.expired(pot, share.lent, now))
                    rows.put_share(session.id, account, replace(share, lent=0))


def _lend(rows: Rows, session: str, request: Borrow, now: float) -> Grant:
    account = request.account
    kept = rows.pot(account.id) or Pot()
    pot = arithmetic.filled(kept, account, now)
    free = account.limit - arithmetic.used(pot, account, _elsewhere(rows, account))
    amount = arithmetic.grant(request, free)
    if amount:
        pot, share = arithmetic.lent(pot, rows.share(session, account.id), amount)
        rows.put_pot(account.id, replace(pot, ends_at=account.ends_at))
        rows.put_share(session, account.id, share)
    elif kept.filled_at is not None and kept.filled_at > now:
        rows.put_pot(
            account.id, pot
        )  # the clock was set back: without a note of it, nothing would flow in until it catches up
    return Grant(amount, free - amount, max(pot.sharers, 1))


def _accept(rows: Rows, session: str, report: Report, now: float) -> None:
    account = report.account
    share = rows.share(session, account.id)
    known = share or Share()
    if report.settled <= known.settled and report.lent == known.lent:
        return
    pot = arithmetic.filled(rows.pot(account.id) or Pot(), account, now)
    pot, share = arithmetic.reported(pot, share, report.settled, report.lent)
    rows.put_pot(account.id, replace(pot, ends_at=account.ends_at))
    rows.put_share(session, account.id, share)


def _elsewhere(rows: Rows, account: Account) -> int:
    pots = [rows.pot(other) for other in account.counted if other != account.id]
    return sum(pot.settled + pot.lent for pot in pots if pot is not None)
