"""What a search shows, from the truth of one moment: passages with their documents, if the caller may read them now.

Queries are made once and given to the driver as they are: to build one, and to find it among those that were built, costs SQLAlchemy
several times what SQLite takes to answer it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, bindparam, or_, select, text

from retrieval.access import Caller, may_read
from retrieval.chunking_strategy import Chunking
from retrieval.document_store import Document
from retrieval.errors import NotFound
from retrieval.passage_store import SHOWN, Found
from retrieval.spaces import Canary, version_for
from retrieval.tables import collections, document_labels, documents, passage_bodies, passages

_FOUND = len(Found.__struct_fields__)
_PLAIN = tuple(name for name in Document.__struct_fields__ if name not in {"attributes", "chunking"})


class Moment(msgspec.Struct, frozen=True):
    """Of a collection that is there for the caller, who reads a `version` of its vectors."""

    generation: int
    labelled: bool
    expires_at: float | None
    last_active_at: float
    version: int


def moment(tx: Connection, caller: Caller, collection_id: str) -> Moment:
    """As `collection_store.get`. Raises NotFound."""
    granted = collection_id if collection_id in caller.granted else None
    asked = {"id": collection_id, "key": caller.key_id, "team": caller.team_id, "granted": granted}
    row = tx.exec_driver_sql(plain(moment_query, tx.dialect.name), asked).one_or_none()
    if row is None:
        raise NotFound(f"No such Vector store object: {collection_id}", param="vector_store_id")
    generation_, labelled, expires_at, last_active_at, version, canary = row
    if canary is not None:
        version = version_for(version, msgspec.convert(_json(canary), Canary), caller.key_id)
    return Moment(generation_, bool(labelled), expires_at, last_active_at, version)


def generation(tx: Connection, collection_id: str) -> int | None:
    """None where there is no such collection, or none any more."""
    return tx.exec_driver_sql(plain(_generation, tx.dialect.name), {"id": collection_id}).scalar_one_or_none()


def shown(
    tx: Connection, caller: Caller, collection_id: str, ids: Sequence[int], *, labelled: bool
) -> Mapping[int, tuple[Found, Document]]:
    """Those of the passages that are published in this collection, and in documents that the caller may read."""
    if not ids:
        return {}
    found: dict[int, tuple[Found, Document]] = {}
    lite = tx.dialect.name == "sqlite"
    asked = {"ids": msgspec.json.encode(ids).decode() if lite else list(ids)}
    for row in tx.exec_driver_sql(plain(_shown, tx.dialect.name), asked).all():
        passage, document = as_passage(row[:_FOUND]), as_document(row[_FOUND:-1])
        if row[-1] is not None and document.collection_id == collection_id:
            found[passage.id] = passage, document
    if caller.unbound and caller.tenant is None:
        return found
    owners = {document.id for _, document in found.values()}
    labels: dict[int, set[str]] = {}
    for id_, label in tx.execute(_labels(), {"ids": list(owners)}):
        labels.setdefault(id_, set()).add(label)
    return {
        id_: (passage, document)
        for id_, (passage, document) in found.items()
        if may_read(caller, labels.get(document.id, ()), document.tenant, labelled=labelled)
    }


def copied(tx: Connection, collection_id: str, ids: Sequence[int]) -> Sequence[tuple[Found, Document] | None]:
    """As `shown`, for who keeps copies and not for a caller; None for those that are not published in this collection."""
    lite = tx.dialect.name == "sqlite"

    def rows(query: Callable[[], Select[Any]], asked: Sequence[int]) -> Sequence[Any]:
        within = "SELECT value FROM json_each(:ids)" if lite else "SELECT unnest(%(ids)s::bigint[])"
        parameters = {"ids": msgspec.json.encode(asked).decode() if lite else list(asked)}
        return tx.exec_driver_sql(plain(query, tx.dialect.name).replace("$ids", within), parameters).all()

    found = {passage.id: passage for passage in map(as_passage, rows(passages_query, ids))}
    owners = sorted({passage.document_id for passage in found.values()})
    theirs = {document.id: document for document in map(as_document, rows(documents_query, owners))}
    told: list[tuple[Found, Document] | None] = []
    for id_ in ids:
        passage = found.get(id_)
        document = None if passage is None else theirs.get(passage.document_id)
        here = passage is not None and document is not None and document.collection_id == collection_id
        told.append((passage, document) if here else None)  # type: ignore[arg-type]
    return told


def as_passage(row: Sequence[Any]) -> Found:
    """Of a row of `passages_query`."""
    *of_passage, heading, body, start, end, edition = row
    return Found(*(*of_passage, _json(heading), body, start, end, edition))


def as_document(row: Sequence[Any]) -> Document:
    """Of a row of `documents_query`."""
    *of_document, attributes, chunking = row
    fields = dict(zip(_PLAIN, of_document, strict=True))
    fields["empty"] = bool(fields["empty"])
    return Document(**fields, attributes=_json(attributes), chunking=Chunking(**_json(chunking)))


@cache
def plain(query: Callable[[], Select[Any]], dialect: str) -> str:
    """As the driver reads it. SQLite has the ids as a JSON array, PostgreSQL as one of its own."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 — as below

        return str(query().compile(dialect=sqlite.dialect(paramstyle="named")))
    from sqlalchemy.dialects.postgresql import psycopg  # noqa: PLC0415 — 2.4 MB that only those need who use it

    made = str(query().compile(dialect=psycopg.dialect()))  # type: ignore[no-untyped-call]
    return made.replace("SELECT value FROM json_each(%(ids)s)", "SELECT unnest(%(ids)s::bigint[])")


def _json(value: Any) -> Any:
    """PostgreSQL's driver has read it already."""
    return msgspec.json.decode(value) if isinstance(value, str) else value


@cache
def moment_query() -> Select[Any]:
    c = collections.c
    mine = or_(c.key_id == bindparam("key"), c.team_id == bindparam("team"), c.id == bindparam("granted"))
    return select(c.generation, c.labelled, c.expires_at, c.last_active_at, c.version, c.canary).where(
        c.id == bindparam("id"), c.deleted.is_(False), mine
    )


@cache
def _generation() -> Select[Any]:
    c = collections.c
    return select(c.generation).where(c.id == bindparam("id"), c.deleted.is_(False))


@cache
def passages_query() -> Select[Any]:
    """Of published ones; `$ids` is to be replaced."""
    p, b = passages.c, passage_bodies.c
    joined = select(*SHOWN).join(passage_bodies, b.passage_id == p.id)
    return joined.where(p.id.in_(text("$ids")), p.generation.is_not(None))


@cache
def documents_query() -> Select[Any]:
    """As `passages_query`."""
    return select(*_document_columns()).where(documents.c.id.in_(text("$ids")))


def _document_columns() -> Sequence[Any]:
    d = documents.c
    return *(d[name] for name in _PLAIN), d.attributes, d.chunking


@cache
def _shown() -> Select[Any]:
    """By id alone: with the collection in the condition, SQLite walks through all of it."""
    p, b, d = passages.c, passage_bodies.c, documents.c
    return (
        select(*SHOWN, *_document_columns(), p.generation)
        .join(passage_bodies, b.passage_id == p.id)
        .join(documents, d.id == p.document_id)
        .where(p.id.in_(text("SELECT value FROM json_each(:ids)")))
    )


@cache
def _labels() -> Select[Any]:
    c = document_labels.c
    return select(c.document_id, c.label).where(c.document_id.in_(bindparam("ids", expanding=True)))
