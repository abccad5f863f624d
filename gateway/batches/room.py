"""Room for lines of batches beside live traffic: a line starts only while few calls are in flight, live ones included.

What is measured is calls with an open hold in this process, less the lines themselves. So live traffic pushes lines aside, and never the
other way round: the more live calls run, the fewer lines do, down to none. And the event loop has to have time: none starts in a moment
in which a turn of it takes long, as then a live call would wait for the line.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

LOOK_S: Final = 0.01  # live calls end without telling anybody here
TURN_S: Final = 0.002  # a turn of the loop that takes longer says that there is no time
PATIENCE_S: Final = 1.0  # at the door, before one looks whether it is still wanted


@final
class Room:
    """`lines` at the same time at most, and so many that all calls together stay below `calls`. `in_flight` counts all calls."""

    def __init__(self, lines: int, calls: int, in_flight: Callable[[], int]) -> None:
        self._lines = lines
        self._calls = calls
        self._in_flight = in_flight
        self._door = asyncio.Lock()  # one waits for room, and the others for the door, more or less by turns
        self._left = asyncio.Event()
        self.busy = 0

    @property
    def live(self) -> int:
        """Live calls in flight."""
        return max(0, self._in_flight() - self.busy)

    async def enter(self, given_up: Callable[[], bool]) -> bool:
        """Waits for room; True: a line may start, and `leave` follows. False: whoever wanted in has `given_up`."""
        while not given_up():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._door.acquire()
                try:
                    if await self._wait(given_up):
                        self.busy += 1
                        return True
                finally:
                    self._door.release()
        return False

    def leave(self) -> None:
        self.busy -= 1
        self._left.set()

    async def _wait(self, given_up: Callable[[], bool]) -> bool:
        while not has_room(self.busy, self.live, self._lines, self._calls) or not await _calm():
            if given_up():
                return False
            self._left.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._left.wait()
        return True


async def _calm() -> bool:
    began = time.perf_counter()
    await asyncio.sleep(0)
    return time.perf_counter() - began < TURN_S


def has_room(busy: int, live: int, lines: int, calls: int) -> bool:
    """Whether one more line may start."""
    return busy < lines and live + busy < calls
