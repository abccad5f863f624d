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
    """What clients are told of one account that binds them. `line` lacks what is left, and when that is all again.

    OpenAI counts requests and tokens; of the token limits the one over both directions is the one that clients plan with.
    """

    __slots__ = ("line", "most", "per_s", "share")

    def __init__(self, share: Share, counts: bytes | None) -> None:
        """`counts`: `requests` or `tokens`; None: money."""
        rule, account = share.bound.rule, share.account
        self.share = share
        self.most = account.limit
        self.per_s = account.rate_per_s
        limit = rule.limit if isinstance(rule, Limit) else account.limit
        self.line = None if counts is None else _LIMIT % (counts, limit, counts, counts)


Notices = tuple[tuple[Notice, ...], ...]


def notices(shares: Sequence[Share]) -> Notices:
    """For the accounts that bind a call, those of a kind together: requests, tokens, money."""
    of: dict[str, list[Notice]] = {"rpm": [], "tpm": [], "money": []}
    counts = {"rpm": b"requests", "tpm": b"tokens"}
    for share in shares:
        rule = share.bound.rule
        kind = "money" if isinstance(rule, Budget) else rule.measure
        if kind in of:
            of[kind].append(Notice(share, counts.get(kind)))
    return tuple([tuple(some) for some in of.values() if some])


def headers(told: Notices) -> bytes:
    """Header lines of what is left now: of each kind, the account with the least."""
    lines = b""
    for some in told:
        notice = some[0] if len(some) == 1 else min(some, key=_left)
        share = notice.share
        left = share.free
        if share.remaining > 0:
            left += share.remaining
        if notice.line is None:
            lines += _BUDGET % divmod(max(left, 0), NANO)  # a debt is nothing left
            continue
        missing = notice.most - left
        left = max(left, 0)
        if missing <= 0 or notice.per_s <= 0:
            lines += notice.line % (left, b"0s")
            continue
        millis = round(1000 * missing / notice.per_s)
        lines += notice.line % (left, b"%dms" % millis if millis < 1000 else duration(millis / 1000).encode())
    return lines


def _left(notice: Notice) -> int:
    return notice.share.left


def duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
