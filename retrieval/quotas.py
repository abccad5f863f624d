"""How much may be kept: of a collection, as an admin bounds it, and of all collections of a team, or of a key that is in none."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from retrieval.collection_store import Collection
from retrieval.errors import QuotaExceeded
from retrieval.ports import Reading
from retrieval.spaces import Space
from retrieval.tables import collections, document_cuts, documents


class Quota(msgspec.Struct, frozen=True):
    """None: as much as there is room for. Bytes are those of texts and vectors."""

    passages: int | None = None
    bytes: int | None = None


class Used(msgspec.Struct, frozen=True):
    passages: int
    bytes: int


def require(
    tx: Connection, collection: Collection, owners: Quota, passages: int, size: int, document_id: int = 0
) -> None:
    """That there is room for one more document, which takes the place of `document_id`, if that is there. Raises QuotaExceeded."""
    own = Quota(collection.quota_passages, collection.quota_bytes)
    if own != Quota():
        _fits(
            f"The vector store {collection.id}",
            own,
            _used(tx, documents.c.collection_id == collection.id, document_id),
            passages,
            size,
        )
    if owners != Quota():
        mine, whose = _owner(collection)
        _fits(whose, owners, _used(tx, mine, document_id), passages, size)


def require_apart(
    tx: Connection, collection: Collection, owners: Quota, space: Space, reading: Reading, document_id: int
) -> None:
    """The same of a document in an edition that is not read, as if all that is cut there were read. Raises QuotaExceeded."""
    own = Quota(collection.quota_passages, collection.quota_bytes)
    if own == owners == Quota():
        return
    text = documents.c.usage_bytes - 4 * (collection.dimensions or 0) * documents.c.passages
    sums = func.coalesce(func.sum(document_cuts.c.passages), 0), func.coalesce(func.sum(text), 0)
    cut = select(*sums).join(document_cuts, document_cuts.c.document_id == documents.c.id)
    here = (documents.c.collection_id == collection.id) & (document_cuts.c.edition == space.edition)
    there = document_cuts.c.fingerprint.is_not(None) & (documents.c.id != document_id)
    passages, size = map(int, tx.execute(cut.where(here, there)).one())
    each = 4 * (space.dimensions or 0)
    used, more = Used(passages, size + each * passages), len(reading.chunks)
    bytes_ = text_bytes(reading.text) + each * more
    _fits(f"The vector store {collection.id}, cut anew,", own, used, more, bytes_)
    if owners != Quota():
        mine, whose = _owner(collection)
        others = _used(tx, mine & (collections.c.id != collection.id), 0)
        total = Used(used.passages + others.passages, used.bytes + others.bytes)
        _fits(f"{whose}, with {collection.id} cut anew,", owners, total, more, bytes_)


def text_bytes(text: str) -> int:
    """As they are counted."""
    return len(text.encode("utf-8", "surrogatepass"))


def _owner(collection: Collection) -> tuple[ColumnElement[bool], str]:
    """Whose collections are counted together, and who that is."""
    if collection.team_id is not None:
        return collections.c.team_id == collection.team_id, f"The team {collection.team_id}"
    mine = (collections.c.key_id == collection.key_id) & collections.c.team_id.is_(None)
    return mine, f"The key {collection.key_id}"


def _used(tx: Connection, where: ColumnElement[Any], but: int) -> Used:
    sums = func.coalesce(func.sum(documents.c.passages), 0), func.coalesce(func.sum(documents.c.usage_bytes), 0)
    query = select(*sums).join(collections, collections.c.id == documents.c.collection_id)
    row = tx.execute(query.where(where, collections.c.deleted.is_(False), documents.c.id != but)).one()
    return Used(int(row[0]), int(row[1]))


def _fits(whose: str, quota: Quota, used: Used, passages: int, size: int) -> None:
    for name, limit, has, more in (
        ("passages", quota.passages, used.passages, passages),
        ("bytes", quota.bytes, used.bytes, size),
    ):
        if limit is not None and has + more > limit:
            raise QuotaExceeded(
                f"{whose} may have {limit} {name}; it has {has}, and this file would add {more}: remove files, or ask an admin for more"
            )
