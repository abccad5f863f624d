"""Equal calls at the same time are one call: the first asks upstream, the others wait for what it brings.

A leader that fails, or whose client leaves, fails nobody: the next in line goes on. If that one fails too, the rest go by themselves, as
they would have without a cache: no queue of timeouts. An answer that may not be shared sends everybody on their own way as well.
"""

import asyncio
from collections import deque
from typing import Final, Literal, final

from gateway.cache.entry import Entry

FAILURES: Final = 2  # in a row, before nobody waits any longer

Outcome = Entry | Literal["lead", "alone"]


@final
class Flight:
    """One key's. Whoever holds the lead ends it by `land`, `fail` or `scatter`, whatever happens."""

    __slots__ = ("_failed", "_flights", "_key", "_waiting", "how")

    def __init__(self, flights: "dict[bytes, Flight]", key: bytes) -> None:
        self._flights = flights
        self._key = key
        self._waiting: deque[asyncio.Future[Outcome]] = deque()
        self._failed = 0
        self.how = b"hit"  # what clients are told about what landed

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def join(self, wait_s: float) -> Outcome:
        """The answer; or `lead`: it is this caller's turn to ask; or `alone`: to ask for itself, nobody waits any longer."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append(turn)
        timer = loop.call_later(max(0.0, wait_s), _give, turn, "alone")
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() == "lead":
                self.fail(counts=False)  # it was just given the lead, and takes it nowhere
            raise
        finally:
            timer.cancel()
            turn.cancel()

    def land(self, entry: Entry) -> None:
        self._end(entry)

    def scatter(self) -> None:
        """There is an answer, and it is the leader's alone."""
        self._end("alone")

    def fail(self, *, counts: bool = True) -> None:
        """The leader has no answer. `counts`: the upstream's doing, not the leader's own."""
        self._failed += counts
        if self._failed >= FAILURES:
            self._end("alone")
            return
        while self._waiting:
            if _give(self._waiting.popleft(), "lead"):
                return
        self._end("alone")

    def _end(self, outcome: Outcome) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            _give(turn, outcome)


def _give(turn: "asyncio.Future[Outcome]", outcome: Outcome) -> bool:
    """Whether somebody was still waiting for it."""
    if turn.done():
        return False
    turn.set_result(outcome)
    return True
