"""One limit of tokens per minute, shared by the keys that are active: each has its fair part, and what one does not use is the others'.

Nothing is set aside for who asks for nothing: one key alone has the whole limit. Once another one was turned away, all are held to their
max-min fair shares of it for as long as that one keeps asking; as the minute slides its part becomes free, so that nobody waits longer
than a minute for it.
"""

from math import inf
from typing import Final, final

from gateway.admission.maxmin import shares
from gateway.routing.minute import Minute

COMES_BACK_S: Final = (
    5.0  # after the moment that it was told, or its last call: then its whole part is not kept for it any more
)
REMEMBERED_S: Final = 60.0  # without being turned away: then what a key wants is known by what it uses
GROWTH: Final = (
    1.25  # what an active key may want of the next minute, beside what it had of the last one: so much, and two calls
)
FORGET_AT: Final = 256  # keys


@final
class _Part:
    __slots__ = ("call", "crowded_until", "refused_at", "used", "waits_until", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.used = Minute()
        self.call = 0  # tokens of its last one
        self.refused_at = -inf
        self.waits_until = -inf  # nobody knows how much it wants
        self.crowded_until = -inf  # it was turned away and keeps asking

    def wants(self, now: float) -> float:
        return inf if now < self.waits_until else self.used.used(now) * GROWTH + 2 * self.call


@final
class FairMinute:
    """By key. Times are seconds of one clock. That all of them together stay within the limit is the caller's business.

    A look costs as much as there are active keys.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}

    def allows(self, now: float, limit: float, key: str, weight: float, tokens: int) -> bool:
        """Whether so many more are within the key's share. A call that is larger than a share is allowed to who has used nothing."""
        part = self._part(key, weight, now)
        if now < part.crowded_until:
            part.crowded_until = now + REMEMBERED_S
        used = part.used.used(now)
        if not used or all(now >= other.crowded_until for other in self._parts.values() if other is not part):
            return True
        return used + tokens <= self._share(now, limit, key)

    def use(self, now: float, key: str, weight: float, tokens: int) -> None:
        """They are used."""
        part = self._part(key, weight, now)
        part.used.add(now, tokens)
        part.call = tokens
        part.waits_until = min(now + COMES_BACK_S, part.refused_at + REMEMBERED_S)

    def correct(self, now: float, key: str, tokens: int) -> None:
        """So many more were used than was said, or less."""
        part = self._parts.get(key)
        if part is not None:
            part.used.add(now, tokens)

    def turned_away(self, now: float, key: str, weight: float, back_in_s: float) -> None:
        """A call of the key had no room, and was told when to come back."""
        part = self._part(key, weight, now)
        part.refused_at = now
        part.waits_until = max(part.waits_until, now + back_in_s + COMES_BACK_S)
        part.crowded_until = max(part.waits_until, now + REMEMBERED_S)

    def active(self, now: float) -> int:
        """How many keys share it now."""
        self._forget(now)
        return len(self._parts)

    def _share(self, now: float, limit: float, key: str) -> float:
        """Of a key that would take any number."""
        wants = {other: (part.weight, inf if other == key else part.wants(now)) for other, part in self._parts.items()}
        return shares(limit, wants)[key]

    def _part(self, key: str, weight: float, now: float) -> _Part:
        part = self._parts.get(key)
        if part is None:
            if len(self._parts) >= FORGET_AT:
                self._forget(now)
            part = self._parts[key] = _Part(weight)
        part.weight = weight
        return part

    def _forget(self, now: float) -> None:
        self._parts = {
            key: part for key, part in self._parts.items() if part.used.used(now) or now < part.crowded_until
        }
