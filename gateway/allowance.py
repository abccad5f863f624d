"""The headers that tell a client what it has left: OpenAI's `x-ratelimit-*`, and the budget that is nearest to its end."""

from gateway.scopes import Budget, Limit
from gateway.shares import Hold, Share

# OpenAI counts requests and tokens; of the token limits the one over both directions is the one that clients plan with.
NAMES = {"rpm": "requests", "tpm": "tokens"}


NANO = 1_000_000_000


def headers(hold: Hold) -> bytes:
    """Header lines for the accounts that bound a call: of each kind, the one with the least left."""
    if len(hold) == 1 and isinstance(hold[0][0].bound.rule, Budget):  # the usual key: one budget and nothing else
        return b"x-penstock-budget-remaining-usd: %d.%09d\r\n" % divmod(hold[0][0].left, NANO)
    tightest: dict[str, Share] = {}
    budget: Share | None = None
    for share, _ in hold:
        rule = share.bound.rule
        if isinstance(rule, Limit):
            name = NAMES.get(rule.measure)
            if name is not None and (name not in tightest or share.left < tightest[name].left):
                tightest[name] = share
        elif budget is None or share.left < budget.left:
            budget = share
    lines = [_limit(name, share) for name, share in tightest.items()]
    if budget is not None:
        usd, rest = divmod(budget.left, NANO)
        lines.append(f"x-penstock-budget-remaining-usd: {usd}.{rest:09d}\r\n")
    return "".join(lines).encode()


def _limit(name: str, share: Share) -> str:
    rate = share.account.rate_per_s
    missing = max(0, share.account.limit - share.left)
    reset = duration(missing / rate) if rate > 0 else "0s"
    rule = share.bound.rule
    limit = rule.limit if isinstance(rule, Limit) else share.account.limit
    return (
        f"x-ratelimit-limit-{name}: {limit}\r\n"
        f"x-ratelimit-remaining-{name}: {share.left}\r\n"
        f"x-ratelimit-reset-{name}: {reset}\r\n"
    )


def duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
