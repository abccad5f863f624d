"""A waiting line: who is next, who may stand in it, who has to leave. Pure: no clock, no waits.

Higher classes first. Within a class it is the turn of the key that has the least for its weight: the fewest calls in flight, then the
fewest places of late (start-time fair queueing, Goyal, Vin and Cheng, 1996). One place in `LONGEST_EVERY` is that of whoever waits
longest, whatever its class, so that nobody waits for ever while others keep coming.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar, final

from gateway.admission.classes import CLASSES

LONGEST_EVERY: Final = 16


class Waiter:
    """One that waits. Subclasses carry what it waits with. `number`: the order of arrival; `tag`: its place among those of its class."""

    __slots__ = ("key", "number", "rank", "tag", "weight")

    def __init__(self, key: str, rank: int, weight: float = 1.0) -> None:
        self.key = key
        self.rank = rank
        self.weight = weight
        self.number = 0
        self.tag = 0.0


W = TypeVar("W", bound=Waiter)


class Full(Exception):
    """There is no place for who came."""


@final
class _Class(Generic[W]):
    """Those of one class, by key in order of arrival. `clock` is the virtual time: the tag of whoever was served last."""

    __slots__ = ("clock", "last", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, list[W]] = {}
        self.last: dict[str, float] = {}  # the tag that a key's next one is behind
        self.clock = 0.0


@final
class Line(Generic[W]):
    """At most `length` wait. Its owner tells of every call that has a place: `begun` and `ended`."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.size = 0
        self.in_flight: dict[str, int] = {}
        self._classes: tuple[_Class[W], ...] = tuple(_Class[W]() for _ in CLASSES)
        self._arrived = 0
        self._since_longest = 0

    def depth(self, rank: int) -> int:
        """How many of a class wait."""
        return sum(len(own) for own in self._classes[rank].waiting.values())

    def join(self, waiter: W) -> W | None:
        """Takes its place; returns who had to give theirs up for it, if anybody. Raises Full."""
        out = None
        if self.size >= self.length:
            out = self._out_for(waiter)
            if out is None:
                raise Full
            self.leave(out)
        at = self._classes[waiter.rank]
        self._arrived += 1
        waiter.number = self._arrived
        waiter.tag = max(at.clock, at.last.get(waiter.key, 0.0)) + 1.0 / waiter.weight
        at.last[waiter.key] = waiter.tag
        at.waiting.setdefault(waiter.key, []).append(waiter)
        self.size += 1
        return out

    def leave(self, waiter: W) -> bool:
        """Gives the place up without having been served. False if it has none any more."""
        at = self._classes[waiter.rank]
        own = at.waiting.get(waiter.key, [])
        if waiter not in own:
            return False
        for later in own[own.index(waiter) + 1 :]:  # those behind move up
            later.tag -= 1.0 / waiter.weight
        at.last[waiter.key] -= 1.0 / waiter.weight
        self._remove(waiter)
        return True

    def take(self, waiter: W) -> None:
        """It is served."""
        at = self._classes[waiter.rank]
        at.clock = max(at.clock, waiter.tag - 1.0 / waiter.weight)
        longest = self._longest() is waiter
        self._since_longest = 0 if longest else self._since_longest + 1
        self._remove(waiter)

    def begun(self, key: str) -> None:
        self.in_flight[key] = self.in_flight.get(key, 0) + 1

    def ended(self, key: str) -> None:
        left = self.in_flight[key] - 1
        if left:
            self.in_flight[key] = left
        else:
            del self.in_flight[key]

    def in_turn(self) -> Iterator[W]:
        """Everybody, in the order in which they would be served. The line must not change meanwhile."""
        longest = self._longest() if self._since_longest >= LONGEST_EVERY - 1 else None
        if longest is not None:
            yield longest
        for at in self._classes:
            heads = sorted(at.waiting.values(), key=lambda own: self._turn(own[0]))
            for place in range(max(map(len, heads), default=0)):
                yield from (own[place] for own in heads if place < len(own) and own[place] is not longest)

    def ahead(self, key: str, rank: int, weight: float) -> int:
        """About how many will be served before one that comes now: higher classes, and what other keys have a right to before it."""
        above = sum(self.depth(higher) for higher in range(rank))
        waiting = self._classes[rank].waiting
        own = len(waiting.get(key, ()))
        others = sum(
            min(len(theirs), int((own + 1) * theirs[0].weight / weight + 0.5))
            for other, theirs in waiting.items()
            if other != key
        )
        return above + own + others

    def everybody(self) -> Sequence[W]:
        return [one for at in self._classes for own in at.waiting.values() for one in own]

    def _turn(self, waiter: W) -> tuple[float, float, int]:
        return self.in_flight.get(waiter.key, 0) / waiter.weight, waiter.tag, waiter.number

    def _longest(self) -> W | None:
        heads = [own[0] for at in self._classes for own in at.waiting.values()]
        return min(heads, key=lambda one: one.number, default=None)

    def _out_for(self, waiter: W) -> W | None:
        """The last of the lowest class, of the key that has most there for its weight. Within a class one gives way to who has less."""
        rank = max((rank for rank, at in enumerate(self._classes) if at.waiting), default=-1)
        if rank < waiter.rank:
            return None
        waiting = self._classes[rank].waiting
        most = max(waiting.values(), key=lambda own: (len(own) / own[-1].weight, own[-1].number))
        if rank == waiter.rank:
            own = len(waiting.get(waiter.key, ()))
            if most[-1].key == waiter.key or len(most) / most[-1].weight <= (own + 1) / waiter.weight:
                return None
        return most[-1]

    def _remove(self, waiter: W) -> None:
        at = self._classes[waiter.rank]
        own = at.waiting[waiter.key]
        own.remove(waiter)
        self.size -= 1
        if not own:
            del at.waiting[waiter.key]
        if not at.waiting:  # nobody to be fair to
            at.last.clear()
            at.clock = 0.0
        if not self.size:
            self._since_longest = 0


def next_of(
    line: Line[W], place_for: Callable[[W, frozenset[str]], frozenset[str] | None]
) -> tuple[W, frozenset[str]] | None:
    """Who is served now, and which places are kept from it.

    `place_for(waiter, kept)`: None if there is room for it at a place that is not kept; else the places that it waits for. Those are kept
    for it: a large call is not passed by small ones for ever, and who can only go to one place does not hold up who waits for another.
    """
    kept: frozenset[str] = frozenset()
    for waiter in line.in_turn():
        waits_for = place_for(waiter, kept)
        if waits_for is None:
            return waiter, kept
        kept |= waits_for
    return None
