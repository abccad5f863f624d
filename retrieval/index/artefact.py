"""An index on the disk: written aside, synced, checksummed, and only then there. What does not fit its checksum is as good as absent.

    <folder>/manifest.json         what is valid; renamed into place, with a checksum over itself
    <folder>/<generation>-….vectors  float32 [rows, dimensions]
    <folder>/<generation>-….ids      int64 [rows], of passages
    <folder>/<generation>-….owners   int64 [rows], of their documents
    <folder>/<generation>-….texts    passages and documents as they are shown; `.places` says where each is (`retrieval.index.texts`)
    <folder>/<generation>-….graph    a graph engine's own file, if one was made
    <folder>/lock                  held by who writes

Every function blocks: it is for a thread.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from retrieval.index.planner import Costs
from retrieval.index.ports import Rows, Vectors
from retrieval.index.settings import Quantization
from retrieval.index.texts import Shown, Texts, packed

log = structlog.stdlib.get_logger(__name__)

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PARTS: Final = frozenset({".vectors", ".ids", ".owners", ".texts", ".places", ".graph", ".new"})
_BLOCK: Final = 1 << 20


class Sealed(msgspec.Struct, frozen=True):
    """A file of the artefact."""

    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """`effort` is what the graph needs for its recall, as measured when it was made. `engine` made the graph, with a `quantization`.
    `told`: the generation that its texts are of.
    """

    generation: int
    rows: int
    dimensions: int
    files: Mapping[str, Sealed]
    engine: str | None = None
    effort: int = 0
    quantization: Quantization = "none"
    costs: Costs | None = None
    told: int = -1
    format: int = FORMAT


class Artefact(msgspec.Struct, frozen=True):
    """Open: vectors and texts are mapped, not read. `texts` None: of an earlier release, which kept none."""

    manifest: Manifest
    folder: Path
    vectors: Vectors
    ids: NDArray[np.int64]
    owners: NDArray[np.int64]
    texts: Texts | None = None

    @property
    def content(self) -> Rows:
        return Rows(self.vectors, self.ids, self.owners)

    @property
    def graph(self) -> Path | None:
        sealed = self.manifest.files.get("graph")
        return None if sealed is None else self.folder / sealed.name


def opened(folder: Path) -> Artefact | None:
    """The artefact, every byte of it checked; None where there is none, or none that is whole."""
    try:
        manifest = _manifest(folder)
        if manifest is None:
            return None
        for sealed in manifest.files.values():
            _check(folder / sealed.name, sealed)
        shape = (manifest.rows, manifest.dimensions)
        vectors = np.memmap(folder / manifest.files["vectors"].name, "<f4", "r", shape=shape)
        ids = np.fromfile(folder / manifest.files["ids"].name, "<i8")
        owners = np.fromfile(folder / manifest.files["owners"].name, "<i8")
        texts = _texts(folder, manifest)
        if not len(ids) == len(owners) == manifest.rows == (manifest.rows if texts is None else texts.rows):
            log.warning("index.damaged", folder=folder.name, reason="the number of rows")
            return None
    except (Damaged, OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        log.warning("index.damaged", folder=folder.name, reason=str(error))
        return None
    return Artefact(manifest, folder, vectors, ids, owners, texts)


class Damaged(Exception):
    """Something is not as it was written."""


@contextmanager
def writing(folder: Path) -> Iterator[bool]:
    """Whether nobody else writes there; until the block ends nobody does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def write(
    folder: Path, generation: int, parts: Iterable[Vectors], ids: NDArray[np.int64], owners: NDArray[np.int64]
) -> Manifest:
    """Inside `writing`. The files are on the disk, and nothing speaks of them yet: `publish` does."""
    stem = f"{generation}-{secrets.token_hex(4)}"  # never a name that somebody has mapped: to cut that file short is a SIGBUS
    dimensions = 0

    def rows() -> Iterator[bytes]:
        nonlocal dimensions
        for part in parts:
            dimensions = part.shape[1]
            for start in range(0, len(part), 4096):
                yield np.ascontiguousarray(part[start : start + 4096], "<f4").tobytes()

    files = {
        "vectors": _written(folder / f"{stem}.vectors", rows()),
        "ids": _written(folder / f"{stem}.ids", [ids.astype("<i8").tobytes()]),
        "owners": _written(folder / f"{stem}.owners", [owners.astype("<i8").tobytes()]),
    }
    return Manifest(generation, len(ids), dimensions, files)


def with_graph(
    manifest: Manifest, engine: str, quantization: Quantization, path: Path, effort: int, costs: Costs | None = None
) -> Manifest:
    """The same with a graph that somebody has made beside it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    sealed = Sealed(path.name, path.stat().st_size, _digest(path))
    files = {**manifest.files, "graph": sealed}
    return msgspec.structs.replace(
        manifest, files=files, engine=engine, quantization=quantization, effort=effort, costs=costs
    )


def with_texts(folder: Path, manifest: Manifest, shown: Iterable[Sequence[Shown | None]], told: int) -> Manifest:
    """The same with what is shown of its rows, at that generation or later: what changed since, whoever opens it asks the truth for."""
    stem = f"{manifest.generation}-{secrets.token_hex(4)}"
    places = bytearray()
    texts = _written(folder / f"{stem}.texts", packed(shown, places))
    files = {**manifest.files, "texts": texts, "places": _written(folder / f"{stem}.places", [bytes(places)])}
    return msgspec.structs.replace(manifest, files=files, told=told)


def publish(folder: Path, manifest: Manifest) -> None:
    """It is the artefact when this returns, also after a power cut; files of older ones are gone, for who has not opened them."""
    body = msgspec.json.encode(manifest)
    sealed = msgspec.json.encode({"sha256": hashlib.sha256(body).hexdigest(), "manifest": msgspec.Raw(body)})
    _written(folder / f"{MANIFEST}.new", [sealed])
    (folder / f"{MANIFEST}.new").rename(folder / MANIFEST)
    _sync(folder)
    keep = {MANIFEST, "lock", *(sealed.name for sealed in manifest.files.values())}
    for path in folder.iterdir():
        if path.name not in keep and path.suffix in PARTS:
            path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """There is no artefact there any more, for who has not opened it; whatever else is in the folder stays."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.glob("*"):
        if path.suffix in PARTS:
            path.unlink(missing_ok=True)


def known(folder: Path) -> Manifest | None:
    """What the manifest says; its files are unchecked."""
    with suppress(Damaged, OSError, msgspec.MsgspecError):
        return _manifest(folder)
    return None


def _texts(folder: Path, manifest: Manifest) -> Texts | None:
    if "texts" not in manifest.files:
        return None
    return Texts(folder / manifest.files["texts"].name, folder / manifest.files["places"].name)


class _Envelope(msgspec.Struct):
    sha256: str
    manifest: msgspec.Raw


def _manifest(folder: Path) -> Manifest | None:
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    envelope = msgspec.json.decode(data, type=_Envelope)
    if hashlib.sha256(bytes(envelope.manifest)).hexdigest() != envelope.sha256:
        raise Damaged(MANIFEST)
    manifest = msgspec.json.decode(bytes(envelope.manifest), type=Manifest)
    if manifest.format != FORMAT:
        raise Damaged(f"format {manifest.format}, where this release has {FORMAT}")
    return manifest


def _written(path: Path, parts: Iterable[bytes]) -> Sealed:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in parts:
            digest.update(part)
            size += len(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return Sealed(path.name, size, digest.hexdigest())


def _check(path: Path, sealed: Sealed) -> None:
    if path.stat().st_size != sealed.bytes or _digest(path) != sealed.sha256:
        raise Damaged(path.name)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
