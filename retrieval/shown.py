"""What a search shows, from the truth of one moment: passages with their documents, if the caller may read them now.

Queries are made once: to build one costs SQLAlchemy as much as SQLite takes to answer it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, bindparam, or_, select

from retrieval.access import Caller, may_read
from retrieval.chunking_strategy import Chunking
from retrieval.document_store import Document
from retrieval.errors import NotFound
from retrieval.passage_store import Found
from retrieval.tables import collections, document_labels, documents, passage_bodies, passages

_FOUND = len(Found.__struct_fields__)
_FIELDS = tuple(name for name in Document.__struct_fields__ if name != "chunking")


class Moment(msgspec.Struct, frozen=True):
    """Of a collection that is there for the caller."""

    generation: int
    labelled: bool
    expires_at: float | None
    last_active_at: float


def moment(tx: Connection, caller: Caller, collection_id: str) -> Moment:
    """As `collection_store.get`. Raises NotFound."""
    granted = collection_id if collection_id in caller.granted else None
    asked = {"id": collection_id, "key": caller.key_id, "team": caller.team_id, "granted": granted}
    row = tx.execute(_moment(), asked).one_or_none()
    if row is None:
        raise NotFound(f"No such Vector store object: {collection_id}", param="vector_store_id")
    return Moment(*row)


def generation(tx: Connection, collection_id: str) -> int | None:
    """None where there is no such collection, or none any more."""
    return tx.execute(_generation(), {"id": collection_id}).scalar_one_or_none()


def shown(
    tx: Connection, caller: Caller, collection_id: str, ids: Sequence[int], *, labelled: bool
) -> Mapping[int, tuple[Found, Document]]:
    """Those of the passages that are published in this collection, and in documents that the caller may read."""
    if not ids:
        return {}
    found: dict[int, tuple[Found, Document]] = {}
    for row in tx.execute(_shown(), {"ids": list(ids)}):
        passage, rest = Found(*row[:_FOUND]), row[_FOUND:]
        *fields, chunking, published = rest
        document = Document(**dict(zip(_FIELDS, fields, strict=True)), chunking=Chunking(**chunking))
        if published is not None and document.collection_id == collection_id:
            found[passage.id] = passage, document
    if caller.unbound:
        return found
    owners = {document.id for _, document in found.values()}
    labels: dict[int, set[str]] = {}
    for id_, label in tx.execute(_labels(), {"ids": list(owners)}):
        labels.setdefault(id_, set()).add(label)
    return {
        id_: (passage, document)
        for id_, (passage, document) in found.items()
        if may_read(caller, labels.get(document.id, ()), labelled=labelled)
    }


@cache
def _moment() -> Select[Any]:
    c = collections.c
    mine = or_(c.key_id == bindparam("key"), c.team_id == bindparam("team"), c.id == bindparam("granted"))
    return select(c.generation, c.labelled, c.expires_at, c.last_active_at).where(
        c.id == bindparam("id"), c.deleted.is_(False), mine
    )


@cache
def _generation() -> Select[Any]:
    c = collections.c
    return select(c.generation).where(c.id == bindparam("id"), c.deleted.is_(False))


@cache
def _shown() -> Select[Any]:
    """By id alone: with the collection in the condition, SQLite walks through all of it."""
    p, b, d = passages.c, passage_bodies.c, documents.c
    return (
        select(
            *(p.id, p.document_id, p.ordinal, p.start, p.end, p.page, p.line, p.tokens, b.heading, b.text),
            *(d[name] for name in _FIELDS),
            d.chunking,
            p.generation,
        )
        .join(passage_bodies, b.passage_id == p.id)
        .join(documents, d.id == p.document_id)
        .where(p.id.in_(bindparam("ids", expanding=True)))
    )


@cache
def _labels() -> Select[Any]:
    c = document_labels.c
    return select(c.document_id, c.label).where(c.document_id.in_(bindparam("ids", expanding=True)))
