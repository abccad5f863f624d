"""`/v1/uploads`: files that come in parts."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from admin.api import multipart
from admin.api.files import require_purpose
from admin.api.files import view as file_view
from admin.api.gate import key_of
from admin.api.wire import ExpiresAfter, Strict, answered, read, seconds
from gateway.errors import BodyTooLarge
from gateway.files import upload_store
from gateway.files.keeper import Files
from gateway.files.store import File
from gateway.files.upload_store import Upload

MAX_PART_BYTES = 64 << 20  # as at OpenAI
PartId = Annotated[str, Field(min_length=1, max_length=200)]


class NewUpload(Strict):
    bytes: Annotated[int, Field(ge=1)]
    filename: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")]
    mime_type: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]
    purpose: str
    expires_after: ExpiresAfter | None = None


class Completion(Strict):
    part_ids: Annotated[tuple[PartId, ...], Field(min_length=1, max_length=upload_store.MAX_PARTS)]
    md5: Annotated[str | None, Field(pattern=r"^[0-9a-fA-F]{32}$")] = None


def router(files: Files) -> APIRouter:
    routes = APIRouter(prefix="/v1/uploads", include_in_schema=False)

    @routes.post("", summary="Announce a file that comes in parts")
    async def create(request: Request) -> Response:
        new = await read(request, NewUpload)
        require_purpose(new.purpose)
        if new.bytes > files.terms.max_bytes:
            raise BodyTooLarge(f"A file may have {files.terms.max_bytes:,} bytes", param="bytes", code="file_too_large")
        upload = await files.start_upload(
            key_of(request.scope),
            purpose=new.purpose,
            filename=new.filename,
            size=new.bytes,
            mime_type=new.mime_type,
            keep_s=None if new.expires_after is None else new.expires_after.seconds,
        )
        return answered(view(upload))

    @routes.post("/{upload_id}/parts", summary="Add a part")
    async def add(request: Request, upload_id: str) -> Response:
        key = key_of(request.scope)
        upload = await files.pending_upload(key, upload_id)
        id_ = upload_store.part_id()
        with files.shelf.incoming(id_) as incoming:
            await multipart.receive(
                request.headers.get("content-type", ""),
                request.stream(),
                incoming,
                file_field="data",
                limit=min(MAX_PART_BYTES, upload.bytes),
            )
            part = await files.keep_part(key, upload_id, id_, incoming)
        created = seconds(part.created_at)
        return answered({"id": part.id, "object": "upload.part", "created_at": created, "upload_id": upload_id})

    @routes.post("/{upload_id}/complete", summary="Make a file of the parts")
    async def complete(request: Request, upload_id: str) -> Response:
        asked = await read(request, Completion)
        upload, file = await files.complete_upload(key_of(request.scope), upload_id, asked.part_ids, asked.md5)
        return answered(view(upload, file))

    @routes.post("/{upload_id}/cancel", summary="Give an upload up")
    async def cancel(request: Request, upload_id: str) -> Response:
        return answered(view(await files.cancel_upload(key_of(request.scope), upload_id)))

    return routes


def view(upload: Upload, file: File | None = None) -> dict[str, object]:
    """As OpenAI shows an upload."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": seconds(upload.created_at),
        "expires_at": seconds(upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": None if file is None else file_view(file),
    }
