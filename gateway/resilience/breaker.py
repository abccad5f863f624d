"""A circuit breaker for one deployment: closed, open, half-open with a single probe. Pure: the clock's reading and chance come in.

    closed ──threshold──▶ open ──time──▶ half-open ──probe answered──▶ closed
                           ▲──────────────probe failed──────┘

It opens after `failures` in a row, or when at least `calls` within a window failed by `share`. Each opening in a row lasts twice as
long, up to `max_open_s`, between half and all of it by chance, so that replicas do not probe together. A rate limit only cools: it says
nothing about health, and its end is the upstream's own word; a later, longer one extends it, a shorter one never shortens it.
"""

from typing import Final, Literal, final

import msgspec

State = Literal["closed", "open", "half_open"]

CALM: Final = 2.0  # closed for so many times the last opening, and the next one is short again


class Thresholds(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long."""

    failures: int = 5
    share: float = 0.5
    calls: int = 20
    window_s: float = 30.0
    open_s: float = 5.0
    max_open_s: float = 300.0
    cool_s: float = 5.0  # after a rate limit that does not say how long


@final
class Breaker:
    """Times are monotonic seconds, `chance` a number in [0, 1)."""

    __slots__ = (
        "_calls",
        "_failed",
        "_lasted_s",
        "_opened_at",
        "_openings",
        "_probing",
        "_row",
        "_since",
        "_thresholds",
        "_window_at",
        "cool_until",
        "last_at",
        "last_error",
        "open_until",
        "reason",
    )

    def __init__(self, thresholds: Thresholds, now: float) -> None:
        self._thresholds = thresholds
        self._row = 0  # failures since the last success
        self._calls = 0
        self._failed = 0
        self._window_at = now
        self._openings = 0  # in a row
        self._opened_at = now
        self._lasted_s = 0.0
        self._since = now  # when it closed last
        self._probing = False
        self.open_until: float | None = None  # None: closed
        self.cool_until = now
        self.reason: str | None = None  # of the last failure: its class
        self.last_error: str | None = None
        self.last_at = now

    def state(self, now: float) -> State:
        if self.open_until is None:
            return "closed"
        return "open" if now < self.open_until else "half_open"

    def usable(self, now: float) -> bool:
        """Whether a call may go there; in half-open, whether the probe is still to be had."""
        if now < self.cool_until or self._probing:
            return False
        return self.open_until is None or now >= self.open_until

    def until(self, now: float) -> float:
        """When it may be used again, as far as is known; `now` if it may."""
        return max(now, self.cool_until, self.open_until or now)

    def begin(self, now: float) -> None:
        """A call goes there. In half-open it is the probe, and no other one goes before it has ended."""
        if self.state(now) == "half_open":
            self._probing = True

    def let_go(self) -> None:
        """A call ended and said nothing about the deployment: the client left."""
        self._probing = False

    def succeeded(self, now: float, began: float) -> None:
        """A call that began at `began` was answered. One that began before the last opening says nothing about now."""
        self._count(now)
        if self.open_until is not None and began <= self._opened_at:
            return
        self._row = 0
        self._probing = False
        if self.open_until is not None:
            self.open_until = None
            self._since = self._window_at = now
            self._calls = self._failed = 0
        elif self._openings and now - self._since > CALM * self._lasted_s:
            self._openings = 0

    def failed(self, now: float, chance: float) -> None:
        self._count(now)
        self._row += 1
        self._failed += 1
        probed, self._probing = self._probing, False
        if self.open_until is not None:
            if probed or now >= self.open_until:
                self._open(now, chance)
        elif self._row >= self._thresholds.failures or self._too_many():
            if now - self._since > CALM * self._lasted_s:
                self._openings = 0
            self._open(now, chance)

    def cool(self, now: float, asked_s: float | None, chance: float) -> None:
        """A rate limit. What was asked for is kept to the end."""
        self._probing = False
        if asked_s is None:
            asked_s = self._thresholds.cool_s * (0.5 + chance / 2)
        self.cool_until = max(self.cool_until, now + min(asked_s, self._thresholds.max_open_s))

    def note(self, now: float, reason: str, error: str) -> None:
        """What is shown to people."""
        self.reason, self.last_error, self.last_at = reason, error, now

    def forgettable(self, now: float) -> bool:
        """Whether it says no more than a new one would."""
        return (
            self.open_until is None
            and not self._probing
            and self._row == 0
            and now >= self.cool_until
            and now - self.last_at > max(self._thresholds.window_s, CALM * self._lasted_s)
        )

    def _open(self, now: float, chance: float) -> None:
        longest = min(self._thresholds.max_open_s, self._thresholds.open_s * 2.0 ** min(self._openings, 32))
        self._openings += 1
        self._lasted_s = longest * (0.5 + chance / 2)
        self._opened_at = now
        self.open_until = now + self._lasted_s

    def _count(self, now: float) -> None:
        if now - self._window_at > self._thresholds.window_s:
            self._window_at = now
            self._calls = self._failed = 0
        self._calls += 1

    def _too_many(self) -> bool:
        limits = self._thresholds
        return self._calls >= limits.calls and self._failed >= limits.share * self._calls
