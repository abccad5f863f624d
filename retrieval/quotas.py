"""How much may be kept: of a collection and of all that a key has made, as an admin bounds them, and of all collections of a team, or of a
key that is in none.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from retrieval.collection_store import Collection
from retrieval.errors import QuotaExceeded
from retrieval.tables import collections, documents


class Quota(msgspec.Struct, frozen=True):
    """None: as much as there is room for. Bytes are those of texts and vectors."""

    passages: int | None = None
    bytes: int | None = None


UNBOUND: Final = Quota()


def _unbound(_key_id: str) -> Quota:
    return UNBOUND


class Bounds(msgspec.Struct, frozen=True):
    """`owners`: of all collections of each team, or of each key that is in none. `of_key`: what is said of a key of its own, whose
    collections it bounds wherever those are; one that is in no team has that instead of `owners`.
    """

    owners: Quota = UNBOUND
    of_key: Callable[[str], Quota] = _unbound


class Used(msgspec.Struct, frozen=True):
    passages: int
    bytes: int


def require(
    tx: Connection, collection: Collection, bounds: Bounds, passages: int, size: int, document_id: int = 0
) -> None:
    """That there is room for one more document, which takes the place of `document_id`, if that is there. Raises QuotaExceeded."""
    own = Quota(collection.quota_passages, collection.quota_bytes)
    maker = bounds.of_key(collection.key_id)
    here: ColumnElement[bool] = documents.c.collection_id == collection.id
    made: ColumnElement[bool] = collections.c.key_id == collection.key_id
    checks = [(f"The vector store {collection.id}", own, here), (f"The key {collection.key_id}", maker, made)]
    if collection.team_id is not None:
        team: ColumnElement[bool] = collections.c.team_id == collection.team_id
        checks.append((f"The team {collection.team_id}", bounds.owners, team))
    elif maker == UNBOUND:
        checks.append((f"The key {collection.key_id}", bounds.owners, made & collections.c.team_id.is_(None)))
    for whose, quota, mine in checks:
        if quota != UNBOUND:
            _fits(whose, quota, _used(tx, mine, document_id), passages, size)


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
