"""How much to borrow at once, and how much of it to keep: few round trips while there is plenty, nothing stranded at the end.

A slice is what the session will use in the next two seconds, but never more than half of its fair part of what is left. So
slices shrink as the account runs out, down to the need of a single call, and what all sessions hold idle shrinks with them.
"""

import math

HORIZON_S = 2.0


def slice_of(missing: int, use_per_s: float, remaining: int, sharers: int) -> int:
    """What to want when `missing` is the least that is of use. `remaining` and `sharers` are from the last answer."""
    return max(missing, min(math.ceil(use_per_s * HORIZON_S), _fair(remaining, sharers)))


def kept(idle: int, use_per_s: float, remaining: int, sharers: int) -> int:
    """How much of what is lent and not held by a call to keep at a report. `remaining` does not include it."""
    return min(idle, math.ceil(use_per_s * HORIZON_S), _fair(remaining + idle, sharers))


def _fair(remaining: int, sharers: int) -> int:
    return max(0, remaining) // (2 * max(sharers, 1))
