"""Several processes on one port: a parent that starts workers, restarts those that crash, and ends with all of them.

Every worker listens by itself with SO_REUSEPORT and the kernel spreads the connections. The parent holds a socket that is
bound and does not listen, so that the port is settled before the first worker starts and stays ours between restarts.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

METRICS_FOLDER = "worker-metrics"  # in the data folder: what workers have counted, for each other
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Backoff:
    """How long a worker waits for its restart. Pure: it is told the times. A worker that lived `healthy_s` was no failure."""

    def __init__(self, attempts: int = 5, healthy_s: float = 2.0, base_s: float = 0.1, max_s: float = 5.0) -> None:
        self._attempts = attempts
        self._healthy_s = healthy_s
        self._base_s = base_s
        self._max_s = max_s
        self._failures = 0

    def after_exit(self, lived_s: float) -> float | None:
        """Seconds until the restart; None when workers die at once again and again."""
        if lived_s >= self._healthy_s:
            self._failures = 0
            return 0.0
        self._failures += 1
        if self._failures >= self._attempts:
            return None
        return min(self._base_s * 2.0 ** (self._failures - 1), self._max_s)


class Workers:
    """Runs `count` copies of `command(index)` until a stop signal or until they cannot be kept alive.

    `grace_s` is how long a stopping worker may take before it is killed. `say` gets one line per event.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        count: int,
        grace_s: float,
        say: Callable[[str], None],
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._command = command
        self._grace_s = grace_s
        self._say = say
        self._backoff = backoff()
        self._due = dict.fromkeys(range(count), 0.0)  # when to start which worker
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> int:
        """0 after a stop signal and a clean end, 1 if workers could not be kept alive or had to be killed."""
        with _signals() as wait:
            while True:
                self._start_due()
                received = wait(self._next_due())
                if stop := received & {*STOP_SIGNALS}:
                    self._say(f"stopping {len(self._running)} workers after {signal.Signals(min(stop)).name}")
                    return self._stop(wait)
                if not self._collect():
                    self._say("workers die as soon as they start: giving up; their own messages say why")
                    self._stop(wait)
                    return 1

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, due in self._due.items() if due <= now]:
            del self._due[index]
            # A group of its own: Ctrl-C reaches the parent alone, which passes it on once.
            process = subprocess.Popen(self._command(index), process_group=0)  # noqa: S603 — our own command line
            self._running[index] = (process, now)

    def _next_due(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _collect(self) -> bool:
        """Schedules the restart of workers that ended. False when there is no point in another try."""
        now = time.monotonic()
        for index, (process, started) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[index]
            delay = self._backoff.after_exit(now - started)
            if delay is None:
                return False
            self._say(f"worker {index} ended with {process.returncode}; starting it again in {delay:g} s")
            self._due[index] = now + delay
        return True

    def _stop(self, wait: Callable[[float | None], set[int]]) -> int:
        """Asks every worker to drain, waits, and kills what is left. A second stop signal is passed on as well."""
        self._due.clear()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        while self._alive() and (left := deadline - time.monotonic()) > 0:
            if wait(left) & {*STOP_SIGNALS}:
                self._signal(signal.SIGTERM)
        if not self._alive():
            return 0
        self._say(f"killing workers that did not end within {self._grace_s:g} s")
        self._signal(signal.SIGKILL)
        for process, _ in self._running.values():
            process.wait()
        return 1

    def _signal(self, number: signal.Signals) -> None:
        for process, _ in self._running.values():
            process.send_signal(number)

    def _alive(self) -> bool:
        return any(process.poll() is None for process, _ in self._running.values())


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """The port that all workers will share, settled here if it is 0. Raises OSError if another program has it."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        placeholder.bind(address)
        yield int(placeholder.getsockname()[1])


def end_with_parent(parent: int) -> None:
    """Called in a worker: it gets SIGTERM when its parent dies, however that happens. `parent` is the parent's pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the request was in place
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals() -> Iterator[Callable[[float | None], set[int]]]:
    """A function that sleeps until a signal or a time-out and tells which signals came (signal.set_wakeup_fd)."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    numbers = (*STOP_SIGNALS, signal.SIGCHLD)

    def wait(timeout_s: float | None) -> set[int]:
        readable, _, _ = select.select([reader], [], [], timeout_s)
        return set(reader.recv(4096)) if readable else set()

    before = {number: signal.signal(number, _noticed) for number in numbers}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield wait
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _noticed(number: int, frame: FrameType | None) -> None:
    """The wake-up socket carries the news; a handler must exist for the signal to be caught at all."""
