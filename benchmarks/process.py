"""Processes under measurement: started on one core, and what the operating system says they cost."""

import contextlib
import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

Headers = Mapping[str, str]


class NotStarted(RuntimeError):
    """A server ended or stayed silent; the message quotes the end of its log."""


class Server:
    """One server of ours and its children. A context manager, so that nothing outlives a benchmark that fails."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        core: int | None = None,
        environment: Headers | None = None,
        folder: Path | None = None,
    ) -> None:
        """`folder`: where it works, unless that is of no account."""
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["env", *variables, *pinned, *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
            )
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def wait_ready(self, port: int, path: str, *, limit_s: float = 30.0) -> float:
        """Seconds from the start of the process to the first 200 on `path`."""
        return self.wait_until(lambda: call(port, "GET", path, timeout_s=5)[0] == 200, limit_s=limit_s)

    def wait_until(self, ready: Callable[[], bool], *, limit_s: float = 30.0) -> float:
        """Seconds from the start of the process until `ready` holds; a connection that fails means not yet."""
        while (elapsed := time.perf_counter() - self._started) < limit_s:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ready():
                    return time.perf_counter() - self._started
            time.sleep(0.002)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise NotStarted(f"{self._process.args!r} is not ready after {elapsed:.1f} s:\n{tail}")

    def wait_end(self, limit_s: float) -> None:
        """For a program that does one thing. Raises NotStarted if that failed."""
        if self._process.wait(limit_s) != 0:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise NotStarted(f"{self._process.args!r} failed:\n{tail}")

    def family(self) -> tuple[int, ...]:
        """Process ids: the server and all that it started."""
        found: list[int] = []
        todo = [self._process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                todo.extend(int(child) for child in children.read_text().split())
        return tuple(sorted(found))

    def rss_mib(self) -> float:
        """Resident memory of the family; pages that processes share count in each of them."""
        return sum(_rss_kib(pid) for pid in self.family()) / 1024

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)


def cpu_ns(pids: Sequence[int]) -> int:
    """User and system time that the processes have used, threads that ended included, in the kernel's own nanoseconds.

    A process's CPU clock can be read by others; clock_getcpuclockid(3) computes its id as below. `/proc/PID/stat` has
    the same time in ticks of 10 ms, which is as long as 200 requests.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def call(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Headers | None = None,
    *,
    timeout_s: float = 20,
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
