"""The table of re-embeddings, and who works on which. Every function takes its transaction.

A collection is locked before its re-embedding. Who works on one has a lease, as for ingestion: see `retrieval.job_store`.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, insert, or_, select, update

from retrieval import collection_store, cut_store
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection
from retrieval.database import locked_for, now
from retrieval.document_store import Document
from retrieval.ids import new_id
from retrieval.job_store import LEASE_S, LeaseLost, Owner
from retrieval.reembedding.record import BEFORE_SWAP, BESIDE, ENDED, Reembedding, Terms, Verdict
from retrieval.spaces import Space
from retrieval.tables import reembeddings

# Something to do for any: a condition that SQLite and PostgreSQL both read.
ANY: Final = f"EXISTS (SELECT 1 FROM reembeddings WHERE state IN {BESIDE} OR NOT collected)"  # noqa: S608 — constants

_Row = reembeddings.c
_JSON: Final[dict[str, Any]] = {"before": Space, "after": Space, "terms": Terms, "verdict": Verdict | None}


def add(tx: Connection, collection: Collection, after: Space, payer: str, terms: Terms) -> Reembedding:
    at, id_ = now(tx), new_id("reemb_")
    tx.execute(
        insert(reembeddings).values(
            id=id_,
            collection_id=collection.id,
            version=after.version,
            state="backfilling",
            behind=True,
            before=msgspec.to_builtins(collection.space),
            after=msgspec.to_builtins(after),
            payer=payer,
            terms=msgspec.to_builtins(terms),
            canary_share=0.0,
            canary_keys=[],
            cursor=0,
            attempts=0,
            not_before=at,
            epoch=0,
            collected=False,
            created_at=at,
            updated_at=at,
        )
    )
    return _one(tx, id_)


def by_id(tx: Connection, collection_id: str, id_: str) -> Reembedding | None:
    query = select(reembeddings).where(_Row.id == id_, _Row.collection_id == collection_id)
    row = tx.execute(query).one_or_none()
    return None if row is None else _reembedding(row)


def listed(tx: Connection, collection_id: str, limit: int, after: str | None) -> Sequence[Reembedding]:
    """Newest first, one more than `limit` if there are more."""
    query = select(reembeddings).where(_Row.collection_id == collection_id)
    if after is not None:
        query = query.where(_Row.id < after)
    return [_reembedding(row) for row in tx.execute(query.order_by(_Row.id.desc()).limit(limit + 1))]


def beside(tx: Connection, collection_id: str) -> Reembedding | None:
    """The one that has a second version written, if there is one."""
    query = select(reembeddings).where(_Row.collection_id == collection_id, _Row.state.in_(BESIDE))
    row = tx.execute(query.order_by(_Row.id.desc()).limit(1)).one_or_none()
    return None if row is None else _reembedding(row)


def within(tx: Connection, collection: Collection, version: int) -> Collection | None:
    """The collection with vectors of the version; None if they are not all there.

    What is behind must not be indexed: a vector that is made up for later has no generation by which an index would find it.
    """
    if version == collection.version:
        return collection
    found = beside(tx, collection.id)
    if found is None or found.behind or found.unread.version != version:
        return None
    return collection.within(found.unread)


def kept(tx: Connection, collection: Collection, version: int) -> bool:
    """Whether vectors of the version are wanted still."""
    found = beside(tx, collection.id)
    return version == collection.version or (found is not None and found.unread.version == version)


def editions(tx: Connection, collection: Collection) -> Sequence[int]:
    """Those that some version is of that is wanted still."""
    found = beside(tx, collection.id)
    return [collection.edition] if found is None else [collection.edition, found.unread.edition]


def chunking_of(tx: Connection, found: Reembedding, document: Document) -> Chunking:
    """How the document is to be cut in the edition that is not read: in a new one as all are."""
    if found.state != "swapped" and found.after.chunking is not None:
        return found.after.chunking
    return cut_store.wanted(tx, document.id, found.unread.edition) or document.chunking


def last_version(tx: Connection, collection: Collection) -> int:
    query = select(func.max(_Row.version)).where(_Row.collection_id == collection.id)
    return max(collection.version, int(tx.execute(query).scalar_one() or 0))


def leftovers(tx: Connection, collection_id: str) -> Sequence[Reembedding]:
    """Those that failed and whose vectors are still there."""
    query = select(reembeddings).where(_Row.collection_id == collection_id, _Row.state == "failed")
    return [_reembedding(row) for row in tx.execute(query.where(_Row.collected.is_(False)))]


def waiting(tx: Connection, owner: Owner) -> Sequence[Reembedding]:
    """Those with something to do that nobody works on, or whose owner is silent or may be dead. Who was served last comes last."""
    at = now(tx)
    near = (_Row.host == owner.host) & (_Row.owner != owner.id)
    free = or_(_Row.owner.is_(None), _Row.seen_at < at - LEASE_S, near)
    todo = (_Row.state == "backfilling") | (_Row.state.in_(BESIDE) & _Row.behind.is_(True))
    query = select(reembeddings).where(todo, free, _Row.not_before <= at).order_by(_Row.updated_at, _Row.id).limit(20)
    return [_reembedding(row) for row in tx.execute(query)]


def outlived(tx: Connection) -> Sequence[Reembedding]:
    """Swapped ones whose old version was kept for long enough, and failed ones that nobody went on with."""
    query = select(reembeddings).where(or_(_Row.state == "swapped", (_Row.state == "failed") & ~_Row.collected))
    at = now(tx)
    found = [_reembedding(row) for row in tx.execute(query)]
    return [each for each in found if (each.swapped_at or each.ended_at or at) + each.terms.keep_s <= at]


def uncollected(tx: Connection, limit: int) -> Sequence[Reembedding]:
    """Those that have ended for good and whose vectors are still there."""
    over = _Row.state.in_([each for each in ENDED if each != "failed"])
    query = select(reembeddings).where(over, _Row.collected.is_(False)).order_by(_Row.id).limit(limit)
    return [_reembedding(row) for row in tx.execute(query)]


def claim(tx: Connection, found: Reembedding, owner: Owner) -> Reembedding | None:
    """It in an epoch of its own; None if another was faster."""
    at = now(tx)
    lease = {"owner": owner.id, "host": owner.host, "seen_at": at, "updated_at": at, "epoch": found.epoch + 1}
    mine = (_Row.id == found.id) & (_Row.epoch == found.epoch)
    if tx.execute(update(reembeddings).where(mine).values(**lease)).rowcount != 1:
        return None
    return _one(tx, found.id)


def beat(tx: Connection, mine: Reembedding) -> None:
    """It is heard of."""
    leased = (_Row.id == mine.id) & (_Row.owner == mine.owner) & (_Row.epoch == mine.epoch)
    tx.execute(update(reembeddings).where(leased).values(seen_at=now(tx)))


def hold(tx: Connection, mine: Reembedding) -> Reembedding:
    """As it is now; what follows in this transaction is done under the lease. Raises LeaseLost."""
    locked_for(tx, mine.collection_id)
    leased = (_Row.id == mine.id) & (_Row.owner == mine.owner) & (_Row.epoch == mine.epoch) & _Row.state.in_(BESIDE)
    if tx.execute(update(reembeddings).where(leased).values(seen_at=now(tx))).rowcount != 1:
        raise LeaseLost
    return _one(tx, mine.id)


def release(tx: Connection, mine: Reembedding, wait_s: float = 0.0, **values: Any) -> None:
    """Somebody goes on with it, in a while. Raises LeaseLost."""
    hold(tx, mine)
    free = {"owner": None, "host": None, "seen_at": None, "not_before": now(tx) + wait_s}
    put(tx, mine.id, **free, **values)


def put(tx: Connection, id_: str, **values: Any) -> Reembedding:
    """Its new values, and it as it is then."""
    plain = {name: msgspec.to_builtins(value) if name in _JSON else value for name, value in values.items()}
    tx.execute(update(reembeddings).where(_Row.id == id_).values(updated_at=now(tx), **plain))
    return _one(tx, id_)


def learn(tx: Connection, found: Reembedding, dimensions: int) -> int:
    """The first vector of the unread version decides. What it has from now on."""
    space = found.unread
    if space.dimensions is not None:
        return space.dimensions
    name = "before" if space.version == found.before.version else "after"
    made = put(tx, found.id, **{name: msgspec.structs.replace(space, dimensions=dimensions)})
    if found.state == "canary":
        collection_store.lend(tx, found.collection_id, made.canary)
    return dimensions


def fell_behind(tx: Connection, found: Reembedding, reason: str) -> None:
    """Passages were published without a vector of the unread version: nobody reads it until they have one."""
    values: dict[str, Any] = {"behind": True, "cursor": 0}
    if found.state in BEFORE_SWAP and found.state != "backfilling":
        values |= {"state": "backfilling", "reason": reason}
    if found.state == "canary":
        collection_store.lend(tx, found.collection_id, None)
    put(tx, found.id, **values)


def _one(tx: Connection, id_: str) -> Reembedding:
    return _reembedding(tx.execute(select(reembeddings).where(_Row.id == id_)).one())


def _reembedding(row: Row[Any]) -> Reembedding:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    read = {name: msgspec.convert(values[name], kind) for name, kind in _JSON.items()}
    return Reembedding(**{**values, **read})
