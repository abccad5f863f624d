"""`/admin/v1/collections/{id}/snapshots`: copies of collections with a checksum, and new collections made from them."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Engine

from admin.documents import database_of
from admin.rbac import Principal
from admin.rest.collections import CollectionView, shown
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import Deleted, Identifier, ListPage, StrictRoute, at
from gateway.errors import NotFound
from retrieval import snapshots
from retrieval.snapshots import Snapshot

T = TypeVar("T")


class SnapshotView(BaseModel):
    """`sha256` is that of the file with all documents and passages."""

    id: str
    collection_id: str
    team_id: str | None
    org_id: str | None
    documents: int
    passages: int
    bytes: int
    sha256: str
    created_at: datetime


def router(control: Control, engine: Engine, folder: Path) -> APIRouter:
    routes = APIRouter(prefix="/collections/{id}/snapshots", tags=["collections"], route_class=StrictRoute)
    database = database_of(engine)

    async def aside(work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def found(asker: Principal, id_: str, snapshot: str) -> Snapshot:
        """Raises NotFound, also for one that is not in sight."""
        for each in await aside(lambda: snapshots.listed(folder, id_)):
            if each.id == snapshot and asker.reach.covers(each.org_id, each.team_id):
                return each
        raise NotFound(f"There is no snapshot {snapshot!r} of {id_!r}", param="snapshot", code="snapshot_not_found")

    @routes.post("", summary="Take a snapshot of a collection", status_code=201, responses=documented(404))
    async def take(asker: Asker, id: Identifier) -> SnapshotView:  # noqa: A002 the route's name for it
        await control.read(lambda tx: shown(tx, asker, id))
        view = _view(await aside(lambda: snapshots.take(database, folder, id)))
        return await control.change(asker, "collection.snapshot", id, lambda _: view)

    @routes.get("", summary="List the snapshots of a collection, newest first", responses=documented())
    async def listed(asker: Asker, id: Identifier) -> ListPage[SnapshotView]:  # noqa: A002 as above
        known = await aside(lambda: snapshots.listed(folder, id))
        views = [_view(each) for each in known if asker.reach.covers(each.org_id, each.team_id)]
        return ListPage[SnapshotView](data=views, has_more=False, next=None)

    @routes.post(
        "/{snapshot}/restore",
        summary="Make a new collection of a snapshot, whose checksum must be right",
        status_code=201,
        responses=documented(404, 409),
    )
    async def restore(asker: Asker, id: Identifier, snapshot: Identifier) -> CollectionView:  # noqa: A002 as above
        known = await found(asker, id, snapshot)
        made = await aside(lambda: snapshots.restore(database, folder, id, known.id))
        return await control.change(asker, "collection.restore", made.id, lambda tx: shown(tx, asker, made.id))

    @routes.delete("/{snapshot}", summary="Delete a snapshot", responses=documented(404))
    async def delete(asker: Asker, id: Identifier, snapshot: Identifier) -> Deleted:  # noqa: A002 as above
        view = _view(await found(asker, id, snapshot))
        await control.delete(
            asker,
            "collection.snapshot_delete",
            id,
            lambda _: snapshots.delete(folder, id, snapshot),
            lambda _: view,
        )
        return Deleted(id=snapshot)

    return routes


def _view(one: Snapshot) -> SnapshotView:
    return SnapshotView(
        id=one.id,
        collection_id=one.collection_id,
        team_id=one.team_id,
        org_id=one.org_id,
        documents=one.documents,
        passages=one.passages,
        bytes=one.bytes,
        sha256=one.sha256,
        created_at=at(one.created_at),
    )
