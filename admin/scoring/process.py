"""A process that works on one job for the server: `python -m admin.scoring.process JOB`, with its order on standard input.

It ends between two chunks when it is told to (SIGTERM), or when the server's end of its standard input is closed, however the server ended.
"""

import os
import signal
import sys
import threading
from typing import Final

import msgspec

from admin import logs
from admin.scoring.order import Order, worker
from admin.scoring.till import PipeTill

NICER: Final = 10  # who asks for one answer does not wait for a million others


def main() -> int:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    os.nice(NICER)
    logs.configure("info", "json")
    order = msgspec.json.decode(_line(), type=Order)
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a model prints, it is not for the server to read
    tills: list[PipeTill] = []

    def till(request_nanousd: int, row_nanousd: int) -> PipeTill:
        tills.append(PipeTill(out, stopping, request_nanousd, row_nanousd))
        return tills[0]

    threading.Thread(target=_watch, args=(stopping, tills), daemon=True).start()
    with worker(order, stopping, till=till) as work:
        work.run(sys.argv[1])
    return 0


def _watch(stopping: threading.Event, tills: list[PipeTill]) -> None:
    while line := _line():
        tills[0].hear(line)
    stopping.set()


def _line() -> bytes:
    """Reads past Python's own buffer, whose lock would be held when the interpreter ends."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
