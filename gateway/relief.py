"""What budgets allow instead of a refusal, when a call does not fit: a shorter answer, or another model. Pure functions."""

from collections.abc import Callable, Sequence

from gateway.scopes import Budget, Exceeded
from gateway.shares import Share

LEAST_TOKENS = 16  # a shorter answer is of no use to anybody

Short = Sequence[tuple[Share, int]]


def relief(short: Short) -> Exceeded:
    """The strictest of what they want. A limit, and a budget that denies, leave no way; another model comes before a shorter answer."""
    wanted = {share.bound.rule.on_exceeded if isinstance(share.bound.rule, Budget) else "deny" for share, _ in short}
    return next(way for way in ("deny", "fallback", "cut") if way in wanted)


def fallback_model(short: Short) -> str | None:
    """The model of the first budget that names one, if all of them let the call go on."""
    if relief(short) != "fallback":
        return None
    rules = (share.bound.rule for share, _ in short)
    return next(rule.fallback_model for rule in rules if isinstance(rule, Budget) and rule.on_exceeded == "fallback")


def longest(most: int, fits: Callable[[int], bool]) -> int | None:
    """The greatest number of tokens up to `most` that fits, None if it is not worth a call. What fits, fits with fewer."""
    if most < LEAST_TOKENS or not fits(LEAST_TOKENS):
        return None
    low, high = LEAST_TOKENS, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
