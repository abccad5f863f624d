"""Snapshots of collections: all of one moment in a file with a checksum, from which a new collection is made.

    <folder>/<collection>/<snapshot>.snapshot   frames of msgpack: the collection, each document and its passages, how many there were
    <folder>/<collection>/<snapshot>.json       what is said of it, with the checksum; without this the file is no snapshot

Documents that are being read are left out. Every function blocks.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, insert, select, update

from retrieval import collection_store, embedding_store
from retrieval.access import Caller
from retrieval.collection_store import Collection, NewCollection
from retrieval.database import Database, now
from retrieval.errors import Conflict, NotFound
from retrieval.ids import new_id
from retrieval.tables import collections, document_labels, document_texts, documents, passage_bodies, passages
from retrieval.tenancy import Tenancy

FORMAT: Final = 1
TOGETHER: Final = 200  # passages of one frame, and of one transaction
NOBODY: Final = "restoring"  # whose a collection is until all of it is there
_LENGTH: Final = struct.Struct("<I")
_BLOCK: Final = 1 << 20
_LEFT_OUT: Final = {"id", "collection_id", "document_id", "generation", "batch_id", "passage_id", "edition"}


class Snapshot(msgspec.Struct, frozen=True):
    """What is said of one. `created_at` is Unix seconds."""

    id: str
    collection_id: str
    created_at: float
    bytes: int
    sha256: str
    documents: int
    passages: int
    team_id: str | None = None
    org_id: str | None = None
    format: int = FORMAT


class Damaged(Conflict):
    code = "snapshot_damaged"


def take(database: Database, folder: Path, collection_id: str) -> Snapshot:
    """It is on the disk when this returns. Raises NotFound, OSError."""
    id_ = new_id("snap_")
    home = folder / collection_id
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = home / f"{id_}.snapshot"
    whose: dict[str, str | None] = {}
    digest, size, counts = hashlib.sha256(), 0, {"documents": 0, "passages": 0}
    try:
        with database.reading() as tx, file.open("wb") as out:
            at = now(tx)
            for frame in _frames(tx, collection_id, counts):
                if "collection" in frame:
                    whose = {name: frame["collection"][name] for name in ("team_id", "org_id")}
                data = msgspec.msgpack.encode(frame)
                data = _LENGTH.pack(len(data)) + data
                digest.update(data)
                size += len(data)
                out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    made = Snapshot(
        id_,
        collection_id,
        at,
        size,
        digest.hexdigest(),
        counts["documents"],
        counts["passages"],
        whose.get("team_id"),
        whose.get("org_id"),
    )
    _write(home / f"{id_}.json", msgspec.json.encode(made))
    return made


def listed(folder: Path, collection_id: str) -> list[Snapshot]:
    """Newest first; also of a collection that is deleted."""
    found = []
    for path in (folder / collection_id).glob("snap_*.json"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Snapshot))
        except (OSError, msgspec.MsgspecError):
            continue
    return sorted(found, key=lambda each: each.id, reverse=True)


def delete(folder: Path, collection_id: str, id_: str) -> None:
    """Raises NotFound."""
    found = _found(folder, collection_id, id_)
    for suffix in (".json", ".snapshot"):  # in this order: half of one is none
        (folder / collection_id / f"{found.id}{suffix}").unlink(missing_ok=True)


def restore(database: Database, folder: Path, collection_id: str, id_: str) -> Collection:
    """A new collection of the same owner, which is there for nobody before it is whole. Raises NotFound, Damaged, OSError."""
    found = _found(folder, collection_id, id_)
    path = folder / collection_id / f"{found.id}.snapshot"
    _check(path, found)
    frames = _read(path)
    head: Mapping[str, Any] = next(frames)["collection"]
    made = database.write(lambda tx: _begin(tx, head))
    try:
        document_id = 0
        for frame in frames:
            if "document" in frame:
                document_id = database.write(lambda tx, frame=frame: _document(tx, made.id, frame))  # type: ignore[misc]
            elif "passages" in frame:
                of = document_id
                database.write(lambda tx, frame=frame, of=of: _passages(tx, made.id, of, frame["passages"]))  # type: ignore[misc]
        return database.write(lambda tx: _finish(tx, made.id, head))
    except BaseException:
        database.write(lambda tx: collection_store.retire(tx, made.id))
        raise


def _frames(tx: Connection, collection_id: str, counts: dict[str, int]) -> Iterator[Mapping[str, Any]]:
    row = tx.execute(
        select(collections).where(collections.c.id == collection_id, collections.c.deleted.is_(False))
    ).first()
    if row is None:
        raise NotFound(f"There is no collection {collection_id}", param="id", code="collection_not_found")
    yield {"collection": dict(row._mapping), "format": FORMAT}  # noqa: SLF001 — SQLAlchemy's public name for it
    version, edition = int(row.version), int(row.edition)
    query = select(documents, document_texts.c.text).outerjoin(
        document_texts, document_texts.c.document_id == documents.c.id
    )
    mine = query.where(documents.c.collection_id == collection_id, documents.c.status == "completed")
    for document in tx.execute(mine.order_by(documents.c.id)).mappings():
        labels = select(document_labels.c.label).where(document_labels.c.document_id == document["id"])
        yield {
            "document": _columns(documents, document),
            "labels": list(tx.execute(labels).scalars()),
            "text": document["text"] or "",
        }
        counts["documents"] += 1
        for some in _passages_of(tx, collection_id, version, edition, document["id"]):
            counts["passages"] += len(some)
            yield {"passages": some}
    yield {"end": dict(counts)}


def _passages_of(
    tx: Connection, collection_id: str, version: int, edition: int, document_id: int
) -> Iterator[list[Mapping[str, Any]]]:
    last = 0
    body, vector = passage_bodies.c, embedding_store.column(version)
    query = select(passages, body.heading, body.text, body.context, vector).select_from(
        embedding_store.joined(collection_id, version)
    )
    mine = query.where(passages.c.document_id == document_id, passages.c.generation.is_not(None))
    mine = mine.where(passages.c.edition == edition)
    while True:
        rows = tx.execute(mine.where(passages.c.id > last).order_by(passages.c.id).limit(TOGETHER)).mappings().all()
        if rows:
            yield [
                {
                    "passage": _columns(passages, row),
                    "body": {
                        "heading": list(row["heading"]),
                        "text": row["text"],
                        "context": row["context"],
                        "vector": bytes(row["vector"]),
                    },
                }
                for row in rows
            ]
        if len(rows) < TOGETHER:
            return
        last = rows[-1]["id"]


def _columns(table: Table, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {column.name: row[column.name] for column in table.columns if column.name not in _LEFT_OUT}


def _begin(tx: Connection, head: Mapping[str, Any]) -> Collection:
    new = NewCollection(
        head["name"],
        head["model"],
        head["description"],
        head["metadata"],
        head["expires_days"],
        head["labelled"],
        head["engine"],
        head["quantization"],
        head.get("cut"),
        head.get("prompts"),
        None if head.get("tenancy") is None else msgspec.convert(head["tenancy"], Tenancy),
    )
    made = collection_store.create(tx, Caller(NOBODY), new)
    if head["dimensions"] is not None:
        collection_store.learn_dimensions(tx, made.id, head["dimensions"])
    return made


def _document(tx: Connection, collection_id: str, frame: Mapping[str, Any]) -> int:
    generation = collection_store.next_generation(tx, collection_id)
    values = {**frame["document"], "collection_id": collection_id, "generation": generation}
    id_ = int(tx.execute(insert(documents).values(**values).returning(documents.c.id)).scalar_one())
    tx.execute(insert(document_texts).values(document_id=id_, text=frame["text"]))
    if frame["labels"]:
        tx.execute(insert(document_labels), [{"document_id": id_, "label": each} for each in frame["labels"]])
    return id_


def _passages(tx: Connection, collection_id: str, document_id: int, some: list[Mapping[str, Any]]) -> None:
    generation = collection_store.next_generation(tx, collection_id)
    whose = {"collection_id": collection_id, "document_id": document_id, "generation": generation}
    rows = [{**each["passage"], **whose} for each in some]
    query = insert(passages).returning(passages.c.id, sort_by_parameter_order=True)
    ids = tx.execute(query, rows).scalars().all()
    tx.execute(
        insert(passage_bodies), [{**each["body"], "passage_id": id_} for id_, each in zip(ids, some, strict=True)]
    )


def _finish(tx: Connection, id_: str, head: Mapping[str, Any]) -> Collection:
    whose = {name: head[name] for name in ("key_id", "team_id", "org_id", "quota_passages", "quota_bytes")}
    whose["chunking"] = head.get("chunking")
    tx.execute(update(collections).where(collections.c.id == id_).values(**whose))
    found = collection_store.by_id(tx, id_)
    if found is None:
        raise NotFound(
            f"The collection {id_} was deleted while it was restored", param="id", code="collection_not_found"
        )
    return found


def _found(folder: Path, collection_id: str, id_: str) -> Snapshot:
    """By its name in the list, which is no path."""
    for each in listed(folder, collection_id):
        if each.id == id_:
            return each
    raise NotFound(f"There is no snapshot {id_} of {collection_id}", param="snapshot", code="snapshot_not_found")


def _check(path: Path, wanted: Snapshot) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        size = -1
    if (size, digest.hexdigest(), wanted.format) != (wanted.bytes, wanted.sha256, FORMAT):
        raise Damaged(f"The snapshot {wanted.id} is not what was written: its checksum differs. Nothing was restored")


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(head)
            yield msgspec.msgpack.decode(file.read(length))


def _write(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
