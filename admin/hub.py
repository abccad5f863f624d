"""Files of open models from a hub that speaks Hugging Face's HTTP: listed with their checksums, fetched or resumed, checked, then there.

A file is written beside its place under `.part`, and appears there once its checksum is right. What a broken connection has left is
gone on with. Blocks.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self, final
from urllib.parse import quote

import httpx
import msgspec

from admin.commands.documents import Failed

USUAL: Final = "https://huggingface.co"
ATTEMPTS: Final = 5  # without a byte more; each that brings some begins anew
BACKOFF_S: Final = 1.0
TIMEOUT: Final = httpx.Timeout(30.0)
_BLOCK: Final = 1 << 20
_OVER: Final = 416  # RFC 9110 15.5.17: there is nothing behind what was asked for

Told = Callable[[str, int, int], None]


class HubFile(msgspec.Struct, frozen=True):
    """`digest` is SHA-256 of a large file, and of a small one what git calls it (SHA-1 with its length); '' where neither is said."""

    path: str
    size: int
    digest: str
    large: bool


class Snapshot(msgspec.Struct, frozen=True):
    """A repository at one commit."""

    repository: str
    commit: str
    files: Sequence[HubFile]


class _Lfs(msgspec.Struct):
    sha256: str = ""
    size: int = 0


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    blobId: str | None = None  # noqa: N815 — the hub's name for it
    lfs: _Lfs | None = None


class _Repository(msgspec.Struct):
    sha: str
    siblings: list[_Sibling] = []


@final
class Hub:
    """`endpoint`: a mirror's, if not the usual one. `token` opens what is not for everybody."""

    def __init__(self, endpoint: str = USUAL, token: str | None = None, backoff_s: float = BACKOFF_S) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._backoff_s = backoff_s
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def snapshot(self, repository: str, revision: str) -> Snapshot:
        """Raises Failed."""
        url = f"{self.endpoint}/api/models/{quote(repository)}/revision/{quote(revision, safe='')}"
        try:
            answer = self._client.get(url, params={"blobs": "true"})
        except httpx.HTTPError as error:
            raise Failed(self._away(error)) from error
        if answer.is_error:
            raise Failed(self._refusal(answer, f"{repository} at {revision}"))
        try:
            found = msgspec.json.decode(answer.content, type=_Repository)
        except msgspec.MsgspecError as error:
            raise Failed(f"{self.endpoint} is no hub of models: {error}") from error
        return Snapshot(repository, found.sha, [_file(each) for each in found.siblings])

    def fetch(self, snapshot: Snapshot, file: HubFile, folder: Path, told: Told) -> bool:
        """Into the folder; False if it is there already, whole. `told` hears of bytes. Raises Failed, OSError."""
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size and _right(target, file):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        self._complete(snapshot, file, part, told)
        if not _right(part, file):
            part.unlink()
            raise Failed(f"{file.path}: its checksum is not what the hub says. It was thrown away: try again")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
        return True

    def _complete(self, snapshot: Snapshot, file: HubFile, part: Path, told: Told) -> None:
        """Raises Failed."""
        failures = 0
        while (there := part.stat().st_size if part.exists() else 0) < file.size or not part.exists():
            try:
                self._more(snapshot, file, part, there, told)
            except httpx.HTTPError as error:
                came = part.exists() and part.stat().st_size > there
                failures = 0 if came else failures + 1
                if failures >= ATTEMPTS:
                    raise Failed(f"{file.path}: {self._away(error)} What came is kept, and gone on with.") from error
                time.sleep(self._backoff_s * 2**failures)
        if part.stat().st_size > file.size:
            part.unlink()
            raise Failed(f"{file.path}: the hub sent more than the {file.size:,} bytes that it has")

    def _more(self, snapshot: Snapshot, file: HubFile, part: Path, there: int, told: Told) -> None:
        """Raises httpx.HTTPError, Failed."""
        url = f"{self.endpoint}/{quote(snapshot.repository)}/resolve/{snapshot.commit}/{quote(file.path)}"
        asked = {"accept-encoding": "identity", **({"range": f"bytes={there}-"} if there else {})}
        with self._client.stream("GET", url, headers=asked) as answer:
            if answer.status_code == _OVER:
                part.unlink()
                return
            if answer.status_code >= 500:
                answer.raise_for_status()
            if answer.is_error:
                raise Failed(self._refusal(answer, file.path))
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            done = there if resumed else 0
            with part.open("ab" if resumed else "wb") as out:
                for block in answer.iter_raw():  # as it comes: what is buffered is lost when the connection breaks
                    out.write(block)
                    done += len(block)
                    told(file.path, done, file.size)
            if done < file.size:
                raise httpx.ReadError("the connection ended early")

    def _away(self, error: httpx.HTTPError) -> str:
        return (
            f"{self.endpoint} cannot be reached: {str(error) or type(error).__name__}. "
            "Behind a firewall name a mirror with --endpoint or HF_ENDPOINT."
        )

    def _refusal(self, answer: httpx.Response, what: str) -> str:
        match answer.status_code:
            case 401 | 403:
                return f"{self.endpoint} does not give {what} to everybody: accept its terms there, and set HF_TOKEN"
            case 404:
                return f"{self.endpoint} has no {what}"
            case status:
                return f"{self.endpoint} answered with {status} for {what}"


def _file(one: _Sibling) -> HubFile:
    """Raises Failed for a name that leads out of the folder."""
    path = PurePosixPath(one.rfilename)
    if path.is_absolute() or ".." in path.parts or "\\" in one.rfilename or not path.parts:
        raise Failed(f"the hub names a file {one.rfilename!r}, which is no place in a folder")
    if one.lfs is not None:
        return HubFile(one.rfilename, one.lfs.size or one.size or 0, one.lfs.sha256, large=True)
    return HubFile(one.rfilename, one.size or 0, one.blobId or "", large=False)


def _right(path: Path, file: HubFile) -> bool:
    size = path.stat().st_size
    if size != file.size:
        return False
    if not file.digest:
        return True
    digest = hashlib.sha256() if file.large else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.digest


def settings_of(environ: Mapping[str, str], endpoint: str | None) -> dict[str, Any]:
    """What a `Hub` is made with, where Hugging Face's own tools look for it."""
    return {"endpoint": endpoint or environ.get("HF_ENDPOINT") or USUAL, "token": environ.get("HF_TOKEN") or None}
