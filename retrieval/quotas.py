"""How much may be kept: of a collection, as an admin bounds it, and of all collections of a team, or of a key that is in none."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from retrieval.collection_store import Collection
from retrieval.errors import QuotaExceeded
from retrieval.tables import collections, documents


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
        mine: ColumnElement[bool] = collections.c.team_id == collection.team_id
        whose = f"The team {collection.team_id}"
        if collection.team_id is None:
            mine = (collections.c.key_id == collection.key_id) & collections.c.team_id.is_(None)
            whose = f"The key {collection.key_id}"
        _fits(whose, owners, _used(tx, mine, document_id), passages, size)


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
