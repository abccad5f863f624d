"""How long to wait before a try: full jitter over an exponential bound (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

import msgspec


class Retries(msgspec.Struct, frozen=True):
    """`attempts`: tries of one model after its first. The bound on the wait before retry n is base_s × 2ⁿ, at most max_s."""

    attempts: int = 2
    base_s: float = 0.25
    max_s: float = 8.0


def bound_s(retries: Retries, number: int) -> float:
    """The longest wait before retry `number`, counted from 0."""
    return min(retries.max_s, retries.base_s * 2.0 ** min(number, 32))


def wait_s(retries: Retries, number: int, share: float, asked_s: float | None) -> float | None:
    """The wait before retry `number`; None if the upstream asks for a longer one than this model waits. `share` is in [0, 1).

    What the upstream asks for is a floor, with the jitter on top of it: clients that were refused together do not come back together.
    """
    jitter_s = bound_s(retries, number) * share
    if asked_s is None:
        return jitter_s
    if asked_s > retries.max_s:
        return None
    return asked_s + min(jitter_s, retries.base_s)
