"""`/v1/files`: what clients keep here."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from admin.api import multipart
from admin.api.gate import key_of
from admin.api.wire import Cursor, ExpiresAfter, Strict, answered, checked, listing, seconds
from gateway.errors import BadRequest
from gateway.files import store
from gateway.files.keeper import Files
from gateway.files.store import File

MAX_LISTED = 10_000
FORM_BYTES = 65_536  # what a form has around its file


class NewFile(Strict):
    """The fields beside the file itself."""

    purpose: str
    expires_after: ExpiresAfter | None = None


def router(files: Files) -> APIRouter:
    routes = APIRouter(prefix="/v1/files", include_in_schema=False)

    @routes.post("", summary="Upload a file")
    async def create(request: Request) -> Response:
        key = key_of(request.scope)
        announced = int(request.headers.get("content-length", "0"))
        await files.require_room(key, max(0, announced - FORM_BYTES))
        id_ = store.new_id()
        with files.shelf.incoming(id_) as incoming:
            form = await multipart.receive(
                request.headers.get("content-type", ""),
                request.stream(),
                incoming,
                file_field="file",
                limit=files.terms.max_bytes,
            )
            new = checked(NewFile, _fields(form))
            keep_s = None if new.expires_after is None else new.expires_after.seconds
            require_purpose(new.purpose)
            file = await files.keep(key, id_, incoming, purpose=new.purpose, filename=form.filename, keep_s=keep_s)
        return answered(view(file))

    @routes.get("", summary="List files")
    async def listed(
        request: Request,
        *,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
        after: Cursor = None,
        purpose: Annotated[str | None, Query(max_length=64)] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        found = await files.listed(key_of(request.scope), limit, after=after, purpose=purpose, order=order)
        return listing([view(file) for file in found.data], has_more=found.next is not None)

    @routes.get("/{file_id}", summary="Retrieve a file")
    async def retrieve(request: Request, file_id: str) -> Response:
        return answered(view(await files.get(key_of(request.scope), file_id)))

    @routes.get("/{file_id}/content", summary="Retrieve a file's content")
    async def content(request: Request, file_id: str) -> Response:
        file, path = await files.content(key_of(request.scope), file_id)
        return FileResponse(path, media_type="application/octet-stream", filename=file.filename)

    @routes.delete("/{file_id}", summary="Delete a file")
    async def delete(request: Request, file_id: str) -> Response:
        await files.delete(key_of(request.scope), file_id)
        return answered({"id": file_id, "object": "file", "deleted": True})

    return routes


def view(file: File) -> dict[str, object]:
    """As OpenAI shows a file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": seconds(file.created_at),
        "expires_at": seconds(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def require_purpose(purpose: str) -> None:
    """Raises BadRequest."""
    if purpose not in store.PURPOSES:
        known = ", ".join(sorted(store.PURPOSES))
        raise BadRequest(f"'{purpose}' is not a purpose of a file: {known}", param="purpose", code="invalid_purpose")


def _fields(form: multipart.Form) -> dict[str, object]:
    """`expires_after[seconds]` is how a form nests."""
    fields: dict[str, object] = {
        name: value for name, value in form.fields.items() if not name.startswith("expires_after[")
    }
    nested = {name[14:-1]: value for name, value in form.fields.items() if name.startswith("expires_after[")}
    return {**fields, "expires_after": nested} if nested else fields
