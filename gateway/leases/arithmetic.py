"""How an account changes when it is lent from, reported on, left and reset: plain numbers in, plain numbers out.

The rules, which PostgreSQL's functions and Redis' script repeat:

- spend: settled + lent ≤ limit. Overruns that an upstream billed are counted, and nothing is lent until they fit again.
- bucket: level + lent ≤ burst. So no window of T seconds serves more than burst + rate · T, as whatever is served in it was
  in the level or lent when it began, or flowed in since. What flows in while all is lent is lost.
- slots: lent ≤ limit.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from gateway.leases.accounts import Account, Borrow


class Pot(Struct, frozen=True):
    """An account as a store keeps it. Only a bucket has a level, which may be negative after an overrun."""

    settled: int = 0
    lent: int = 0
    level: float | None = None
    filled_at: float | None = None
    sharers: int = 0
    ends_at: float | None = None


class Share(Struct, frozen=True):
    """What one session has of it. Settled stays until the session ends: reports are sums since its start."""

    settled: int = 0
    lent: int = 0


def filled(pot: Pot, account: Account, now: float) -> Pot:
    """A bucket's level now. A clock that was set back fills nothing, and is followed."""
    if account.kind != "bucket":
        return pot
    level = pot.level
    if level is None or pot.filled_at is None:
        level = float(account.limit)
    else:
        level += account.rate_per_s * max(0.0, now - pot.filled_at)
    return replace(pot, level=min(level, float(account.limit - pot.lent)), filled_at=now)


def used(pot: Pot, account: Account, elsewhere: int) -> int:
    """`pot` must be filled. `elsewhere` is what the counted accounts have settled and lent."""
    match account.kind:
        case "spend":
            return pot.settled + pot.lent + elsewhere
        case "bucket":
            return 0 if pot.level is None else account.limit - math.floor(pot.level)
        case "slots":
            return pot.lent


def grant(request: Borrow, free: int) -> int:
    """Never more than is free, never less than is of use."""
    if free >= request.want:
        return request.want
    return free if free >= request.least else 0


def lent(pot: Pot, share: Share | None, amount: int) -> tuple[Pot, Share]:
    """After a grant."""
    known = share or Share()
    level = None if pot.level is None else pot.level - amount
    sharers = pot.sharers + (share is None)
    return replace(pot, lent=pot.lent + amount, level=level, sharers=sharers), replace(known, lent=known.lent + amount)


def reported(pot: Pot, share: Share | None, settled: int, keeps: int) -> tuple[Pot, Share]:
    """After a report. What a session reports beyond its share is real: a bucket may go below zero, a budget over its limit."""
    known = share or Share()
    spent = max(0, settled - known.settled)
    taken = keeps - known.lent
    changed = replace(
        pot,
        settled=pot.settled + spent,
        lent=pot.lent + taken,
        level=None if pot.level is None else pot.level - taken - spent,
        sharers=pot.sharers + (share is None),
    )
    return changed, Share(known.settled + spent, keeps)


def left(pot: Pot, share: Share | None, settled: int, now: float) -> Pot:
    """After the session's end. What flowed into a bucket since it was last asked is given up: the rate is not known here."""
    known = share or Share()
    spent = max(0, settled - known.settled)
    return replace(
        pot,
        settled=pot.settled + spent,
        lent=pot.lent - known.lent,
        level=None if pot.level is None else pot.level + max(0, known.lent - spent),
        filled_at=None if pot.filled_at is None else now,
        sharers=pot.sharers - (share is not None),
    )


def expired(pot: Pot, amount: int, now: float) -> Pot:
    """A silent session's share of a bucket or of slots. It may have been used, so it does not flow back into the level."""
    return replace(pot, lent=pot.lent - amount, filled_at=None if pot.filled_at is None else now)


def reset(pot: Pot, account: Account, now: float) -> Pot:
    """Nothing settled, a full bucket. What is lent stays out."""
    if account.kind == "bucket":
        return replace(pot, settled=0, level=float(account.limit - pot.lent), filled_at=now)
    return replace(pot, settled=0)
