"""`/admin/v1/collections`: whose documents are kept here, how many, and with which model. What is in them is their owners'."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.api.vector_store_wire import chunking_view
from admin.rbac import Principal
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Deleted, Identifier, Limit, ListPage, StrictRoute, at, moment
from gateway.errors import NotFound
from gateway.settings import Section
from retrieval import collection_store
from retrieval.collection_store import Collection, Counts
from retrieval.errors import Unavailable

if TYPE_CHECKING:
    from retrieval.service import Retrieval


class CountsView(BaseModel):
    """Documents by what became of them."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class CollectionChangeBody(Section):
    """What is left out stays; null takes a bound away. Bytes are those of texts and vectors."""

    quota_passages: int | None = Field(default=None, ge=0, le=2**62)
    quota_bytes: int | None = Field(default=None, ge=0, le=2**62)


class RecallView(BaseModel):
    """The share of the nearest `neighbours` that were found, and what it is at least and at most with 99 % confidence."""

    recall: float
    low: float
    high: float
    neighbours: int


class TenancyView(BaseModel):
    """`attribute` names the tenant of each document; one of `promote_at` passages gets a graph of its own."""

    attribute: str
    promote_at: int


class CollectionView(BaseModel):
    """`generation` counts the changes of what can be found. `usage_bytes`: of texts and vectors. `engine` null: the usual one.

    `prompts`: how its model is told questions from passages, for as long as it is not embedded anew. `chunking_strategy`: how files are
    cut that do not say, if it was cut anew; null: as is best for the model. `tenancy` null: it is one whole.
    `recall`: of live searches that this process did again exactly, by kind of filter; empty in lists, and where no graph takes part.
    """

    id: str
    name: str
    key_id: str
    team_id: str | None
    org_id: str | None
    embedding_model: str
    embedding_version: int
    dimensions: int | None
    access: str
    quota_passages: int | None
    quota_bytes: int | None
    engine: str | None
    quantization: str
    prompts: dict[str, str] | None
    chunking_strategy: dict[str, object] | None
    tenancy: TenancyView | None
    documents: CountsView
    passages: int
    usage_bytes: int
    generation: int
    created_at: datetime
    last_active_at: datetime
    expires_at: datetime | None
    recall: dict[str, RecallView] = {}


class AdviceView(BaseModel):
    """What an index takes, in bytes and seconds, scaled up from a sample of `sampled` passages that was built just now.

    Below a size there is no graph (`graph_wanted`). What could not be measured is null, and `note` says why.
    """

    rows: int
    dimensions: int | None
    engine: str | None
    graph_wanted: bool
    artefact_bytes: int
    texts_bytes: int
    sampled: int
    graph_bytes: int | None
    build_seconds: float | None
    note: str | None


def router(control: Control, retrieval: "Callable[[], Awaitable[Retrieval]] | None") -> APIRouter:
    routes = APIRouter(prefix="/collections", tags=["collections"], route_class=StrictRoute)

    @routes.get("", summary="List collections, newest first", responses=documented())
    async def listed(*, asker: Asker, limit: Limit = 100, after: After = None) -> ListPage[CollectionView]:
        def work(tx: Connection) -> ListPage[CollectionView]:
            found = collection_store.everybodys(tx, limit, after=after, org_id=asker.org_id, team_id=asker.team_id)
            counts = collection_store.counts(tx, [each.id for each in found.data])
            views = [_view(each, counts[each.id]) for each in found.data]
            return ListPage[CollectionView](
                data=views, has_more=found.has_more, next=views[-1].id if found.has_more else None
            )

        return await control.read(work)

    @routes.get("/{id}", summary="Show a collection", responses=documented(404))
    async def show(asker: Asker, id: Identifier) -> CollectionView:  # noqa: A002 the route's name for it
        view = await control.read(lambda tx: shown(tx, asker, id))
        if retrieval is None:
            return view
        measured = (await retrieval()).recall(id)
        return view.model_copy(
            update={"recall": {kind: RecallView.model_validate(each) for kind, each in measured.items()}}
        )

    @routes.get("/{id}/advice", summary="Measure what a collection's index would take", responses=documented(404))
    async def advice(
        asker: Asker,
        id: Identifier,  # noqa: A002 as above
        rows: Annotated[int | None, Query(ge=1, le=10**9, description="For so many passages")] = None,
    ) -> AdviceView:
        await control.read(lambda tx: shown(tx, asker, id))
        found = await control.read(lambda tx: collection_store.by_id(tx, id))
        if retrieval is None or found is None:
            raise Unavailable("This server keeps no documents")
        made = await (await retrieval()).advice(found, rows)
        return AdviceView(**msgspec.structs.asdict(made))

    @routes.patch("/{id}", summary="Bound what may be in a collection", responses=documented(404))
    async def change(asker: Asker, id: Identifier, body: CollectionChangeBody) -> CollectionView:  # noqa: A002 as above
        def work(tx: Connection) -> CollectionView:
            before = shown(tx, asker, id)
            given = body.model_fields_set
            passages = body.quota_passages if "quota_passages" in given else before.quota_passages
            size = body.quota_bytes if "quota_bytes" in given else before.quota_bytes
            collection_store.bound(tx, id, passages, size)
            return shown(tx, asker, id)

        return await control.change(asker, "collection.change", id, work, before=lambda tx: shown(tx, asker, id))

    @routes.delete("/{id}", summary="Delete a collection and all that is in it", responses=documented(404))
    async def delete(asker: Asker, id: Identifier) -> Deleted:  # noqa: A002 as above
        await control.delete(
            asker,
            "collection.delete",
            id,
            lambda tx: collection_store.retire(tx, id),
            lambda tx: shown(tx, asker, id),
        )
        return Deleted(id=id)

    return routes


def shown(tx: Connection, asker: Principal, id_: str) -> CollectionView:
    """Raises NotFound, also for one that is not in sight."""
    found = collection_store.by_id(tx, id_)
    if found is None or not asker.reach.covers(found.org_id, found.team_id):
        raise NotFound(f"There is no collection {id_!r}", param="id", code="collection_not_found")
    return _view(found, collection_store.counts(tx, [id_])[id_])


def _view(one: Collection, counts: Counts) -> CollectionView:
    return CollectionView(
        id=one.id,
        name=one.name,
        key_id=one.key_id,
        team_id=one.team_id,
        org_id=one.org_id,
        embedding_model=one.model,
        embedding_version=one.version,
        dimensions=one.dimensions,
        access="labelled" if one.labelled else "open",
        quota_passages=one.quota_passages,
        quota_bytes=one.quota_bytes,
        engine=one.engine,
        quantization=one.quantization,
        prompts=None if one.prompts is None else msgspec.json.decode(one.prompts),
        chunking_strategy=None if one.chunking is None else chunking_view(one.chunking),
        tenancy=None if one.tenancy is None else TenancyView(**msgspec.structs.asdict(one.tenancy)),
        documents=CountsView(
            in_progress=counts.in_progress,
            completed=counts.completed,
            failed=counts.failed,
            cancelled=counts.cancelled,
            total=counts.total,
        ),
        passages=counts.passages,
        usage_bytes=counts.usage_bytes,
        generation=one.generation,
        created_at=at(one.created_at),
        last_active_at=at(one.last_active_at),
        expires_at=moment(one.expires_at),
    )
