"""`/admin/v1/documents`: files of vector stores that wait, are read or could not be read, over all stores; and those are tried again."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rest.collections import shown
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.payer import payer_of
from admin.rest.wire import After, Filter, Identifier, Limit, ListPage, StrictRoute, at
from gateway.errors import BadRequest
from gateway.settings import Section
from retrieval import backlog, collection_store
from retrieval.backlog import Entry
from retrieval.job_store import Waiting

MOST_FILES = 2000

State = Annotated[
    Literal["in_progress", "completed", "failed", "cancelled"] | None,
    Query(description="`failed`: what was given up. `in_progress`: what is read, or waits."),
]
FileId = Annotated[str, Field(min_length=1, max_length=200)]


class FaultView(BaseModel):
    code: str
    message: str


class WaitingView(BaseModel):
    """Why it was put off, after so many attempts that count, and when it is tried again."""

    reason: str
    attempts: int
    retry_at: datetime


class DocumentView(BaseModel):
    """`working`: a process reads it now. `key_id`: the key on whose account; null once it has ended."""

    collection_id: str
    file_id: str
    filename: str
    status: str
    last_error: FaultView | None
    working: bool
    attempts: int | None
    waiting: WaitingView | None
    key_id: str | None
    batch_id: str | None
    passages: int
    usage_bytes: int
    created_at: datetime


class RetryBody(Section):
    """`file_ids`: these, also if they were cancelled; without it, all that failed. `key_id` pays; default: the key that made the store."""

    file_ids: Annotated[tuple[FileId, ...], Field(min_length=1, max_length=MOST_FILES)] | None = None
    key_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class RetriedView(BaseModel):
    """The files that are read again."""

    collection_id: str
    file_ids: list[str]


def router(control: Control) -> APIRouter:
    routes = APIRouter(tags=["collections"], route_class=StrictRoute)

    @routes.get("/documents", summary="List files by what became of them, newest first", responses=documented())
    async def listed(
        *,
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        status: State = None,
        collection_id: Filter = None,
    ) -> ListPage[DocumentView]:
        cursor = _cursor(after)

        def work(tx: Connection) -> ListPage[DocumentView]:
            found = backlog.listed(
                tx,
                limit,
                after=cursor,
                status=status,
                collection_id=collection_id,
                org_id=asker.org_id,
                team_id=asker.team_id,
            )
            last = str(found.data[-1].id) if found.has_more else None
            return ListPage[DocumentView](data=[_view(each) for each in found.data], has_more=found.has_more, next=last)

        return await control.read(work)

    @routes.post(
        "/collections/{id}/documents/retry",
        summary="Read files again that failed or were cancelled",
        responses=documented(404),
    )
    async def retry(asker: Asker, id: Identifier, body: RetryBody) -> RetriedView:  # noqa: A002 the route's name for it
        def work(tx: Connection) -> RetriedView:
            shown(tx, asker, id)
            collection = collection_store.by_id(tx, id)
            assert collection is not None
            payer = payer_of(tx, asker, collection, body.key_id)
            found = backlog.retry(tx, collection, files=body.file_ids, payer=payer)
            missing = sorted(set(body.file_ids or ()) - set(found))
            if missing:
                raise BadRequest(
                    f"file_ids: {missing[0]} is not in {id}, or has neither failed nor been cancelled.",
                    param="file_ids",
                )
            return RetriedView(collection_id=id, file_ids=list(found))

        return await control.change(asker, "collection.retry", id, work)

    return routes


def _cursor(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        raise BadRequest("after: give the `next` of the page before.", param="after")
    return int(after)


def _view(one: Entry) -> DocumentView:
    fault = None
    if one.error_code is not None:
        fault = FaultView(code=one.error_code, message=one.error_message or "")
    return DocumentView(
        collection_id=one.collection_id,
        file_id=one.source_id,
        filename=one.filename,
        status=one.status,
        last_error=fault,
        working=one.working,
        attempts=one.attempts,
        waiting=None if one.waiting is None else _waiting(one.waiting),
        key_id=one.payer,
        batch_id=one.batch_id,
        passages=one.passages,
        usage_bytes=one.usage_bytes,
        created_at=at(one.created_at),
    )


def _waiting(one: Waiting) -> WaitingView:
    return WaitingView(reason=one.reason, attempts=one.attempts, retry_at=at(one.retry_at))
