"""Where a batch is worked on: its results as they come, safe from `kill -9`, and who works on it.

    <folder>/batches/<id>/lock.<epoch>      locked (flock) while the owner of this epoch lives on this machine
    <folder>/batches/<id>/epoch-<n>/
        output.jsonl, errors.jsonl          results in OpenAI's shape: what the client will download
        attempts                            a byte for each line of the input: how often it was begun by an owner

A line is done when its result stands whole in one of the two files: `append` writes it before the call that made it is settled. An owner
begins with a copy of what the one before it left and never writes into that one's folder, so that a process which was only asleep cannot
add to what another one goes on with.
"""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Final, Self, final

import structlog

from gateway.batches.pace import Pace
from gateway.batches.results import Counts, Done, read

log = structlog.stdlib.get_logger(__name__)

OUTPUT: Final = "output.jsonl"
ERRORS: Final = "errors.jsonl"
_ATTEMPTS: Final = "attempts"


@final
class Claim:
    """The lock of one epoch, which the kernel takes away when the process dies."""

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def take(cls, folder: Path, epoch: int) -> Self | None:
        """None while another process on this machine has it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / f"lock.{epoch}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        return cls(file)

    def let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def abandoned(folder: Path, epoch: int) -> bool:
    """Whether the owner of an epoch, which was on this machine, is dead."""
    claim = Claim.take(folder, epoch)
    if claim is None:
        return False
    claim.let_go()
    return True


@final
class Worksheet:
    """`open`, then calls from one thread, then `close`. `done` has a byte for each line of the input, by its number."""

    def __init__(self, folder: Path, numbers: int) -> None:
        self.folder = folder
        self.done = bytearray(numbers + 1)
        self.counts = Counts()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._files = {name: os.open(folder / name, flags | os.O_APPEND, 0o600) for name in (OUTPUT, ERRORS)}
        self._attempts = os.open(folder / _ATTEMPTS, flags, 0o600)

    @classmethod
    def open(cls, folder: Path, epoch: int, numbers: int) -> Self:
        """Goes on where an earlier owner stopped. `folder` is the batch's. Blocks. Raises OSError."""
        sheet = cls(_inherit(folder, epoch), numbers)
        try:
            os.posix_fallocate(sheet._attempts, 0, numbers + 1)  # a disk that is full is seen now, not at some line
            for name in (OUTPUT, ERRORS):
                sheet._recall(name)
        except OSError:
            sheet.close()
            raise
        return sheet

    def begin(self, number: int) -> int:
        """How often the line was begun before this time. Raises OSError."""
        before = os.pread(self._attempts, 1, number) or b"\0"
        os.pwrite(self._attempts, bytes((min(255, before[0] + 1),)), number)
        return before[0]

    def append(self, done: Done, line: bytes) -> None:
        """The line is done when this returns. Raises OSError, and then nothing was written."""
        file = self._files[OUTPUT if done.ok else ERRORS]
        size = os.fstat(file).st_size
        try:
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, "No space left on device")  # noqa: TRY301 — the rest would not fit either
        except OSError:
            os.ftruncate(file, size)
            raise
        self._count(done)

    def sync(self) -> None:
        """Blocks until a power cut takes nothing of what was appended."""
        for file in (*self._files.values(), self._attempts):
            os.fdatasync(file)

    def size(self, name: str) -> int:
        return os.fstat(self._files[name]).st_size

    def close(self) -> None:
        for file in (*self._files.values(), self._attempts):
            os.close(file)

    def _count(self, done: Done) -> None:
        self.done[done.number] = 1
        self.counts.add(done)

    def _recall(self, name: str) -> None:
        """Counts what is there, and cuts off what is not whole."""
        pace, whole = Pace(), 0
        with (self.folder / name).open("rb") as file:
            for line in file:
                found = read(line) if line.endswith(b"\n") else None
                if found is None or not 0 < found.number < len(self.done):
                    break
                if not self.done[found.number]:
                    self._count(found)
                whole += len(line)
                pace.keep()
        if whole != self.size(name):
            log.warning("batch.torn", folder=self.folder.parent.name, file=name, kept=whole, found=self.size(name))
            os.ftruncate(self._files[name], whole)


def newest(folder: Path) -> Path | None:
    """The folder of the last epoch that anybody has begun."""
    found = [path for path in folder.glob("epoch-*") if path.name[6:].isdigit()]
    return max(found, key=lambda path: int(path.name[6:]), default=None)


def _inherit(folder: Path, epoch: int) -> Path:
    """A whole copy gets its name at once; a death before that leaves the older one as it was."""
    own, before = folder / f"epoch-{epoch}", newest(folder)
    if before == own:
        return own
    made = folder / f"epoch-{epoch}.new"
    shutil.rmtree(made, ignore_errors=True)
    if before is None:
        made.mkdir(mode=0o700)
    else:
        shutil.copytree(before, made)
    made.rename(own)
    for older in folder.glob("epoch-*"):
        if older != own:
            shutil.rmtree(older, ignore_errors=True)
    return own
