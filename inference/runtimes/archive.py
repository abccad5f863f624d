"""An archive that somebody sent, unpacked within bounds: a folder of MLflow as zip or tar."""

import tarfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final

from inference.errors import ArtefactRefused

MOST_FILES: Final = 5_000
_AT_ONCE: Final = 1 << 20


def unpack(path: Path, folder: Path, most_bytes: int) -> None:
    """Plain files only, below `folder`, `most_bytes` of them altogether, whatever the archive says of itself. Raises ArtefactRefused."""
    left = most_bytes
    try:
        with closing(_members(path)) as members:
            for number, (name, opened) in enumerate(members):
                if number >= MOST_FILES:
                    raise ArtefactRefused(f"The archive holds more than {MOST_FILES} files", code="archive_too_large")
                target = folder / _inside(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, target.open("xb") as sink:
                    left -= _copied(source, sink, left)
                if left < 0:
                    raise ArtefactRefused(
                        f"The archive unpacks to more than {most_bytes:,} bytes", code="archive_too_large"
                    )
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise ArtefactRefused(f"The archive cannot be read: {error}", code="artefact_invalid") from error


def root(folder: Path) -> Path:
    """Where its MLmodel lies: at the top, or in the one folder that is there. Raises ArtefactRefused."""
    for place in (folder, *sorted(each for each in folder.iterdir() if each.is_dir())):
        if (place / "MLmodel").is_file():
            return place
    raise ArtefactRefused("The archive holds no file `MLmodel`, so it is no model of MLflow", code="artefact_invalid")


def pack(folder: Path, target: Path) -> Path:
    """A folder as a tar whose bytes depend on its files alone: the same model has the same digest. Raises OSError."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with tarfile.open(target, "w") as archive:
        for path in sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink()):
            archive.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)
    return target


def _copied(source: IO[bytes], sink: IO[bytes], most: int) -> int:
    """How many bytes it has: one more than `most` stands for too many, and none further is read."""
    done = 0
    while done <= most and (piece := source.read(min(_AT_ONCE, most + 1 - done))):
        sink.write(piece)
        done += len(piece)
    return done


def _members(path: Path) -> Generator[tuple[str, Callable[[], IO[bytes]]], None, None]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, partial(archive.open, member)
        return
    with tarfile.open(path) as tar:
        for each in tar:
            if each.isdir():
                continue
            if not each.isfile():
                raise ArtefactRefused(f"The archive holds a link or a device: {each.name!r}", code="artefact_refused")
            yield each.name, partial(_file_of, tar, each)


def _file_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(member)
    assert found is not None  # it is a plain file
    return found


def _inside(name: str) -> PurePosixPath:
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise ArtefactRefused(f"The archive names a place outside of itself: {name!r}", code="artefact_refused")
    return place
