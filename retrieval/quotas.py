"""How much may be kept: of a collection and of all that a key has made, as an admin bounds them, and of all collections of a team, or of a
key that is in none.
"""

from collections.abc import Callable
from typing import Any, Final

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
    checks = [
        (f"The vector store {collection.id}", own, documents.c.collection_id == collection.id),
        *_owners(collection, bounds),
    ]
    for whose, quota, mine in checks:
        if quota != UNBOUND:
            _fits(whose, quota, _used(tx, mine, document_id), passages, size)


def require_apart(
    tx: Connection, collection: Collection, bounds: Bounds, space: Space, reading: Reading, document_id: int
) -> None:
    """The same of a document in an edition that is not read, as if all that is cut there were read. Raises QuotaExceeded."""
    own = Quota(collection.quota_passages, collection.quota_bytes)
    owners = [each for each in _owners(collection, bounds) if each[1] != UNBOUND]
    if own == UNBOUND and not owners:
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
    for whose, quota, mine in owners:
        others = _used(tx, mine & (collections.c.id != collection.id), 0)
        total = Used(used.passages + others.passages, used.bytes + others.bytes)
        _fits(f"{whose}, with {collection.id} cut anew,", quota, total, more, bytes_)


def text_bytes(text: str) -> int:
    """As they are counted."""
    return len(text.encode("utf-8", "surrogatepass"))


def _owners(collection: Collection, bounds: Bounds) -> list[tuple[str, Quota, ColumnElement[bool]]]:
    """Whose collections are counted together, how much they may keep, and which they are."""
    maker = bounds.of_key(collection.key_id)
    made: ColumnElement[bool] = collections.c.key_id == collection.key_id
    owners = [(f"The key {collection.key_id}", maker, made)]
    if collection.team_id is not None:
        owners.append((f"The team {collection.team_id}", bounds.owners, collections.c.team_id == collection.team_id))
    elif maker == UNBOUND:
        owners.append((f"The key {collection.key_id}", bounds.owners, made & collections.c.team_id.is_(None)))
    return owners


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
