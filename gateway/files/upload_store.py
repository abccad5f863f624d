"""The tables of uploads and their parts. Every function takes its transaction: `gateway.database.appending` or `reading`."""

import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from gateway.database import locked_for
from gateway.errors import BadRequest, NotFound
from gateway.files.whose import owned, visible
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.tables import upload_parts, uploads

Status = Literal["pending", "completed", "cancelled", "expired"]

OPEN_S: Final = 3600.0  # as at OpenAI
MAX_PARTS: Final = 10_000


class Upload(msgspec.Struct, frozen=True):
    """A file that comes in parts, `bytes` long when it is whole. `keep_s`: for how long it will be kept then."""

    id: str
    purpose: str
    filename: str
    bytes: int
    mime_type: str
    status: Status
    file_id: str | None
    keep_s: int | None
    created_at: float
    expires_at: float


class Part(msgspec.Struct, frozen=True):
    id: str
    upload_id: str
    bytes: int
    created_at: float


def create(
    tx: Connection, key: Key, *, purpose: str, filename: str, size: int, mime_type: str, keep_s: int | None
) -> Upload:
    now = time.time()
    id_ = f"upload_{uuid7_hex()}"
    upload = Upload(id_, purpose, filename, size, mime_type, "pending", None, keep_s, now, now + OPEN_S)
    tx.execute(insert(uploads).values(**msgspec.structs.asdict(upload), **owned(key)))
    return upload


def get(tx: Connection, key: Key, id_: str) -> Upload:
    """Raises NotFound, also for somebody else's. One whose time is over is `expired`."""
    row = tx.execute(select(uploads).where(uploads.c.id == id_, visible(uploads, key))).one_or_none()
    if row is None:
        raise NotFound(f"No such Upload object: {id_}", param="upload_id", code="upload_not_found")
    upload = _upload(row)
    if upload.status == "pending" and upload.expires_at <= time.time():
        return msgspec.structs.replace(upload, status="expired")
    return upload


def pending(tx: Connection, key: Key, id_: str) -> Upload:
    """As `get`, one that may still change. Raises BadRequest."""
    locked_for(tx, id_)
    upload = get(tx, key, id_)
    if upload.status != "pending":
        raise BadRequest(f"The upload {id_} is {upload.status}; make a new one", code="upload_not_pending")
    return upload


def part_id() -> str:
    return f"part_{uuid7_hex()}"


def add_part(tx: Connection, upload: Upload, id_: str, size: int) -> Part:
    """Raises BadRequest where the parts would be more than was announced."""
    of = upload_parts.c.upload_id == upload.id
    count, used = tx.execute(select(func.count(), func.coalesce(func.sum(upload_parts.c.bytes), 0)).where(of)).one()
    if used + size > upload.bytes or count >= MAX_PARTS:
        raise BadRequest(
            f"The upload has {upload.bytes:,} bytes by its announcement; its parts would have {used + size:,}",
            param="data",
            code="upload_too_large",
        )
    part = Part(id_, upload.id, size, time.time())
    tx.execute(insert(upload_parts).values(**msgspec.structs.asdict(part)))
    return part


def parts(tx: Connection, upload: Upload, ids: Sequence[str]) -> list[Part]:
    """In the order of the ids. Raises BadRequest for one that is not the upload's, and where they are not all of its bytes."""
    found = {part.id: part for part in every_part(tx, upload)}
    for id_ in ids:
        if id_ not in found:
            raise BadRequest(f"The upload {upload.id} has no part {id_!r}", param="part_ids", code="part_not_found")
    size = sum(found[id_].bytes for id_ in ids)
    if size != upload.bytes or len(set(ids)) != len(ids):
        raise BadRequest(
            f"These parts have {size:,} bytes; {upload.bytes:,} were announced", param="part_ids", code="wrong_size"
        )
    return [found[id_] for id_ in ids]


def every_part(tx: Connection, upload: Upload) -> list[Part]:
    rows = tx.execute(select(upload_parts).where(upload_parts.c.upload_id == upload.id))
    return [Part(row.id, row.upload_id, row.bytes, row.created_at) for row in rows]


def end(tx: Connection, upload: Upload, status: Status, file_id: str | None = None) -> Upload:
    """Its parts are no more in the database; whoever ends it deletes their bytes afterwards."""
    tx.execute(update(uploads).where(uploads.c.id == upload.id).values(status=status, file_id=file_id))
    tx.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload.id))
    return msgspec.structs.replace(upload, status=status, file_id=file_id)


def overdue(tx: Connection, limit: int) -> list[Upload]:
    """Whose time was over an hour ago, whatever became of them."""
    query = select(uploads).where(uploads.c.expires_at < time.time() - OPEN_S).limit(limit)
    return [_upload(row) for row in tx.execute(query)]


def remove(tx: Connection, ids: Sequence[str]) -> None:
    tx.execute(delete(uploads).where(uploads.c.id.in_(ids)))


def unknown_parts(tx: Connection, ids: Sequence[str]) -> list[str]:
    known = set(tx.execute(select(upload_parts.c.id).where(upload_parts.c.id.in_(ids))).scalars())
    return [id_ for id_ in ids if id_ not in known]


def _upload(row: Row[Any]) -> Upload:
    return Upload(*(getattr(row, name) for name in Upload.__struct_fields__))
