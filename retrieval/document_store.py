"""The table of documents: files in collections, and what became of each. Every function takes its transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from retrieval import collection_store, cut_store, passage_store
from retrieval.access import Caller, readable
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection, Counts, Order
from retrieval.database import locked_for, now
from retrieval.errors import BadRequest, Conflict, Forbidden, NotFound
from retrieval.job_store import Waiting
from retrieval.paging import Page, page
from retrieval.tables import document_cuts, document_labels, document_texts, documents, ingestion_jobs

Status = Literal["in_progress", "completed", "failed", "cancelled"]
Value = str | float | bool

_Row = documents.c


class Document(msgspec.Struct, frozen=True, gc=False):
    """As it is kept. `empty`: it was read and there is no text in it."""

    id: int
    collection_id: str
    source_id: str
    filename: str
    status: Status
    error_code: str | None
    error_message: str | None
    empty: bool
    attributes: Mapping[str, Value]
    chunking: Chunking
    fingerprint: str | None
    usage_bytes: int
    passages: int
    generation: int
    created_at: float
    batch_id: str | None
    tenant: str | None = None


class PutOff(Document, frozen=True, gc=False, kw_only=True):
    """One that somebody began to read, and nobody reads now."""

    waiting: Waiting


class NewDocument(msgspec.Struct, frozen=True):
    """`source_id` is who it is: a document that is there already is read again. `replaces` is who it was until now, if that changes."""

    source_id: str
    filename: str
    attributes: Mapping[str, Value]
    labels: Sequence[str]
    chunking: Chunking
    batch_id: str | None = None
    replaces: str | None = None
    tenant: str | None = None


class Described(msgspec.Struct, frozen=True):
    """What an index knows of a document beside its passages."""

    id: int
    attributes: Mapping[str, Value]
    labels: frozenset[str]
    tenant: str | None = None


def attach(tx: Connection, collection: Collection, new: NewDocument) -> Document:
    """Puts it in the collection, to be read. Raises Conflict.

    Until that is done, searches find what it was before, unless its new readers are others than those of the version that it replaces,
    or of another tenant.
    """
    generation = collection_store.next_generation(tx, collection.id)
    values: dict[str, Any] = {
        "filename": new.filename,
        "attributes": dict(new.attributes),
        "chunking": msgspec.structs.asdict(new.chunking),
        "batch_id": new.batch_id,
        "status": "in_progress",
        "error_code": None,
        "error_message": None,
        "generation": generation,
        "tenant": new.tenant,
    }
    id_ = _there(tx, collection, new.source_id)
    if new.replaces is not None and new.replaces != new.source_id:
        if id_ is not None:
            raise Conflict(f"The file {new.source_id} is in the vector store already", code="file_in_store")
        id_ = _there(tx, collection, new.replaces)
        values["source_id"] = new.source_id
        if id_ is not None and (
            _tenant_of(tx, id_) != new.tenant or _opens(labels_of(tx, id_), new.labels, labelled=collection.labelled)
        ):
            _empty(tx, collection, id_, generation)  # what only some could read is not for those of the new version
            values |= {"usage_bytes": 0, "passages": 0, "fingerprint": None}
    if id_ is None:
        values |= {"collection_id": collection.id, "source_id": new.source_id, "created_at": now(tx)}
        values |= {"empty": False, "usage_bytes": 0, "passages": 0}
        id_ = tx.execute(insert(documents).values(**values).returning(_Row.id)).scalar_one()
    else:
        tx.execute(update(documents).where(_Row.id == id_).values(**values))
    _label(tx, id_, new.labels)
    return _one(tx, _Row.id == id_)


def _there(tx: Connection, collection: Collection, source_id: str) -> int | None:
    here = (_Row.collection_id == collection.id) & (_Row.source_id == source_id)
    found: int | None = tx.execute(select(_Row.id).where(here)).scalar_one_or_none()
    return found


def _tenant_of(tx: Connection, id_: int) -> str | None:
    found: str | None = tx.execute(select(_Row.tenant).where(_Row.id == id_)).scalar_one()
    return found


def _opens(before: frozenset[str], now_: Sequence[str], *, labelled: bool) -> bool:
    """Whether somebody may read what has the second labels, and not what has the first."""
    if not before and not labelled:
        return False
    return not before.issuperset(now_) or (not now_ and not labelled)


def _empty(tx: Connection, collection: Collection, id_: int, generation: int) -> None:
    """Nothing of it is found or shown any more."""
    gone = passage_store.published_at_all(tx, id_)
    passage_store.forget_unpublished(tx, id_)
    passage_store.remove(tx, gone)
    if gone:
        passage_store.record_removal(tx, collection.id, generation, gone)
    tx.execute(delete(document_texts).where(document_texts.c.document_id == id_))
    cut_store.empty(tx, id_)


def require_own(tx: Connection, caller: Caller, collection: Collection, source_id: str) -> None:
    """Nobody changes what is not shown to it, by adding it once more. Raises Forbidden."""
    found = _readable(caller, collection)
    id_ = _there(tx, collection, source_id) if found else None
    if id_ is not None and tx.execute(select(_Row.id).where(_Row.id == id_, *found)).first() is None:
        raise Forbidden(
            f"The file {source_id} is in the vector store already, and this key does not hold its access labels, or is another tenant's",
            param="file_id",
        )


def get(tx: Connection, caller: Caller, collection: Collection, source_id: str) -> Document:
    """Raises NotFound, also for one that the caller's labels do not open."""
    query = select(documents).where(_Row.collection_id == collection.id, _Row.source_id == source_id)
    row = tx.execute(query.where(*_readable(caller, collection))).one_or_none()
    if row is None:
        raise NotFound(
            f"No file with id '{source_id}' in vector store '{collection.id}'", param="file_id", code="file_not_found"
        )
    return _document(row)


def by_id(tx: Connection, id_: int) -> Document | None:
    """For who works on it."""
    row = tx.execute(select(documents).where(_Row.id == id_)).one_or_none()
    return None if row is None else _document(row)


def listed(
    tx: Connection,
    caller: Caller,
    collection: Collection,
    limit: int,
    *,
    after: str | None = None,
    before: str | None = None,
    order: Order = "desc",
    status: Status | None = None,
    batch_id: str | None = None,
) -> Page[Document]:
    """By creation; cursors are source ids. Raises BadRequest for one that is not there: an empty page would say that this is all."""
    backwards = before is not None and after is None
    ascending = (order == "asc") is not backwards
    query = select(documents).where(_Row.collection_id == collection.id, *_readable(caller, collection))
    if status is not None:
        query = query.where(_Row.status == status)
    if batch_id is not None:
        query = query.where(_Row.batch_id == batch_id)
    for name, cursor, forwards in (("after", after, order == "asc"), ("before", before, order != "asc")):
        if cursor is not None:
            at = _there(tx, collection, cursor)
            if at is None:
                raise BadRequest(
                    f"{name}: there is no file {cursor!r} in this vector store any more; begin without it",
                    param=name,
                    code="invalid_cursor",
                )
            query = query.where(_Row.id > at if forwards else _Row.id < at)
    query = query.order_by(_Row.id.asc() if ascending else _Row.id.desc()).limit(limit + 1)
    return page([_document(row) for row in tx.execute(query)], limit, backwards=backwards)


def describe(
    tx: Connection, document: Document, attributes: Mapping[str, Value], tenant: str | None = None
) -> Document:
    """Other attributes, and another tenant with them, for searches from now on."""
    generation = collection_store.next_generation(tx, document.collection_id)
    values = {"attributes": dict(attributes), "generation": generation, "tenant": tenant}
    tx.execute(update(documents).where(_Row.id == document.id).values(**values))
    return _one(tx, _Row.id == document.id)


def relabel(tx: Connection, document: Document, labels: Sequence[str]) -> None:
    """Other readers, for searches from now on."""
    generation = collection_store.next_generation(tx, document.collection_id)
    tx.execute(update(documents).where(_Row.id == document.id).values(generation=generation))
    _label(tx, document.id, labels)


def end(
    tx: Connection, document: Document, status: Status, *, code: str | None = None, message: str | None = None
) -> None:
    """What came of reading it, where that is no passages."""
    values = {"status": status, "error_code": code, "error_message": message}
    tx.execute(update(documents).where(_Row.id == document.id).values(**values))


def complete(
    tx: Connection, document: Document, generation: int, *, fingerprint: str, text: str, usage_bytes: int, passages: int
) -> None:
    """It was read whole."""
    tx.execute(
        update(documents)
        .where(_Row.id == document.id)
        .values(
            status="completed",
            error_code=None,
            error_message=None,
            empty=passages == 0,
            fingerprint=fingerprint,
            usage_bytes=usage_bytes,
            passages=passages,
            generation=generation,
        )
    )
    tx.execute(delete(document_texts).where(document_texts.c.document_id == document.id))
    tx.execute(insert(document_texts).values(document_id=document.id, text=text))


def cancel(tx: Connection, batch_id: str) -> Sequence[int]:
    """Those of a batch that are not read yet; who works on them finds it out. What was found before is found still."""
    mine = (_Row.batch_id == batch_id) & (_Row.status == "in_progress")
    ids = tx.execute(select(_Row.id).where(mine)).scalars().all()
    tx.execute(update(documents).where(mine).values(status="cancelled"))
    tx.execute(delete(ingestion_jobs).where(ingestion_jobs.c.document_id.in_(ids)))
    for id_ in ids:
        passage_store.forget_unpublished(tx, id_)
    return ids


def batched_by_others(tx: Connection, batch_id: str, tenant: str) -> bool:
    """Whether the batch has documents of other tenants."""
    others = (_Row.batch_id == batch_id) & (_Row.tenant != tenant)
    return tx.execute(select(_Row.id).where(others).limit(1)).first() is not None


def counts(tx: Connection, batch_id: str) -> Counts:
    query = select(_Row.status, func.count()).where(_Row.batch_id == batch_id).group_by(_Row.status)
    return Counts(**{str(status): int(number) for status, number in tx.execute(query)})


def remove(tx: Connection, document: Document) -> None:
    """All of it: its text, its passages, its job."""
    locked_for(tx, document.collection_id)
    gone = passage_store.published_at_all(tx, document.id)
    if gone:
        generation = collection_store.next_generation(tx, document.collection_id)
        passage_store.record_removal(tx, document.collection_id, generation, gone)
    tx.execute(delete(documents).where(_Row.id == document.id))


def of_source(tx: Connection, source_ids: Sequence[str]) -> Sequence[Document]:
    """In whatever collections."""
    return [_document(row) for row in tx.execute(select(documents).where(_Row.source_id.in_(source_ids)))]


def some(tx: Connection, collection_id: str, limit: int) -> Sequence[Document]:
    query = select(documents).where(_Row.collection_id == collection_id).order_by(_Row.id).limit(limit)
    return [_document(row) for row in tx.execute(query)]


def described(tx: Connection, collection_id: str, since: int, tenant: str | None = None) -> Sequence[Described]:
    """What is said of the documents that changed after a generation; with a `tenant` only of that one's."""
    changed = (_Row.collection_id == collection_id) & (_Row.generation > since)
    if tenant is not None:
        changed &= _Row.tenant == tenant
    labels: dict[int, set[str]] = {}
    pairs = select(document_labels.c.document_id, document_labels.c.label)
    for id_, label in tx.execute(pairs.join(documents, _Row.id == document_labels.c.document_id).where(changed)):
        labels.setdefault(id_, set()).add(label)
    rows = tx.execute(select(_Row.id, _Row.attributes, _Row.tenant).where(changed))
    return [Described(id_, attributes, frozenset(labels.get(id_, ())), whose) for id_, attributes, whose in rows]


def left(tx: Connection, collection_id: str, since: int, tenant: str) -> Sequence[int]:
    """Documents that changed after a generation and are other tenants': among them those that have left this one."""
    others = (_Row.collection_id == collection_id) & (_Row.generation > since) & (_Row.tenant != tenant)
    return tx.execute(select(_Row.id).where(others)).scalars().all()


class Partition(msgspec.Struct, frozen=True):
    """What a tenant has in a collection. `generation`: of the newest change of one of its documents."""

    tenant: str
    documents: int
    passages: int
    usage_bytes: int
    generation: int


def partitions(
    tx: Connection,
    collection_id: str,
    limit: int | None = None,
    *,
    after: str | None = None,
    tenant: str | None = None,
    edition: int | None = None,
) -> Sequence[Partition]:
    """By the tenants' names; of one of them, if it is given. With the passages of an `edition` that is not read, if one is given."""
    cuts = document_cuts.c
    passages = _Row.passages if edition is None else func.coalesce(cuts.passages, 0)
    sums = func.count(), func.sum(passages), func.sum(_Row.usage_bytes), func.max(_Row.generation)
    query = select(_Row.tenant, *sums).where(_Row.collection_id == collection_id, _Row.tenant.is_not(None))
    if edition is not None:
        query = query.outerjoin(document_cuts, (cuts.document_id == _Row.id) & (cuts.edition == edition))
    if after is not None:
        query = query.where(_Row.tenant > after)
    if tenant is not None:
        query = query.where(_Row.tenant == tenant)
    found = tx.execute(query.group_by(_Row.tenant).order_by(_Row.tenant).limit(limit))
    return [Partition(name, *map(int, rest)) for name, *rest in found]


def tenants_of(tx: Connection, collection_id: str, source_ids: Sequence[str]) -> Mapping[str, str]:
    """Of the files that are a tenant's."""
    found: dict[str, str] = {}
    for start in range(0, len(source_ids), 500):
        mine = (_Row.collection_id == collection_id) & _Row.source_id.in_(source_ids[start : start + 500])
        rows = tx.execute(select(_Row.source_id, _Row.tenant).where(mine, _Row.tenant.is_not(None)))
        found |= {row.source_id: row.tenant for row in rows}
    return found


def remove_tenant(tx: Connection, collection_id: str, tenant: str) -> int:
    """All documents of it at once. How many."""
    locked_for(tx, collection_id)
    gone = passage_store.of_tenant(tx, collection_id, tenant)
    if gone:
        generation = collection_store.next_generation(tx, collection_id)
        passage_store.record_removal(tx, collection_id, generation, gone)
    mine = (_Row.collection_id == collection_id) & (_Row.tenant == tenant)
    return tx.execute(delete(documents).where(mine)).rowcount


def labels_of(tx: Connection, id_: int) -> frozenset[str]:
    query = select(document_labels.c.label).where(document_labels.c.document_id == id_)
    return frozenset(tx.execute(query).scalars())


def text_of(tx: Connection, id_: int) -> str:
    query = select(document_texts.c.text).where(document_texts.c.document_id == id_)
    return tx.execute(query).scalar_one_or_none() or ""


def _label(tx: Connection, id_: int, labels: Sequence[str]) -> None:
    tx.execute(delete(document_labels).where(document_labels.c.document_id == id_))
    if labels:
        tx.execute(insert(document_labels), [{"document_id": id_, "label": label} for label in sorted(set(labels))])


def _readable(caller: Caller, collection: Collection) -> tuple[ColumnElement[bool], ...]:
    found = readable(caller, labelled=collection.labelled)
    return () if found is None else (found,)


def _one(tx: Connection, where: ColumnElement[bool]) -> Document:
    return _document(tx.execute(select(documents).where(where)).one())


def _document(row: Row[Any]) -> Document:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    return Document(**{**values, "chunking": Chunking(**values["chunking"])})
