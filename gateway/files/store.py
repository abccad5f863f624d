"""The table of files. Every function takes its transaction: `gateway.database.appending` or `reading`."""

import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select

from gateway.database import locked_for
from gateway.errors import BodyTooLarge, NotFound
from gateway.files.whose import owned, purse, visible
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.paging import Page, page
from gateway.tables import batches, files

PURPOSES: Final = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})
BATCH_KEPT_S: Final = 30 * 86_400  # as at OpenAI, unless the client says otherwise
UNFINISHED: Final = ("validating", "in_progress", "finalizing", "cancelling")


class File(msgspec.Struct, frozen=True):
    """What is known of a file. Times are Unix seconds."""

    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float | None
    key_id: str
    team_id: str | None
    org_id: str | None


def new_id() -> str:
    return f"file-{uuid7_hex()}"


def expiry(purpose: str, keep_s: int | None, unix: float) -> float | None:
    """When a file of this purpose ends, if it ends by itself."""
    if keep_s is None and purpose == "batch":
        keep_s = BATCH_KEPT_S
    return None if keep_s is None else unix + keep_s


def add(tx: Connection, file: File) -> None:
    """As it is; a file that is there already stays."""
    if tx.execute(select(files.c.id).where(files.c.id == file.id)).one_or_none() is None:
        tx.execute(insert(files).values(**msgspec.structs.asdict(file)))


def create(
    tx: Connection, key: Key, id_: str, purpose: str, filename: str, size: int, *, keep_s: int | None, quota: int
) -> File:
    """Raises BodyTooLarge where the owner's files would pass `quota` bytes together."""
    require_room(tx, key, size, quota)
    now = time.time()
    file = File(id_, purpose, filename, size, now, expiry(purpose, keep_s, now), **owned(key))
    add(tx, file)
    return file


def require_room(tx: Connection, key: Key, size: int, quota: int) -> None:
    """Inside a transaction that writes, so that two uploads at once do not both find the last room. Raises BodyTooLarge."""
    locked_for(tx, f"files of {key.team_id or key.id}")
    used = int(tx.execute(select(func.coalesce(func.sum(files.c.bytes), 0)).where(purse(files, key))).scalar_one())
    if used + size > quota:
        raise BodyTooLarge(
            f"Your files have {used:,} of {quota:,} bytes and this one {size:,}: delete some first",
            code="storage_quota_exceeded",
        )


def get(tx: Connection, key: Key, id_: str) -> File:
    """Raises NotFound, also for a file of somebody else's and for one that has expired."""
    row = tx.execute(select(files).where(files.c.id == id_, visible(files, key), _alive())).one_or_none()
    if row is None:
        raise NotFound(f"No such File object: {id_}", param="id", code="file_not_found")
    return _file(row)


def some(tx: Connection, key: Key, ids: Sequence[str]) -> Sequence[File]:
    """Those of the ids that the key may see, in any order."""
    found: list[File] = []
    for start in range(0, len(ids), 500):
        these = files.c.id.in_(ids[start : start + 500])
        found += [_file(row) for row in tx.execute(select(files).where(these, visible(files, key), _alive()))]
    return found


def by_id(tx: Connection, id_: str) -> File | None:
    """Whoever's it is."""
    row = tx.execute(select(files).where(files.c.id == id_)).one_or_none()
    return None if row is None else _file(row)


def listed(
    tx: Connection,
    key: Key,
    limit: int,
    *,
    after: str | None = None,
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[File]:
    """By creation."""
    by = files.c.id.asc() if order == "asc" else files.c.id.desc()
    query = select(files).where(visible(files, key), _alive()).order_by(by).limit(limit + 1)
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    if after is not None:
        query = query.where(files.c.id > after if order == "asc" else files.c.id < after)
    found = [_file(row) for row in tx.execute(query)]
    return page(found, limit, [file.id for file in found])


def in_use(tx: Connection, id_: str) -> bool:
    """Whether a batch that is not finished reads it."""
    query = select(batches.c.id).where(batches.c.input_file_id == id_, batches.c.status.in_(UNFINISHED)).limit(1)
    return tx.execute(query).one_or_none() is not None


def remove(tx: Connection, ids: Collection[str]) -> None:
    tx.execute(delete(files).where(files.c.id.in_(ids)))


def expired(tx: Connection, limit: int) -> Sequence[str]:
    """Ids of files whose time is over, less what a batch still reads."""
    reading = select(batches.c.input_file_id).where(batches.c.status.in_(UNFINISHED))
    query = select(files.c.id).where(files.c.expires_at < time.time(), files.c.id.not_in(reading)).limit(limit)
    return tx.execute(query).scalars().all()


def unknown(tx: Connection, ids: Sequence[str]) -> list[str]:
    """Those of the ids that no row has."""
    known = set(tx.execute(select(files.c.id).where(files.c.id.in_(ids))).scalars())
    known.update(tx.execute(select(batches.c.output_file_id).where(batches.c.output_file_id.in_(ids))).scalars())
    known.update(tx.execute(select(batches.c.error_file_id).where(batches.c.error_file_id.in_(ids))).scalars())
    return [id_ for id_ in ids if id_ not in known]


def _alive() -> ColumnElement[bool]:
    return files.c.expires_at.is_(None) | (files.c.expires_at > time.time())


def _file(row: Row[Any]) -> File:
    return File(*(getattr(row, name) for name in File.__struct_fields__))
