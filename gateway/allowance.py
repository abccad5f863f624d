"""The headers that tell a client what it has left: OpenAI's `x-ratelimit-*`, and the budget that is nearest to its end."""

from collections.abc import Sequence
from typing import final

from gateway.scopes import Budget, Limit
from gateway.shares import Share

NANO = 1_000_000_000

_BUDGET = b"x-penstock-budget-remaining-usd: %d.%09d\r\n"
_LIMIT = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"


@final
class Notice:
    """What clients are told of the accounts of one kind that bind them: of several, the one with the least left.

    OpenAI counts requests and tokens; of the token limits the one over both directions is the one that clients plan with.
    """

    __slots__ = ("_counts", "_lines", "_shares")

    def __init__(self, shares: Sequence[Share], counts: bytes | None) -> None:
        """`counts`: `requests` or `tokens`; None: money."""
        self._shares = shares
        self._counts = counts
        self._lines = {share.account.id: _template(share, counts) for share in shares if counts is not None}

    def lines(self) -> bytes:
        shares = self._shares
        share = shares[0]
        if len(shares) > 1:
            share = min(shares, key=_left)
        left = share.left
        if self._counts is None:
            return _BUDGET % divmod(left, NANO)
        account = share.account
        missing = account.limit - left
        if missing <= 0 or account.rate_per_s <= 0:
            return self._lines[account.id] % (left, b"0s")
        seconds = missing / account.rate_per_s
        reset = b"%dms" % round(seconds * 1000) if seconds < 1 else duration(seconds).encode()
        return self._lines[account.id] % (left, reset)


def notices(shares: Sequence[Share]) -> tuple[Notice, ...]:
    """For the accounts that bind a call: requests, tokens, money."""
    of = {"rpm": list[Share](), "tpm": list[Share](), "money": list[Share]()}
    for share in shares:
        rule = share.bound.rule
        kind = "money" if isinstance(rule, Budget) else rule.measure
        if kind in of:
            of[kind].append(share)
    named = ((of["rpm"], b"requests"), (of["tpm"], b"tokens"), (of["money"], None))
    return tuple([Notice(tuple(some), counts) for some, counts in named if some])


def headers(told: Sequence[Notice]) -> bytes:
    """Header lines of what is left now."""
    if len(told) == 1:  # the usual key: one budget and nothing else
        return told[0].lines()
    return b"".join([one.lines() for one in told])


def _template(share: Share, counts: bytes) -> bytes:
    rule = share.bound.rule
    limit = rule.limit if isinstance(rule, Limit) else share.account.limit
    return _LIMIT % (counts, limit, counts, counts)


def _left(share: Share) -> int:
    return share.left


def duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
