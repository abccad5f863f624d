"""The tables of passages: prepared beside what is there, then published in one transaction. Every function takes its transaction.

A passage without a generation is being prepared: no search sees it, and whoever goes on with the document finds it and embeds it not again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from struct import pack
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, insert, select, update

from retrieval import embedding_store
from retrieval.ports import Chunk
from retrieval.spaces import FIRST
from retrieval.tables import document_texts, documents, passage_bodies, passages, removals

TOGETHER: Final = 200  # rows of one statement

_Row, _Body = passages.c, passage_bodies.c


class Known(msgspec.Struct, frozen=True):
    """A passage that is there: its text has the `hash`."""

    id: int
    hash: bytes


class New(msgspec.Struct, frozen=True):
    ordinal: int
    hash: bytes
    chunk: Chunk
    vector: bytes
    context: str = ""


class Placed(msgspec.Struct, frozen=True):
    """Where a passage that is there already stands now."""

    id: int
    ordinal: int
    chunk: Chunk


class Indexed(msgspec.Struct, frozen=True):
    """What an index needs of a passage."""

    id: int
    document_id: int
    vector: bytes


class Found(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is shown of a passage, or of its parent for it: characters of the document's text."""

    id: int
    document_id: int
    ordinal: int
    start: int
    end: int
    page: int | None
    line: int | None
    tokens: int
    heading: Sequence[str]
    text: str
    parent_start: int | None = None
    parent_end: int | None = None
    edition: int = FIRST


_FOUND = (_Row.id, _Row.document_id, _Row.ordinal, _Row.start, _Row.end, _Row.page, _Row.line, _Row.tokens)
SHOWN: Final = (
    *_FOUND,
    _Body.heading,
    _Body.text,
    _Row.parent_start,
    _Row.parent_end,
    _Row.edition,
)  # as `Found` has them


def published(tx: Connection, document_id: int, edition: int = FIRST) -> Sequence[Known]:
    return _known(tx, document_id, _Row.generation.is_not(None) & (_Row.edition == edition))


def published_at_all(tx: Connection, document_id: int) -> Sequence[int]:
    """Their ids, of every edition."""
    query = select(_Row.id).where(_Row.document_id == document_id, _Row.generation.is_not(None))
    return tx.execute(query.order_by(_Row.id)).scalars().all()


def prepared(
    tx: Connection, document_id: int, collection_id: str = "", version: int = FIRST, edition: int = FIRST
) -> Sequence[Known]:
    """Those with a vector of the version: where that has become another one since, they are to be made again."""
    mine = _Row.generation.is_(None) & (_Row.edition == edition)
    return _known(tx, document_id, mine & embedding_store.has(collection_id, version))


def written(tx: Connection, document_id: int, edition: int) -> Sequence[Known]:
    """What is being prepared in the edition, with a vector or without one."""
    return _known(tx, document_id, _Row.generation.is_(None) & (_Row.edition == edition))


def prepare(
    tx: Connection,
    collection_id: str,
    document_id: int,
    new: Sequence[New],
    version: int = FIRST,
    edition: int = FIRST,
) -> Sequence[int]:
    """Adds them for `publish`, with vectors of the version. Their ids, in the same order."""
    rows = [
        {
            "collection_id": collection_id,
            "document_id": document_id,
            "generation": None,
            "tokens": each.chunk.tokens,
            "hash": each.hash,
            "edition": edition,
            **_place(each.ordinal, each.chunk),
        }
        for each in new
    ]
    ids = tx.execute(insert(passages).returning(_Row.id, sort_by_parameter_order=True), rows).scalars().all()
    first = version == FIRST
    bodies = [
        {
            "passage_id": id_,
            "heading": list(each.chunk.heading),
            "text": each.chunk.text,
            "vector": each.vector if first else embedding_store.NOTHING,
            "context": each.context,
        }
        for id_, each in zip(ids, new, strict=True)
    ]
    tx.execute(insert(passage_bodies), bodies)
    if not first:
        vectors = {id_: each.vector for id_, each in zip(ids, new, strict=True)}
        embedding_store.add(tx, collection_id, version, vectors)
    return ids


def said(tx: Connection, document_id: int, hashes: Iterable[bytes]) -> Sequence[tuple[bytes, str]]:
    """Those of the hashes that are being prepared in any edition, with a vector or without one, and their contexts."""
    query = select(_Row.hash, _Body.context).join(passage_bodies, _Body.passage_id == _Row.id)
    mine = (_Row.document_id == document_id) & _Row.generation.is_(None) & _Row.hash.in_(hashes)
    return [(bytes(hash_), context) for hash_, context in tx.execute(query.where(mine))]


def publish(
    tx: Connection,
    collection_id: str,
    document_id: int,
    generation: int,
    placed: Sequence[Placed],
    gone: Sequence[int],
    edition: int = FIRST,
) -> None:
    """All at once: `placed` are the document's passages in the edition from here on, whether they are new or were there; `gone` are not."""
    replace(tx, document_id, generation, placed, gone, edition)
    if gone:
        record_removal(tx, collection_id, generation, gone)


def replace(
    tx: Connection,
    document_id: int,
    generation: int,
    placed: Sequence[Placed],
    gone: Sequence[int],
    edition: int,
) -> None:
    """As `publish`, for who records what is gone: a generation has one record of it."""
    moved = _moved(tx, document_id, placed)
    if moved:
        tx.execute(update(passages).where(_Row.id == bindparam("_id")), moved)
    news = (_Row.document_id == document_id) & _Row.generation.is_(None) & (_Row.edition == edition)
    keep = [each.id for each in placed]
    fresh = set(tx.execute(select(_Row.id).where(news)).scalars())
    remove(tx, sorted(fresh.difference(keep)))
    tx.execute(update(passages).where(news).values(generation=generation))
    remove(tx, gone)


def remove(tx: Connection, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), TOGETHER):
        tx.execute(delete(passages).where(_Row.id.in_(ids[start : start + TOGETHER])))


def forget_unpublished(tx: Connection, document_id: int, but: Collection[int] = ()) -> None:
    """`but` in these editions."""
    mine = (_Row.document_id == document_id) & _Row.generation.is_(None)
    tx.execute(delete(passages).where(mine, _Row.edition.not_in(but)))


def record_removal(tx: Connection, collection_id: str, generation: int, ids: Sequence[int]) -> None:
    """For those who keep an index."""
    packed = pack(f"<{len(ids)}q", *ids)
    tx.execute(insert(removals).values(collection_id=collection_id, generation=generation, passage_ids=packed))


def removed(tx: Connection, collection_id: str, since: int) -> Sequence[bytes]:
    """Ids of what was taken away after a generation, int64 in packs."""
    query = select(removals.c.passage_ids).where(removals.c.collection_id == collection_id)
    return tx.execute(query.where(removals.c.generation > since)).scalars().all()


def indexed(
    tx: Connection,
    collection_id: str,
    since: int,
    limit: int,
    version: int = FIRST,
    edition: int = FIRST,
    tenant: str | None = None,
) -> Iterator[Sequence[Indexed]]:
    """Everything that was published in the edition after a generation, by id, `limit` at a time, with its vector of the version.

    Of a tenant: all of its documents that changed after the generation, as others may have been another's.
    """
    last = 0
    rows = select(_Row.id, _Row.document_id, embedding_store.column(version)).select_from(
        embedding_store.joined(collection_id, version)
    )
    if tenant is not None:
        for ids in _of_tenant_since(tx, collection_id, since, limit, edition, tenant):
            yield [Indexed(*row) for row in tx.execute(rows.where(_Row.id.in_(ids)).order_by(_Row.id))]
        return
    query = (
        rows.where(_Row.collection_id == collection_id, _Row.generation > since, _Row.edition == edition)
        .where(_Row.id > bindparam("last"))
        .order_by(_Row.id)
        .limit(limit)
    )
    while True:
        found = [Indexed(*row) for row in tx.execute(query, {"last": last})]
        if found:
            yield found
        if len(found) < limit:
            return
        last = found[-1].id


def texts(
    tx: Connection, collection_id: str, since: int, limit: int, edition: int = FIRST, tenant: str | None = None
) -> Iterator[Sequence[tuple[int, str]]]:
    """The same for an index of words: the headings that a passage stands under are part of it, and its context is."""
    last = 0
    rows = select(_Row.id, _Body.heading, _Body.context, _Body.text).join(passage_bodies, _Body.passage_id == _Row.id)
    if tenant is not None:
        for ids in _of_tenant_since(tx, collection_id, since, limit, edition, tenant):
            some = tx.execute(rows.where(_Row.id.in_(ids)).order_by(_Row.id))
            yield [(id_, embedding_store.embedded(*of_it)) for id_, *of_it in some]
        return
    query = (
        rows.where(_Row.collection_id == collection_id, _Row.generation > since, _Row.edition == edition)
        .where(_Row.id > bindparam("last"))
        .order_by(_Row.id)
        .limit(limit)
    )
    while True:
        found = [(id_, embedding_store.embedded(*of_it)) for id_, *of_it in tx.execute(query, {"last": last})]
        if found:
            yield found
        if len(found) < limit:
            return
        last = found[-1][0]


def _of_tenant_since(
    tx: Connection, collection_id: str, since: int, limit: int, edition: int, tenant: str
) -> Iterator[Sequence[int]]:
    """In order, `limit` at a time. Found at once: to page through them by id, SQLite looks at everybody's."""
    theirs, mine = _of_tenant(collection_id, tenant), (_Row.edition == edition) & _Row.generation.is_not(None)
    changed = select(_Row.id).where(mine, _Row.document_id.in_(theirs.where(documents.c.generation > since)))
    ids = set(tx.execute(changed).scalars())
    if since >= 0:  # a document that is cut anew has not changed
        new = (_Row.collection_id == collection_id) & (_Row.generation > since)
        ids.update(tx.execute(select(_Row.id).where(new, mine, _Row.document_id.in_(theirs))).scalars())
    found = sorted(ids)
    for start in range(0, len(found), limit):
        yield found[start : start + limit]


def _of_tenant(collection_id: str, tenant: str) -> Select[tuple[int]]:
    return select(documents.c.id).where(documents.c.collection_id == collection_id, documents.c.tenant == tenant)


def number(tx: Connection, collection_id: str, edition: int = FIRST, tenant: str | None = None) -> int:
    """How many are published in the edition."""
    mine = (
        _Row.collection_id == collection_id
        if tenant is None
        else _Row.document_id.in_(_of_tenant(collection_id, tenant))
    )
    query = select(func.count()).where(mine, _Row.edition == edition, _Row.generation.is_not(None))
    return int(tx.execute(query).scalar_one())


def published_after(tx: Connection, collection_id: str, after: int, edition: int) -> Sequence[tuple[int, int]]:
    """Ids of passages of the edition and of their documents, of those whose ids are greater."""
    mine = (_Row.collection_id == collection_id) & (_Row.id > after) & (_Row.edition == edition)
    query = select(_Row.id, _Row.document_id).where(mine, _Row.generation.is_not(None))
    return [(id_, document_id) for id_, document_id in tx.execute(query)]


def of_tenant(tx: Connection, collection_id: str, tenant: str) -> Sequence[int]:
    """Ids of those that are published, in every edition."""
    mine = _Row.document_id.in_(_of_tenant(collection_id, tenant))
    return tx.execute(select(_Row.id).where(mine, _Row.generation.is_not(None))).scalars().all()


def of_documents(tx: Connection, ids: Sequence[int]) -> Sequence[int]:
    """Ids of what is published of these documents, in every edition."""
    found: list[int] = []
    for start in range(0, len(ids), TOGETHER):
        some = _Row.document_id.in_(ids[start : start + TOGETHER])
        found += tx.execute(select(_Row.id).where(some, _Row.generation.is_not(None))).scalars()
    return found


def of_document(tx: Connection, document_id: int, limit: int, after: int = -1, edition: int = FIRST) -> Sequence[Found]:
    """By their order in the document, from behind an ordinal."""
    query = (
        select(*SHOWN)
        .join(passage_bodies, _Body.passage_id == _Row.id)
        .where(*_in(document_id, edition), _Row.ordinal > after)
        .order_by(_Row.ordinal)
        .limit(limit)
    )
    return [_shown(row) for row in tx.execute(query)]


def _moved(tx: Connection, document_id: int, placed: Sequence[Placed]) -> list[dict[str, Any]]:
    """Where those that stand elsewhere than they did go: of what was just prepared usually none, and no row is written for nothing."""
    query = select(
        _Row.id, _Row.ordinal, _Row.start, _Row.end, _Row.page, _Row.line, _Row.parent_start, _Row.parent_end
    )
    stand = {row.id: tuple(row)[1:] for row in tx.execute(query.where(_Row.document_id == document_id))}
    places = ((each.id, _place(each.ordinal, each.chunk)) for each in placed)
    return [{"_id": id_, **place} for id_, place in places if stand.get(id_) != tuple(place.values())]


def around(tx: Connection, document_id: int, first: int, last: int, edition: int = FIRST) -> Sequence[Found]:
    """The published passages of a document from one ordinal to another."""
    query = (
        select(*SHOWN)
        .join(passage_bodies, _Body.passage_id == _Row.id)
        .where(*_in(document_id, edition), _Row.ordinal.between(first, last))
        .order_by(_Row.ordinal)
    )
    return [_shown(row) for row in tx.execute(query)]


def parents(tx: Connection, children: Sequence[Found]) -> Mapping[int, Found]:
    """What is shown for those that have a parent, by their ids: text of their document that is around them.

    Each document is looked at once, however many of them are of it: a long one takes milliseconds. One that is being changed at this
    moment, or has no such text, is left out.
    """
    families: defaultdict[tuple[int, int], list[tuple[Found, int, int]]] = defaultdict(list)
    for child in children:
        if child.parent_start is not None and child.parent_end is not None:
            families[child.document_id, child.edition].append((child, child.parent_start, child.parent_end))
    shown = {}
    for (document_id, edition), family in families.items():
        first, last = min(start for _, start, _ in family), max(end for _, _, end in family)
        around_ = func.substr(document_texts.c.text, first + 1, last - first)
        text = tx.execute(select(around_).where(document_texts.c.document_id == document_id)).scalar_one_or_none() or ""
        begins = _begins(tx, document_id, edition, {start for _, start, _ in family})
        for child, start, end in family:
            if start in begins and len(text) >= end - first:
                page, line, heading = begins[start]
                place = {"start": start, "end": end, "page": page, "line": line, "heading": heading}
                shown[child.id] = msgspec.structs.replace(child, text=text[start - first : end - first], **place)
    return shown


def _begins(tx: Connection, document_id: int, edition: int, starts: Iterable[int]) -> Mapping[int, tuple[Any, ...]]:
    """Page, line and headings of the first passage of each parent, by where both start."""
    query = (
        select(_Row.start, _Row.page, _Row.line, _Body.heading)
        .join(passage_bodies, _Body.passage_id == _Row.id)
        .where(*_in(document_id, edition), _Row.start == _Row.parent_start, _Row.start.in_(starts))
    )
    return {start: tuple(place) for start, *place in tx.execute(query)}


def vectors(tx: Connection, ids: Sequence[int], collection_id: str = "", version: int = FIRST) -> Mapping[int, bytes]:
    """float32 in little-endian, by passage; of those that are there."""
    there = embedding_store.joined(collection_id, version)
    query = select(_Row.id, embedding_store.column(version)).select_from(there).where(_Row.id.in_(ids))
    return {id_: bytes(vector) for id_, vector in tx.execute(query)}


def kept(tx: Connection, document_id: int, edition: int) -> Sequence[New]:
    """The published passages of a document in the edition, to be the same in another one; without vectors."""
    query = (
        select(*SHOWN, _Row.hash, _Body.context)
        .join(passage_bodies, _Body.passage_id == _Row.id)
        .where(*_in(document_id, edition))
        .order_by(_Row.ordinal)
    )
    found = ((_shown(tuple(row)[:-2]), bytes(row.hash), row.context) for row in tx.execute(query))
    return [New(each.ordinal, hash_, _chunk(each), embedding_store.NOTHING, context) for each, hash_, context in found]


def drop(tx: Connection, collection_id: str, edition: int) -> bool:
    """Some of an edition's passages, for good; whether there are more. No index has them any more."""
    mine = (_Row.collection_id == collection_id) & (_Row.edition == edition)
    ids = tx.execute(select(_Row.id).where(mine).limit(TOGETHER)).scalars().all()
    remove(tx, ids)
    return len(ids) == TOGETHER


def _in(document_id: int, edition: int) -> tuple[ColumnElement[bool], ...]:
    """Published in that edition."""
    return _Row.document_id == document_id, _Row.generation.is_not(None), _Row.edition == edition


def _chunk(each: Found) -> Chunk:
    parent = None
    if each.parent_start is not None and each.parent_end is not None:
        parent = each.parent_start, each.parent_end
    return Chunk(each.text, each.start, each.end, each.page, each.line, tuple(each.heading), each.tokens, parent)


def _known(tx: Connection, document_id: int, state: ColumnElement[bool]) -> Sequence[Known]:
    query = select(_Row.id, _Row.hash).where(_Row.document_id == document_id, state).order_by(_Row.ordinal, _Row.id)
    return [Known(id_, bytes(hash_)) for id_, hash_ in tx.execute(query)]


def _shown(row: Row[*tuple[Any, ...]] | tuple[Any, ...]) -> Found:
    return Found(*row)


def _place(ordinal: int, chunk: Chunk) -> dict[str, Any]:
    start, end = chunk.parent or (None, None)
    return {
        "ordinal": ordinal,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "line": chunk.line,
        "parent_start": start,
        "parent_end": end,
    }
