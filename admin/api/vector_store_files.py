"""`/v1/vector_stores/{id}/files` and `…/file_batches`: which documents a collection has, and what becomes of them."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from admin.api.gate import key_of
from admin.api.progress import polled, shown
from admin.api.vector_store_wire import BatchBody, FileBody, FileChangeBody, batch_view, file_view
from admin.api.vector_stores import Limit, Order
from admin.api.wire import Cursor, answered, listing, read
from admin.documents import caller_of

if TYPE_CHECKING:  # loaded with the first request
    from retrieval.service import Retrieval

Status = Annotated[Literal["in_progress", "completed", "failed", "cancelled"] | None, Query(alias="filter")]


def router(retrieval: "Callable[[], Awaitable[Retrieval]]", draining: Callable[[], bool]) -> APIRouter:
    routes = APIRouter(prefix="/v1/vector_stores/{store_id}", include_in_schema=False)

    @routes.post("/files", summary="Add a file to a vector store")
    async def create(request: Request, store_id: str) -> Response:
        asked = await read(request, FileBody)
        plane = await retrieval()
        return polled(file_view(await plane.attach(caller_of(key_of(request.scope)), store_id, asked.wanted())))

    @routes.get("/files", summary="List a vector store's files")
    async def listed(
        request: Request,
        *,
        store_id: str,
        limit: Limit = 20,
        after: Cursor = None,
        before: Cursor = None,
        order: Order = "desc",
        status: Status = None,
    ) -> Response:
        plane = await retrieval()
        found = await plane.documents(
            caller_of(key_of(request.scope)), store_id, limit, after=after, before=before, order=order, status=status
        )
        return listing([file_view(each) for each in found.data], has_more=found.has_more)

    @routes.get("/files/{file_id}", summary="Retrieve a file of a vector store")
    async def retrieve(request: Request, store_id: str, file_id: str) -> Response:
        look = partial((await retrieval()).document, caller_of(key_of(request.scope)), store_id, file_id)
        return await shown(request, look, file_view, draining)

    @routes.post("/files/{file_id}", summary="Change a file's attributes")
    async def modify(request: Request, store_id: str, file_id: str) -> Response:
        asked = await read(request, FileChangeBody)
        plane = await retrieval()
        document = await plane.describe(
            caller_of(key_of(request.scope)), store_id, file_id, asked.attributes or {}, asked.access_labels
        )
        return answered(file_view(document))

    @routes.delete("/files/{file_id}", summary="Remove a file from a vector store")
    async def delete(request: Request, store_id: str, file_id: str) -> Response:
        plane = await retrieval()
        await plane.detach(caller_of(key_of(request.scope)), store_id, file_id)
        return answered({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})

    @routes.get("/files/{file_id}/content", summary="Retrieve the text of a file as it was read")
    async def content(request: Request, store_id: str, file_id: str) -> Response:
        plane = await retrieval()
        text = await plane.text(caller_of(key_of(request.scope)), store_id, file_id)
        page = {"object": "vector_store.file_content.page", "has_more": False, "next_page": None}
        return answered({**page, "data": [{"type": "text", "text": text}] if text else []})

    @routes.post("/file_batches", summary="Add files to a vector store")
    async def create_batch(request: Request, store_id: str) -> Response:
        asked = await read(request, BatchBody)
        plane = await retrieval()
        return polled(batch_view(await plane.add_batch(caller_of(key_of(request.scope)), store_id, asked.wanted())))

    @routes.get("/file_batches/{batch_id}", summary="Retrieve a batch of files")
    async def retrieve_batch(request: Request, store_id: str, batch_id: str) -> Response:
        look = partial((await retrieval()).batch, caller_of(key_of(request.scope)), store_id, batch_id)
        return await shown(request, look, batch_view, draining)

    @routes.post("/file_batches/{batch_id}/cancel", summary="Cancel a batch of files")
    async def cancel_batch(request: Request, store_id: str, batch_id: str) -> Response:
        plane = await retrieval()
        return answered(batch_view(await plane.cancel_batch(caller_of(key_of(request.scope)), store_id, batch_id)))

    @routes.get("/file_batches/{batch_id}/files", summary="List the files of a batch")
    async def listed_batch(
        request: Request,
        *,
        store_id: str,
        batch_id: str,
        limit: Limit = 20,
        after: Cursor = None,
        before: Cursor = None,
        order: Order = "desc",
        status: Status = None,
    ) -> Response:
        plane = await retrieval()
        found = await plane.documents(
            caller_of(key_of(request.scope)),
            store_id,
            limit,
            after=after,
            before=before,
            order=order,
            status=status,
            batch_id=batch_id,
        )
        return listing([file_view(each) for each in found.data], has_more=found.has_more)

    return routes
