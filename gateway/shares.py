"""This process's shares of the accounts that bind its requests: plain integers that a request holds and settles without waiting.

    free      borrowed and not in use: what a new call may hold
    held      set aside for calls in flight
    settled   what calls have cost on the account since this session began; only ever grows

`free + held` is what the lease store knows as lent. Nothing here awaits; `gateway.till` borrows and reports.
"""

from collections.abc import Sequence
from math import inf
from typing import final

import msgspec

from gateway.admission.fair_minute import FairMinute
from gateway.leases.accounts import Account
from gateway.need import Need, counted_by
from gateway.scopes import Bound, Budget, Limit, Window, window


@final
class Share:
    """One account as this session sees it. `remaining` is what the store last said is left for all sessions beyond the lent."""

    __slots__ = (
        "account",
        "blocked",
        "bound",
        "cap",
        "counts",
        "fair",
        "free",
        "held",
        "latest",
        "local",
        "local_until",
        "owes",
        "recent",
        "remaining",
        "reported",
        "resets_at",
        "settled",
        "sharers",
        "slots",
        "stale_at",
    )

    def __init__(self, bound: Bound, account: Account, resets_at: int | None) -> None:
        self.bound = bound
        self.account = account
        self.resets_at = resets_at
        self.counts = counted_by(bound.rule)  # which of a need's amounts
        # One call that is larger than a full bucket takes all of it; -1 where more has to be looked at than this.
        self.cap: float = _cap(account)
        self.fair: FairMinute | None = None  # where keys share it
        self.slots = account.kind == "slots"
        self.free = 0
        self.held = 0
        self.settled = 0
        self.recent = 0.0  # use per second, decaying
        self.latest = 0  # what the last call needed
        self.remaining = account.limit
        self.sharers = 1
        self.reported = (0, 0)  # settled and lent, as the store last heard
        self.owes = False  # has given up what it had, and the store does not know yet
        self.local = 0  # lent to itself while the store was away
        self.local_until = 0.0  # when a bucket may do so again, on the till's clock
        self.blocked = False
        self.stale_at = 0.0  # when the window or the amount changes by itself, in Unix seconds

    @property
    def lent(self) -> int:
        return self.free + self.held

    @property
    def largest(self) -> float:
        """What one call can hold of it at most."""
        return _cap(self.account)

    @property
    def left(self) -> int:
        """What one more call could have at most, as far as is known here."""
        remaining = self.remaining
        return remaining + self.free if remaining > 0 else self.free


def amounts_of(need: Need) -> tuple[int, int, int, int, int]:
    """By `Share.counts`: money, the call itself, all tokens, those of the prompt, those of the answer."""
    prompt, output = need.prompt_tokens, need.output_tokens
    return need.nanousd, 1, prompt + output, prompt, output


def charges(hold: "Hold", used: Need) -> tuple[tuple[str, int], ...]:
    """What each account of a hold is charged for that, by its id; calls at the same time are only lent."""
    amounts = amounts_of(used)
    return tuple([(share.account.id, amounts[share.counts]) for share, _ in hold if not share.slots])


Hold = tuple[tuple[Share, int], ...]


@final
class Shares:
    """Every share of this session, by account id, and which one is current for a bound rule."""

    def __init__(self) -> None:
        self._current: dict[str, Share] = {}
        self.every: dict[str, Share] = {}
        self.forgotten = 0  # how often shares were: whoever keeps some has to look again

    def of(self, bound: Bound, unix: float) -> Share:
        """The share of the account that a call at this moment is charged to; the window may have moved on."""
        share = self._current.get(bound.account)
        if share is None or unix >= share.stale_at or share.bound.rule is not bound.rule:
            return self._renew(bound, unix)
        return share

    def missing(self, needs: Sequence[tuple[Share, int]]) -> list[tuple[Share, int]]:
        """Those that do not have enough here, with how much they need; none if all could be held."""
        return [(share, need) for share, need in needs if share.free < need]

    def hold(self, needs: Hold) -> None:
        """Sets everything aside. Only after `missing` found nothing, and without a wait between the two."""
        for share, need in needs:
            share.free -= need
            share.held += need
            share.recent += need
            share.latest = need

    def hold_late(self, needs: Hold) -> None:
        """The same after a wait: a window that ended meanwhile may have taken its shares with it, and their spend is to be reported."""
        for share, _ in needs:
            self.every.setdefault(share.account.id, share)
        self.hold(needs)

    def settle(self, hold: Hold, used: Need | None) -> None:
        """Ends a hold: charges what was used, None for nothing, and frees the rest.

        More may have been used than was held, if an upstream billed more than its worst case: that is charged too.
        """
        if used is None:
            for share, held in hold:
                share.held -= held
                share.free += held
            return
        amounts = amounts_of(used)
        for share, held in hold:
            share.held -= held
            if share.slots:
                share.free += held
                continue
            actual = amounts[share.counts]
            share.settled += actual
            share.free += held - actual

    def forget(self, unix: float) -> list[Share]:
        """Shares of windows that are over and that no call holds any more, taken out."""
        gone = [
            share
            for share in self.every.values()
            if share.resets_at is not None and unix >= share.resets_at and not share.held
        ]
        self.forgotten += bool(gone)
        for share in gone:
            del self.every[share.account.id]
            if self._current.get(share.bound.account) is share:
                del self._current[share.bound.account]
        return gone

    def _renew(self, bound: Bound, unix: float) -> Share:
        at: Window = window(bound, unix)
        share = self.every.get(at.charged)
        if share is None:
            account = Account(
                at.charged,
                bound.rule.amount(unix),
                rate_per_s=_rate(bound),
                counted=tuple(other for other in at.counted if other != at.charged),
                ends_at=_ends_at(bound, at),
            )
            share = self.every[at.charged] = Share(bound, account, at.resets_at)
        _amend(share, bound, unix)
        self._current[bound.account] = share
        return share


def _amend(share: Share, bound: Bound, unix: float) -> None:
    """Follows a rule that was edited, or raised until now. What was borrowed under a larger limit is given up at once."""
    rule = bound.rule
    limit = rule.amount(unix)
    if limit < share.account.limit and share.free > 0:
        share.free = 0
        share.owes = True
        share.reported = (-1, -1)
    share.remaining += limit - share.account.limit
    share.bound = bound
    share.account = msgspec.structs.replace(share.account, limit=limit, rate_per_s=_rate(bound))
    share.blocked = isinstance(rule, Budget) and rule.blocked
    fair = isinstance(rule, Limit) and rule.fair
    share.fair = (share.fair or FairMinute()) if fair else None
    share.cap = -1 if share.blocked or fair else _cap(share.account)
    share.stale_at = inf if share.resets_at is None else share.resets_at
    if isinstance(rule, Budget) and rule.raised is not None and unix < rule.raised.until:
        share.stale_at = min(share.stale_at, rule.raised.until)


def _cap(account: Account) -> float:
    return account.limit if account.kind == "bucket" else inf


def _rate(bound: Bound) -> float:
    return bound.rule.rate_per_s if isinstance(bound.rule, Limit) else 0.0


def _ends_at(bound: Bound, at: Window) -> float | None:
    """When nobody counts the account any more: a slot of a rolling window is counted for a whole window after its own end."""
    if at.resets_at is None:
        return None
    if isinstance(bound.rule, Budget) and bound.rule.rolling:
        return float(2 * at.resets_at - at.starts_at)
    return float(at.resets_at)
