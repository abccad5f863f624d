"""The table of collections. Every function takes its transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from retrieval import cut_store
from retrieval.access import Caller, visible
from retrieval.chunking_strategy import Chunking
from retrieval.database import locked_for, now
from retrieval.errors import BadRequest, Expired, NotFound
from retrieval.ids import new_id
from retrieval.index.settings import EngineName, Quantization
from retrieval.paging import Page, page
from retrieval.spaces import FIRST, Canary, Space, version_for
from retrieval.tables import collections, documents, removals
from retrieval.tenancy import Tenancy

DAY_S: Final = 86_400.0
TOUCHED_EVERY_S: Final = 60.0
REMOVALS_KEPT: Final = 10_000  # generations: an index that is older is made anew

Order = Literal["asc", "desc"]
_Row = collections.c
_FIELDS = tuple(column for column in collections.columns if column.name != "deleted")


class Collection(msgspec.Struct, frozen=True):
    """As it is kept. Times are Unix seconds. `engine` None: the usual one. Quotas None: none. What `Space` has as well: see there.

    `tenancy` None: it is one whole.
    """

    id: str
    key_id: str
    team_id: str | None
    org_id: str | None
    name: str
    description: str | None
    metadata: Mapping[str, str]
    model: str
    dimensions: int | None
    labelled: bool
    generation: int
    created_at: float
    last_active_at: float
    expires_days: int | None
    expires_at: float | None
    engine: EngineName | None = None
    quantization: Quantization = "none"
    quota_passages: int | None = None
    quota_bytes: int | None = None
    version: int = FIRST
    cut: int | None = None
    canary: Canary | None = None
    prompts: str | None = None
    edition: int = FIRST
    chunking: Chunking | None = None
    tenancy: Tenancy | None = None

    @property
    def space(self) -> Space:
        return Space(**{name: getattr(self, name) for name in Space.__struct_fields__})

    def within(self, space: Space) -> "Collection":
        """The same with vectors of another version."""
        if space.version == self.version:
            return self
        return msgspec.structs.replace(self, **{name: getattr(space, name) for name in Space.__struct_fields__})

    def read_by(self, key_id: str) -> "Collection":
        """As a key reads it: in the canary's version, if it is one of those keys."""
        canary = self.canary
        reads_other = canary is not None and version_for(self.version, canary, key_id) != self.version
        return self.within(canary.space) if canary is not None and reads_other else self


class NewCollection(msgspec.Struct, frozen=True):
    name: str
    model: str
    description: str | None = None
    metadata: Mapping[str, str] = {}
    expires_days: int | None = None
    labelled: bool = False
    engine: EngineName | None = None
    quantization: Quantization = "none"
    cut: int | None = None
    prompts: str | None = None
    tenancy: Tenancy | None = None


class Counts(msgspec.Struct, frozen=True):
    """Documents by what became of them."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    usage_bytes: int = 0
    passages: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


class Change(msgspec.Struct, frozen=True):
    """UNSET stays as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET
    expires_days: int | msgspec.UnsetType | None = msgspec.UNSET
    tenancy: Tenancy | msgspec.UnsetType | None = msgspec.UNSET


def create(tx: Connection, caller: Caller, new: NewCollection) -> Collection:
    at = now(tx)
    id_ = new_id("vs_")
    tx.execute(
        insert(collections).values(
            id=id_,
            **caller.owns(),
            **{**msgspec.structs.asdict(new), "tenancy": _kept(new.tenancy)},
            generation=0,
            created_at=at,
            last_active_at=at,
            expires_at=_expiry(at, new.expires_days),
            deleted=False,
        )
    )
    return get(tx, caller, id_)


def get(tx: Connection, caller: Caller, id_: str) -> Collection:
    """Raises NotFound, also for one of somebody else's."""
    row = tx.execute(select(*_FIELDS).where(_Row.id == id_, visible(caller))).one_or_none()
    if row is None:
        raise NotFound(f"No such Vector store object: {id_}", param="vector_store_id")
    return _collection(row)


def alive(tx: Connection, caller: Caller, id_: str) -> Collection:
    """One that may be searched and added to. Raises NotFound, Expired."""
    found = get(tx, caller, id_)
    if expired(found, now(tx)):
        raise Expired(f"The vector store {id_} has expired", param="vector_store_id")
    return found


def by_id(tx: Connection, id_: str) -> Collection | None:
    """Whoever's it is; None also for one that is deleted."""
    row = tx.execute(select(*_FIELDS).where(_Row.id == id_, _Row.deleted.is_(False))).one_or_none()
    return None if row is None else _collection(row)


def named(tx: Connection, caller: Caller, name: str) -> Collection | None:
    """The oldest one of that name."""
    query = select(*_FIELDS).where(_Row.name == name, visible(caller)).order_by(_Row.id).limit(1)
    row = tx.execute(query).one_or_none()
    return None if row is None else _collection(row)


def called(tx: Connection, name: str) -> Sequence[str]:
    """The ids of those that an admin may mean, whoever's they are: the one of that id, else some of that name, the oldest first."""
    there = select(_Row.id).where(_Row.deleted.is_(False)).order_by(_Row.id)
    found = tx.execute(there.where(_Row.id == name)).scalars().all()
    return found or tx.execute(there.where(_Row.name == name).limit(10)).scalars().all()


def any_at_all(tx: Connection) -> bool:
    """Whether there are any, whoever's."""
    return tx.execute(select(_Row.id).where(_Row.deleted.is_(False)).limit(1)).one_or_none() is not None


def listed(
    tx: Connection,
    caller: Caller,
    limit: int,
    *,
    after: str | None = None,
    before: str | None = None,
    order: Order = "desc",
) -> Page[Collection]:
    """By creation."""
    backwards = before is not None and after is None
    ascending = (order == "asc") is not backwards
    query = select(*_FIELDS).where(visible(caller))
    if after is not None:
        query = query.where(_Row.id > after if order == "asc" else _Row.id < after)
    if before is not None:
        query = query.where(_Row.id < before if order == "asc" else _Row.id > before)
    query = query.order_by(_Row.id.asc() if ascending else _Row.id.desc()).limit(limit + 1)
    return page([_collection(row) for row in tx.execute(query)], limit, backwards=backwards)


def everybodys(
    tx: Connection, limit: int, *, after: str | None, org_id: str | None, team_id: str | None
) -> Page[Collection]:
    """Newest first, of an organisation or a team, if one is given: for who administers them."""
    query = select(*_FIELDS).where(_Row.deleted.is_(False)).order_by(_Row.id.desc()).limit(limit + 1)
    if org_id is not None:
        query = query.where(_Row.org_id == org_id)
    if team_id is not None:
        query = query.where(_Row.team_id == team_id)
    if after is not None:
        query = query.where(_Row.id < after)
    return page([_collection(row) for row in tx.execute(query)], limit)


def change(tx: Connection, caller: Caller, id_: str, wanted: Change) -> Collection:
    """Raises NotFound, BadRequest."""
    tenancy = wanted.tenancy
    if tenancy is not msgspec.UNSET:
        locked_for(tx, id_)  # nobody adds a document meanwhile
    found = get(tx, caller, id_)
    values = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not msgspec.UNSET}
    if tenancy is not msgspec.UNSET:
        values["tenancy"] = _kept(tenancy)
        if tenancy != found.tenancy:
            _require_empty(tx, found)
            next_generation(tx, id_)  # whoever knows the collection asks what it is now
    if "expires_days" in values:
        values["expires_at"] = _expiry(found.last_active_at, values["expires_days"])
    if values:
        tx.execute(update(collections).where(_Row.id == id_).values(**values))
    return get(tx, caller, id_)


def due(tx: Connection, collection: Collection) -> bool:
    """Whether it is time to `touch` it again."""
    return now(tx) - collection.last_active_at > TOUCHED_EVERY_S


def moment(tx: Connection) -> float:
    """Unix seconds, for `expired`."""
    return now(tx)


def touch(tx: Connection, collection: Collection) -> None:
    """It was used: its expiry counts from now."""
    at = now(tx)
    values = {"last_active_at": at, "expires_at": _expiry(at, collection.expires_days)}
    tx.execute(update(collections).where(_Row.id == collection.id).values(**values))


def counts(tx: Connection, ids: Sequence[str]) -> Mapping[str, Counts]:
    """Of each collection, also of those without documents."""
    sums = (func.count(), func.sum(documents.c.usage_bytes), func.sum(documents.c.passages))
    query = select(documents.c.collection_id, documents.c.status, *sums).where(documents.c.collection_id.in_(ids))
    found: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    for id_, status, number, size, passages in tx.execute(
        query.group_by(documents.c.collection_id, documents.c.status)
    ):
        of_it = found[id_]
        of_it[status] = int(number)
        of_it["usage_bytes"] = of_it.get("usage_bytes", 0) + int(size)
        of_it["passages"] = of_it.get("passages", 0) + int(passages)
    return {id_: Counts(**each) for id_, each in found.items()}


def next_generation(tx: Connection, id_: str) -> int:
    """For what this transaction changes. Those of one collection are committed in the order of their numbers."""
    locked_for(tx, id_)
    step = update(collections).where(_Row.id == id_).values(generation=_Row.generation + 1).returning(_Row.generation)
    generation = tx.execute(step).scalar_one_or_none()
    if generation is None:
        raise NotFound(f"No such Vector store object: {id_}", param="vector_store_id")
    old = (removals.c.collection_id == id_) & (removals.c.generation <= generation - REMOVALS_KEPT)
    if generation % 1000 == 0:
        tx.execute(delete(removals).where(old))
    return int(generation)


def learn_dimensions(tx: Connection, id_: str, dimensions: int) -> int:
    """The first vector decides. What the collection has from now on."""
    tx.execute(update(collections).where(_Row.id == id_, _Row.dimensions.is_(None)).values(dimensions=dimensions))
    return int(tx.execute(select(_Row.dimensions).where(_Row.id == id_)).scalar_one())


def settle(tx: Connection, id_: str, space: Space) -> int:
    """It is read in this version from here on, by everybody. Its generation."""
    generation = next_generation(tx, id_)
    before, edition = tx.execute(select(_Row.dimensions, _Row.edition).where(_Row.id == id_)).one()
    tx.execute(update(collections).where(_Row.id == id_).values(**msgspec.to_builtins(space), canary=None))
    more = 4 * ((space.dimensions or 0) - (before or 0))
    if edition != space.edition:
        cut_store.exchange(tx, id_, edition, space.edition, 4 * (before or 0), 4 * (space.dimensions or 0))
    elif more:  # as it is counted for new documents
        size = documents.c.usage_bytes + more * documents.c.passages
        mine = (documents.c.collection_id == id_) & (documents.c.passages > 0)
        tx.execute(update(documents).where(mine).values(usage_bytes=size))
    return generation


def lend(tx: Connection, id_: str, canary: Canary | None) -> None:
    """To the canary's keys another version, from here on."""
    value = None if canary is None else msgspec.to_builtins(canary)
    tx.execute(update(collections).where(_Row.id == id_).values(canary=value))


def bound(tx: Connection, id_: str, passages: int | None, size: int | None) -> Collection:
    """How much may be in it, for who administers it. Raises NotFound."""
    tx.execute(update(collections).where(_Row.id == id_).values(quota_passages=passages, quota_bytes=size))
    found = by_id(tx, id_)
    if found is None:
        raise NotFound(f"No such Vector store object: {id_}", param="vector_store_id")
    return found


def hide(tx: Connection, caller: Caller, id_: str) -> None:
    """From here on it is there for nobody; `retrieval.removal` takes away what it consists of. Raises NotFound."""
    get(tx, caller, id_)
    retire(tx, id_)


def retire(tx: Connection, id_: str) -> None:
    """As `hide`, for who administers it."""
    tx.execute(update(collections).where(_Row.id == id_).values(deleted=True))


def hidden(tx: Connection, limit: int) -> Sequence[str]:
    return tx.execute(select(_Row.id).where(_Row.deleted.is_(True)).limit(limit)).scalars().all()


def ended(tx: Connection, limit: int) -> Sequence[str]:
    """Ids of collections whose time is over and that still have documents."""
    has = select(documents.c.id).where(documents.c.collection_id == _Row.id).exists()
    query = select(_Row.id).where(_Row.expires_at < now(tx), _Row.deleted.is_(False), has)
    return tx.execute(query.limit(limit)).scalars().all()


def remove(tx: Connection, id_: str) -> None:
    tx.execute(delete(collections).where(_Row.id == id_))


def unknown(tx: Connection, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are no collection's, or a deleted one's."""
    known = set(tx.execute(select(_Row.id).where(_Row.id.in_(ids), _Row.deleted.is_(False))).scalars())
    return [id_ for id_ in ids if id_ not in known]


def expired(collection: Collection, unix: float) -> bool:
    return collection.expires_at is not None and collection.expires_at <= unix


def _require_empty(tx: Connection, collection: Collection) -> None:
    """Raises BadRequest."""
    if (
        tx.execute(select(documents.c.id).where(documents.c.collection_id == collection.id).limit(1)).first()
        is not None
    ):
        raise BadRequest("The tenancy of a vector store with files in it cannot be changed", param="tenancy")


def _kept(tenancy: Tenancy | None) -> Mapping[str, Any] | None:
    return None if tenancy is None else msgspec.structs.asdict(tenancy)


def _expiry(since: float, days: int | None) -> float | None:
    return None if days is None else since + days * DAY_S


def _collection(row: Row[Any]) -> Collection:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    canary, chunking, tenancy = values["canary"], values["chunking"], values["tenancy"]
    values["canary"] = None if canary is None else msgspec.convert(canary, Canary)
    values["chunking"] = None if chunking is None else Chunking(**chunking)
    values["tenancy"] = None if tenancy is None else msgspec.convert(tenancy, Tenancy)
    return Collection(**values)
