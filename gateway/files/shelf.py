"""The folder that holds the bytes of files: written aside, on the disk before they have a name, and never half there.

    <folder>/files/<id>       whole files
    <folder>/parts/<id>       parts of uploads
    <folder>/incoming/<id>    what is being written; a process that dies leaves it to `sweep`
    <folder>/batches/<id>/    where a batch is worked on (gateway.batches.worksheet)

Every function blocks: it is for a thread. Replicas may share the folder, as nothing in it is changed in place.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, final

from gateway.errors import Overloaded

Kind = Literal["files", "parts"]

FORGOTTEN_AFTER_S: Final = 3600.0  # what nobody finished, or nobody knows
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageFailed(Overloaded):
    """The folder does not take what was sent; nothing of it is kept. To send it again at once is no use."""

    def __init__(self, error: OSError) -> None:
        full = error.errno in _FULL
        reason = "is full" if full else f"cannot be written ({os.strerror(error.errno or errno.EIO)})"
        super().__init__(
            f"The server's disk for files {reason}; nothing of this file was kept",
            code="storage_full" if full else "storage_failed",
            headers=(("x-should-retry", "false"),),
        )


@final
class Incoming:
    """One file on its way in. Leaving the block without `keep` takes it away. Raises StorageFailed."""

    def __init__(self, shelf: "Shelf", id_: str) -> None:
        self._shelf = shelf
        self._id = id_
        self.path = shelf.folder / "incoming" / id_
        self._file = -1
        self.size = 0

    def __enter__(self) -> Self:
        with _told():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        with _told():
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        self.size += len(data)

    def append(self, path: Path) -> None:
        """Another file's bytes."""
        with _told(), path.open("rb") as source:
            while moved := os.sendfile(self._file, source.fileno(), source.tell(), 1 << 30):
                source.seek(moved, os.SEEK_CUR)
                self.size += moved

    def keep(self, kind: Kind) -> None:
        """It is on the disk, and under its name, when this returns."""
        with _told():
            os.fsync(self._file)
            self.path.rename(self._shelf.path(kind, self._id))
            _sync_folder(self._shelf.folder / kind)


@final
class Shelf:
    """One folder, made if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Raises OSError."""
        for name in ("files", "parts", "incoming", "batches"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, kind: Kind, id_: str) -> Path:
        """Ids come from the database, never from a client's text."""
        return self.folder / kind / id_

    def incoming(self, id_: str) -> Incoming:
        return Incoming(self, id_)

    def adopt(self, path: Path, id_: str) -> int | None:
        """A finished file gets a name here, unless it has it already; its size, or None where it is in neither place."""
        target = self.path("files", id_)
        with _told():
            if path.exists() and not target.exists():
                path.rename(target)
                _sync_folder(target.parent)
        return target.stat().st_size if target.exists() else None

    def forget(self, kind: Kind, ids: Sequence[str]) -> None:
        for id_ in ids:
            self.path(kind, id_).unlink(missing_ok=True)

    def forget_batch(self, id_: str) -> None:
        shutil.rmtree(self.folder / "batches" / id_, ignore_errors=True)

    def old(self, kind: Kind | Literal["batches"]) -> Iterator[list[str]]:
        """The ids of what has been there for a while, some at a time: who knows the database says which of them are nobody's."""
        found: list[str] = []
        for path in _old(self.folder / kind):
            found.append(path.name)
            if len(found) == 500:
                yield found
                found = []
        if found:
            yield found

    def sweep(self) -> None:
        """Takes away what was being written when its process died."""
        for path in _old(self.folder / "incoming"):
            path.unlink(missing_ok=True)


def _old(folder: Path) -> Iterator[Path]:
    before = time.time() - FORGOTTEN_AFTER_S
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # somebody else was faster
            if entry.stat().st_mtime < before:
                yield Path(entry.path)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(error) from error


def _sync_folder(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
