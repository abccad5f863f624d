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

NICER: Final = 10  # who asks for one answer does not wait for a million others


def main() -> int:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    os.nice(NICER)
    logs.configure("info", "json")
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_watch, args=(stopping,), daemon=True).start()
    with worker(order, stopping) as work:
        work.run(sys.argv[1])
    return 0


def _watch(stopping: threading.Event) -> None:
    """Reads past Python's own buffer, whose lock would be held when the interpreter ends."""
    while os.read(0, 1024):
        pass
    stopping.set()


if __name__ == "__main__":
    sys.exit(main())
