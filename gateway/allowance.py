"""The headers that tell a client what it has left: OpenAI's `x-ratelimit-*`, and the budget that is nearest to its end."""

from gateway.scopes import Budget, Limit
from gateway.shares import Hold, Share

# OpenAI counts requests and tokens; of the token limits the one over both directions is the one that clients plan with.
REQUESTS = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
TOKENS = REQUESTS.replace(b"requests", b"tokens")


NANO = 1_000_000_000


def headers(hold: Hold) -> bytes:
    """Header lines for the accounts that bound a call: of each kind, the one with the least left."""
    if len(hold) == 1 and isinstance(hold[0][0].bound.rule, Budget):  # the usual key: one budget and nothing else
        return b"x-penstock-budget-remaining-usd: %d.%09d\r\n" % divmod(hold[0][0].left, NANO)
    requests: Share | None = None
    tokens: Share | None = None
    budget: Share | None = None
    for share, _ in hold:
        rule = share.bound.rule
        if isinstance(rule, Budget):
            if budget is None or share.left < budget.left:
                budget = share
        elif rule.measure == "rpm":
            if requests is None or share.left < requests.left:
                requests = share
        elif rule.measure == "tpm" and (tokens is None or share.left < tokens.left):
            tokens = share
    lines = b""
    if requests is not None:
        lines = REQUESTS % _limit(requests)
    if tokens is not None:
        lines += TOKENS % _limit(tokens)
    if budget is not None:
        lines += b"x-penstock-budget-remaining-usd: %d.%09d\r\n" % divmod(budget.left, NANO)
    return lines


def _limit(share: Share) -> tuple[int, int, bytes]:
    """Limit, what remains of it, and when it is full again."""
    left, account, rule = share.left, share.account, share.bound.rule
    missing = account.limit - left
    reset = duration(missing / account.rate_per_s).encode() if missing > 0 and account.rate_per_s > 0 else b"0s"
    return (rule.limit if isinstance(rule, Limit) else account.limit), left, reset


def duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
