"""The parent of several workers, with small stand-in workers: restarts, stops, and what happens when it dies."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from admin.workers import Backoff, reserved

ROOT = Path(__file__).parents[2]
READY = "import signal, sys, time, os; open(f'{sys.argv[1]}-{os.getpid()}', 'w').close()\n"
SLEEPER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + READY + "time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)"
BROKEN = READY + "sys.exit(3)"


class Parent:
    """A process that runs `Workers` over a given worker script; each worker leaves a file with its pid."""

    def __init__(self, folder: Path, worker: str, *, grace_s: float = 20, count: int = 2) -> None:
        self.folder = folder
        (folder / "worker.py").write_text(worker)
        script = f"""
            import os, sys
            from admin.workers import Backoff, Workers
            say = lambda line: print(line, file=sys.stderr, flush=True)
            command = lambda index: [sys.executable, "worker.py", f"w{{index}}", str(os.getpid())]
            sys.exit(Workers(command, {count}, {grace_s}, say, lambda: Backoff(base_s=0.01)).run())
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def pids(self, index: int) -> list[int]:
        found = sorted(self.folder.glob(f"w{index}-*"), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.name.partition("-")[2]) for path in found]

    def started(self, index: int, times: int = 1) -> int:
        until(lambda: len(self.pids(index)) >= times)
        return self.pids(index)[-1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids(0) + self.pids(1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process.stderr is not None
        self.process.stderr.close()


Start = Callable[..., Parent]


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Start]:
    made: list[Parent] = []

    def start(worker: str, grace_s: float = 20) -> Parent:
        made.append(Parent(tmp_path, worker, grace_s=grace_s))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_every_worker_cleanly(parent: Start, number: signal.Signals) -> None:
    """The parent waits for them and exits with 0."""
    running = parent(SLEEPER)
    pids = [running.started(0), running.started(1)]
    assert running.stop(number) == 0
    assert not any(map(alive, pids))
    assert f"stopping 2 workers after {number.name}" in running.said()


def test_a_worker_that_crashes_is_started_again(parent: Start) -> None:
    """The other one is left alone."""
    running = parent(SLEEPER)
    first, other = running.started(0), running.started(1)
    os.kill(first, signal.SIGKILL)
    second = running.started(0, times=2)
    assert second != first
    assert alive(other)
    assert running.stop() == 0
    assert "worker 0 ended with -9" in running.said()


def test_workers_that_die_at_once_are_given_up(parent: Start) -> None:
    """After five tries the parent exits with 1 instead of trying for ever."""
    running = parent(BROKEN)
    assert running.process.wait(20) == 1
    assert len(running.pids(0)) + len(running.pids(1)) in range(5, 7)
    assert "giving up" in running.said()


def test_a_worker_that_does_not_end_is_killed_after_the_grace_time(parent: Start) -> None:
    """A stop always comes to an end, and says that it was not clean."""
    running = parent(STUBBORN, grace_s=0.3)
    pids = [running.started(0), running.started(1)]
    assert running.stop() == 1
    assert not any(map(alive, pids))
    assert "killing" in running.said()


def test_workers_end_when_the_parent_is_killed(parent: Start) -> None:
    """Even SIGKILL leaves no orphan that holds the port."""
    bound = "import sys; from admin.workers import end_with_parent; end_with_parent(int(sys.argv[2]))\n" + SLEEPER
    running = parent(bound)
    pids = [running.started(0), running.started(1)]
    running.process.kill()
    until(lambda: not any(map(alive, pids)))


def test_a_worker_whose_parent_is_already_gone_ends() -> None:
    """The death may come before the worker asked to be told."""
    script = "from admin.workers import end_with_parent; end_with_parent(1 << 22); import time; time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=20, check=False)
    assert done.returncode == -signal.SIGTERM


def test_a_reserved_port_is_shared_by_listeners_and_answers_nothing_itself() -> None:
    """Port 0 is settled once; a socket that is bound and does not listen takes no connection."""
    with reserved("127.0.0.1", 0) as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            socket.create_connection(("127.0.0.1", port), 1).close()


def test_a_port_of_another_program_cannot_be_reserved() -> None:
    """The parent fails before any worker starts."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):  # noqa: SIM117
        with reserved("127.0.0.1", other.getsockname()[1]):
            pass


def test_the_pause_before_a_restart_grows_and_ends() -> None:
    """Doubling up to a bound, then no more tries."""
    backoff = Backoff(attempts=6, base_s=1, max_s=5)
    assert [backoff.after_exit(0.1) for _ in range(6)] == [1, 2, 4, 5, 5, None]


def test_a_worker_that_lived_long_clears_the_count() -> None:
    """A crash a day is no crash loop."""
    backoff = Backoff(attempts=2, base_s=1)
    assert [backoff.after_exit(lived) for lived in (0.1, 60, 0.1, 60)] == [1, 0, 1, 0]
