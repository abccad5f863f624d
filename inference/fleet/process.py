"""One operating-system process with all that it starts: begun in a session of its own, found again after our own death, ended whole.

What is written of it in `<slot>.json` is enough to know it again: a pid alone may be somebody else's by now, a pid with its start time
and the machine's boot is not. Its output goes straight into the log file, so that it does not notice if we die.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import msgspec

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
TAIL_BYTES: Final = 16_384
MAX_LINE: Final = 500
MAX_NICE: Final = 19


class Mark(msgspec.Struct, frozen=True):
    """A process as it is found again. `ticks`: when it started, in clock ticks since the boot; `print`: of its declaration."""

    pid: int
    ticks: int
    boot: str
    port: int
    seat: int
    print: str
    ready: bool = False
    loras: tuple[tuple[str, str], ...] = ()


class Stat(msgspec.Struct, frozen=True):
    state: str
    session: int
    ticks: int
    rss_bytes: int


@final
class Process:
    """Begun here, or adopted: only of the first the exit status is known."""

    def __init__(self, pid: int, ticks: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self.ticks = ticks
        self._child = child

    @property
    def status(self) -> int | None:
        """The exit status, where it is known: negative for a signal."""
        return None if self._child is None else self._child.returncode

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        found = stat(self.pid)
        return found is not None and found.ticks == self.ticks and found.state not in "ZX"

    def signal(self, number: signal.Signals) -> None:
        """To all of its group. None of them may be left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def yields(self, nice: int) -> None:
        """Its whole session is nicer than we are by so much from now on. What the system does not permit is left as it is.

        Linux shares a machine out between sessions before it looks at the niceness within them (sched(7), autogroup), so both are said.
        """
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, self.pid, min(MAX_NICE, os.getpriority(os.PRIO_PROCESS, 0) + nice))
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(str(nice))

    def rss_mb(self) -> float:
        """Of its whole session: an engine is several processes."""
        found = (stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return sum(one.rss_bytes for one in found if one is not None and one.session == self.pid) / (1 << 20)


def begin(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> Process:
    """Raises OSError, also when there is no such program."""
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 — what an administrator declared, without a shell
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    found = stat(child.pid)
    return Process(child.pid, 0 if found is None else found.ticks, child)


def adopted(mark: Mark) -> Process | None:
    """The process of a mark, if it is still that one."""
    process = Process(mark.pid, mark.ticks)
    return process if mark.boot == boot() and process.alive() else None


def stat(pid: int) -> Stat | None:
    """None if there is none (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[3]), int(fields[19]), int(fields[21]) * PAGE)


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def tail(log: Path, lines: int) -> tuple[str, ...]:
    """The last lines of a log, each cut to a bound."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line[:MAX_LINE] for line in text.splitlines() if line.strip())[-lines:]


def rotate(log: Path, max_bytes: int, files: int) -> None:
    """Copies a log that has grown too large to `.1` and empties it: the engine goes on writing to the same file (copytruncate)."""
    try:
        if log.stat().st_size <= max_bytes:
            return
    except OSError:
        return
    for number in range(files - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    copy = log.with_name(f"{log.name}.1")
    with log.open("rb") as source, copy.open("wb") as kept:
        size = source.seek(0, os.SEEK_END)
        source.seek(max(0, size - max_bytes))
        kept.write(source.read(max_bytes))
    os.truncate(log, 0)
