"""`/v1/vector_stores`: collections of documents, and searches in them."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from admin.api.gate import key_of
from admin.api.progress import shown
from admin.api.search_wire import SearchBody, results_view, unsaid
from admin.api.vector_store_wire import StoreBody, StoreChangeBody, store_view, tenant_view
from admin.api.wire import Cursor, answered, listing, read
from admin.documents import caller_of, on_account
from admin.retrievers import Asker, Retrievers
from gateway.grounding import booking
from gateway.keys import Key

if TYPE_CHECKING:  # loaded with the first request
    from retrieval.service import Retrieval

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
TenantName = Annotated[str | None, Query(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]


def router(
    retrieval: "Callable[[], Awaitable[Retrieval]]",
    searchable: Callable[[], Awaitable[None]],
    search_id: Callable[[Key], str],
    retrievers: Retrievers,
    draining: Callable[[], bool],
) -> APIRouter:
    """`searchable` is told of each new store; `search_id` names a search for whoever wants to say something of it."""
    routes = APIRouter(prefix="/v1/vector_stores", include_in_schema=False)

    @routes.post("", summary="Create a vector store")
    async def create(request: Request) -> Response:
        asked = await read(request, StoreBody)
        plane = await retrieval()
        made = await plane.create(caller_of(key_of(request.scope)), asked.new(), asked.files())
        await searchable()
        return answered(store_view(made))

    @routes.get("", summary="List vector stores")
    async def listed(
        request: Request, *, limit: Limit = 20, after: Cursor = None, before: Cursor = None, order: Order = "desc"
    ) -> Response:
        plane = await retrieval()
        found = await plane.listed(caller_of(key_of(request.scope)), limit, after=after, before=before, order=order)
        return listing([store_view(each) for each in found.data], has_more=found.has_more)

    @routes.get("/{store_id}", summary="Retrieve a vector store")
    async def retrieve(request: Request, store_id: str) -> Response:
        look = partial((await retrieval()).get, caller_of(key_of(request.scope)), store_id)
        return await shown(request, look, store_view, draining)

    @routes.post("/{store_id}", summary="Modify a vector store")
    async def modify(request: Request, store_id: str) -> Response:
        asked = await read(request, StoreChangeBody)
        plane = await retrieval()
        return answered(store_view(await plane.change(caller_of(key_of(request.scope)), store_id, asked.change())))

    @routes.delete("/{store_id}", summary="Delete a vector store")
    async def delete(request: Request, store_id: str) -> Response:
        plane = await retrieval()
        await plane.delete(caller_of(key_of(request.scope)), store_id)
        return answered({"id": store_id, "object": "vector_store.deleted", "deleted": True})

    @routes.get("/{store_id}/tenants", summary="List a vector store's tenants")
    async def tenants(request: Request, store_id: str, *, limit: Limit = 20, after: TenantName = None) -> Response:
        plane = await retrieval()
        found = await plane.tenants(caller_of(key_of(request.scope)), store_id, limit, after)
        return listing([tenant_view(each) for each in found.data], has_more=found.has_more)

    @routes.delete("/{store_id}/tenants/{tenant:path}", summary="Delete a tenant's files from a vector store")
    async def delete_tenant(request: Request, store_id: str, tenant: str) -> Response:
        plane = await retrieval()
        gone = await plane.remove_tenant(caller_of(key_of(request.scope)), store_id, tenant)
        return answered({"id": tenant, "object": "vector_store.tenant.deleted", "deleted": True, "files": gone})

    @routes.post("/{store_id}/search", summary="Search a vector store")
    async def search(request: Request, store_id: str) -> Response:
        asked = await read(request, SearchBody)
        plane = await retrieval()
        key = key_of(request.scope)
        asker = Asker(search_id(key), unsaid(), request.headers.get("x-penstock-session"))
        caller = on_account(caller_of(key), booking.of(dict(request.headers.raw), asker.id))
        found, version = await retrievers.search(plane, caller, store_id, asked.question(), asker)
        within = found.partition
        recall = plane.recall(store_id, None if within is None else within.tenant)
        answer = answered(results_view(asked, found, recall))
        answer.headers["x-request-id"] = asker.id
        if version is not None:
            answer.headers["x-penstock-retriever"] = version
        return answer

    return routes
