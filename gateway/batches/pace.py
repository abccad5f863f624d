"""Work in a thread that must not keep the interpreter from the event loop: little at a time, with a pause after it.

A thread that only computes gives the interpreter up every 5 ms, and each of the loop's turns would wait for that.
"""

import time
from typing import Final, final

WORK_S: Final = 0.0005
REST_S: Final = 0.001


@final
class Pace:
    """`keep` is called again and again, after a few microseconds of work each."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def keep(self) -> None:
        if time.perf_counter() - self._since > WORK_S:
            time.sleep(REST_S)
            self._since = time.perf_counter()
