"""`/admin/v1/collections/{id}/reembeddings`: another embedding model for a collection, or another cut of its
documents, while it goes on being searched and filled.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rbac import Principal
from admin.rest.collections import shown
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.payer import payer_of
from admin.rest.reembedding_bodies import (
    CanaryBody,
    PromoteBody,
    ReembeddingBody,
    ReembeddingView,
    StopBody,
    terms,
    view,
)
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute
from gateway.errors import NotFound
from retrieval import collection_store
from retrieval.collection_store import Collection
from retrieval.errors import Unavailable
from retrieval.reembedding import moves, store
from retrieval.reembedding.record import Reembedding
from retrieval.spaces import Space

if TYPE_CHECKING:
    from retrieval.service import Retrieval


Plane = Callable[[], Awaitable["Retrieval"]]
Move = Callable[[Connection, str, str, Any, Principal], Reembedding]


def _stop(path: str, work: Callable[[Connection, str, str, str | None], Reembedding]) -> Move:
    return lambda tx, id_, one, body, asker: work(tx, id_, one, body.reason or f"{path} by {asker.actor}")


MOVES: Mapping[str, tuple[str, type[BaseModel], Move]] = {
    "canary": (
        "Let some keys read the new version",
        CanaryBody,
        lambda tx, id_, one, body, _: moves.lend(tx, id_, one, body.share, body.keys),
    ),
    "promote": (
        "Let everybody read the new version, at once",
        PromoteBody,
        lambda tx, id_, one, body, _: moves.promote(tx, id_, one, force=body.force),
    ),
    "rollback": (
        "Let everybody read the old version again, at once",
        StopBody,
        _stop("rollback", moves.roll_back),
    ),
    "finish": (
        "Take the old version away, and the way back with it",
        StopBody,
        _stop("finish", moves.finish),
    ),
    "cancel": ("Give it up, with what was embedded", StopBody, _stop("cancel", moves.cancel)),
    "resume": (
        "Go on with one that failed",
        StopBody,
        lambda tx, id_, one, _body, _asker: moves.resume(tx, id_, one),
    ),
}


def router(control: Control, retrieval: Plane | None, notice: Callable[[], None]) -> APIRouter:
    """`notice` is told that there is something to do."""
    routes = APIRouter(prefix="/collections/{id}/reembeddings", tags=["collections"], route_class=StrictRoute)
    _begin(routes, control, retrieval, notice)
    _look(routes, control)
    _move(routes, control, notice)
    return routes


def _begin(routes: APIRouter, control: Control, retrieval: Plane | None, notice: Callable[[], None]) -> None:
    @routes.post(
        "", summary="Embed a collection anew, or cut it anew as well", status_code=201, responses=documented(404, 409)
    )
    async def begin(asker: Asker, id: Identifier, body: ReembeddingBody, request: Request) -> Response:  # noqa: A002 the route's name for it
        def asked(tx: Connection) -> tuple[Collection, str]:
            collection = _seen(tx, asker, id)
            return collection, payer_of(tx, asker, collection, body.key_id)

        collection, payer = await control.read(asked)
        if retrieval is None:
            raise Unavailable("This server keeps no documents")
        plane = await retrieval()
        backfill = plane.backfill
        wanted = _space(body, collection)
        backfill.require(wanted.model, payer)
        strategy = body.chunking_strategy
        chunking = None if strategy is None else plane.cut(payer, wanted.model, strategy.asked())
        wanted = msgspec.structs.replace(wanted, prompts=backfill.prompts(wanted.model))
        backfill.require_engine(wanted.engine, apart=collection.tenancy is not None)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            _seen(tx, asker, id)
            made = moves.begin(tx, id, wanted, payer, terms(body), chunking)
            if body.canary is not None:
                made = moves.lend(tx, id, made.id, body.canary.share, body.canary.keys)
            return made.id, _view(tx, asker, made)

        answer = await control.create(request, asker, "reembedding.begin", work)
        notice()
        return answer


def _look(routes: APIRouter, control: Control) -> None:
    @routes.get("", summary="List a collection's re-embeddings, newest first", responses=documented(404))
    async def listed(
        asker: Asker,
        id: Identifier,  # noqa: A002 as above
        limit: Limit = 100,
        after: After = None,
    ) -> ListPage[ReembeddingView]:
        def work(tx: Connection) -> ListPage[ReembeddingView]:
            _seen(tx, asker, id)
            found = store.listed(tx, id, limit, after)
            views = [_view(tx, asker, each) for each in found]
            return ListPage[ReembeddingView].cut(views, limit, lambda one: one.id)

        return await control.read(work)

    @routes.get("/{reembedding}", summary="Show a re-embedding with its progress", responses=documented(404))
    async def show(asker: Asker, id: Identifier, reembedding: Identifier) -> ReembeddingView:  # noqa: A002 as above
        return await control.read(lambda tx: _view(tx, asker, _found(tx, asker, id, reembedding)))


def _move(routes: APIRouter, control: Control, notice: Callable[[], None]) -> None:
    def move(path: str, summary: str, body_type: type[BaseModel], work: Move) -> None:
        async def moved(asker: Asker, id: Identifier, reembedding: Identifier, body: Any = None) -> ReembeddingView:  # noqa: A002 as above
            made = await control.change(
                asker,
                f"reembedding.{path}",
                id,
                lambda tx: _view(tx, asker, work(tx, id, reembedding, body or body_type(), asker)),
                before=lambda tx: _view(tx, asker, _found(tx, asker, id, reembedding)),
            )
            notice()
            return made

        moved.__annotations__["body"] = body_type | None
        routes.post(
            f"/{{reembedding}}/{path}",
            summary=summary,
            responses=documented(404, 409),
            operation_id=f"{path}_reembedding",
        )(moved)

    for path, (summary, body_type, work) in MOVES.items():
        move(path, summary, body_type, work)


def _seen(tx: Connection, asker: Principal, id_: str) -> Collection:
    """Raises NotFound, also for one that is not in sight."""
    shown(tx, asker, id_)
    found = collection_store.by_id(tx, id_)
    assert found is not None, "it was shown in this transaction"
    return found


def _found(tx: Connection, asker: Principal, id_: str, reembedding: str) -> Reembedding:
    """Raises NotFound, also for one that is not in sight."""
    _seen(tx, asker, id_)
    found = store.by_id(tx, id_, reembedding)
    if found is None:
        raise NotFound(f"There is no re-embedding {reembedding!r} of {id_!r}", code="reembedding_not_found")
    return found


def _view(tx: Connection, asker: Principal, one: Reembedding) -> ReembeddingView:
    collection = _seen(tx, asker, one.collection_id)
    return view(tx, collection, one)


def _space(body: ReembeddingBody, collection: Collection) -> Space:
    """What is wanted, and for the rest what there is."""
    engine = body.engine if "engine" in body.model_fields_set else collection.engine
    model, quantization = body.embedding_model or collection.model, body.quantization or collection.quantization
    return Space(0, model, None, body.dimensions, engine, quantization)
