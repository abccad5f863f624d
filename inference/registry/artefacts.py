"""The folder of artefacts: files by the SHA-256 of their bytes, written aside, on the disk before they have a name, never changed.

    <folder>/objects/<digest>   whole files; the same file is there once, whoever registers it
    <folder>/incoming/<id>      what is being written; a process that dies leaves it to `sweep`

A file comes before the row that names it. A process that dies between the two leaves a file that nobody knows, which `collect` takes away.
Every function blocks: it is for a thread. Replicas may share the folder.
"""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

from inference.errors import Unavailable

FORGOTTEN_AFTER_S: Final = 3600.0  # longer than any registration takes
_AT_ONCE: Final = 500


@final
class Artefacts:
    """One folder, made if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"

    def prepare(self) -> None:
        """Raises OSError."""
        for path in (self._objects, self._incoming):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Digests come from the database or from here, never from a client's text."""
        return self._objects / digest

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A fresh folder to receive files in, gone at the end of the block with all that was not kept."""
        self.prepare()
        folder = self._incoming / f"{time.time_ns():x}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder)

    def keep(self, path: Path) -> tuple[str, int]:
        """Takes a finished file in: its digest and size. It is on the disk, under its name, when this returns. Raises OSError."""
        with path.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            os.fsync(file.fileno())
        path.chmod(0o400)
        target = self.path(digest)
        try:
            os.utime(target)  # it is there, and as young as any other from now on: `collect` leaves it alone
        except FileNotFoundError:
            path.rename(target)
            os.utime(target)
            _sync_folder(self._objects)
        return digest, size

    def read(self, digest: str) -> bytes:
        """The whole file. Raises Unavailable where it is missing or its bytes are other ones."""
        return verified(self.path(digest), digest)

    def sweep(self) -> None:
        """Takes away what was being written when its process died."""
        for path in _old(self._incoming):
            _remove(path)

    def collect(self, known: Callable[[Sequence[str]], frozenset[str]]) -> int:
        """Takes away files that no row names, unless they are young: how many. `known` says which of some digests a row names."""
        gone = 0
        for some in _batches(_old(self._objects)):
            wanted = known([path.name for path in some])
            for path in some:
                # Asked again: a registration of the same bytes may have made it young meanwhile.
                if path.name not in wanted and _is_old(path):
                    path.unlink(missing_ok=True)
                    gone += 1
        return gone


def verified(path: Path, digest: str) -> bytes:
    """The file's bytes, if they are the ones that were registered. Raises Unavailable."""
    try:
        with path.open("rb") as file:
            data = file.read()
    except OSError as error:
        raise Unavailable(
            f"The artefact {digest[:12]}… is not in this server's folder: {os.strerror(error.errno or 0)}.",
            code="artefact_missing",
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(digest)
    return data


def verify(path: Path, digest: str) -> None:
    """The same without holding the file in memory. Raises Unavailable."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unavailable(
            f"The artefact {digest[:12]}… is not in this server's folder: {os.strerror(error.errno or 0)}.",
            code="artefact_missing",
        ) from error
    if found != digest:
        raise _damaged(digest)


def _damaged(digest: str) -> Unavailable:
    return Unavailable(
        f"The artefact {digest[:12]}… has other bytes than the ones that were registered: it is not loaded. Restore the file.",
        code="artefact_damaged",
    )


def _batches(paths: Iterator[Path]) -> Iterator[list[Path]]:
    found: list[Path] = []
    for path in paths:
        found.append(path)
        if len(found) == _AT_ONCE:
            yield found
            found = []
    if found:
        yield found


def _old(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if _is_old(path):
            yield path


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):  # somebody else was faster
        return path.stat().st_mtime < time.time() - FORGOTTEN_AFTER_S
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
