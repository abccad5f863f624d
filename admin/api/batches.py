"""`/v1/batches`: files of calls that are served in the background."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from admin.api.gate import key_of
from admin.api.wire import Cursor, Strict, answered, listing, read, seconds
from gateway.batches.batches import Batches, window_s
from gateway.batches.store import Batch, NewBatch
from gateway.errors import BadRequest

MAX_WINDOW_S = 30 * 86_400
MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class OutputExpiresAfter(Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class Asked(Strict):
    input_file_id: Annotated[str, Field(min_length=1, max_length=200)]
    endpoint: Annotated[str, Field(min_length=1, max_length=200)]
    completion_window: Annotated[str, Field(min_length=2, max_length=16)]
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None, Field(max_length=16)
    ] = None
    output_expires_after: OutputExpiresAfter | None = None


def router(batches: Batches) -> APIRouter:
    routes = APIRouter(prefix="/v1/batches", include_in_schema=False)

    @routes.post("", summary="Create a batch")
    async def create(request: Request) -> Response:
        asked = await read(request, Asked)
        window = window_s(asked.completion_window)
        if window is None or window > MAX_WINDOW_S:
            raise BadRequest(
                f"'{asked.completion_window}' is not a completion window: 24h, or another time in s, m, h or d up to 30d",
                param="completion_window",
                code="invalid_value",
            )
        keep = asked.output_expires_after
        new = NewBatch(
            asked.endpoint,
            asked.input_file_id,
            asked.completion_window,
            window,
            asked.metadata,
            None if keep is None else keep.seconds,
        )
        return answered(view(await batches.create(key_of(request.scope), new)))

    @routes.get("", summary="List batches")
    async def listed(
        request: Request, *, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: Cursor = None
    ) -> Response:
        found = await batches.listed(key_of(request.scope), limit, after)
        return listing([view(batch) for batch in found.data], has_more=found.next is not None)

    @routes.get("/{batch_id}", summary="Retrieve a batch")
    async def retrieve(request: Request, batch_id: str) -> Response:
        return answered(view(await batches.get(key_of(request.scope), batch_id)))

    @routes.post("/{batch_id}/cancel", summary="Cancel a batch")
    async def cancel(request: Request, batch_id: str) -> Response:
        return answered(view(await batches.cancel(key_of(request.scope), batch_id)))

    return routes


def view(batch: Batch) -> dict[str, object]:
    """As OpenAI shows a batch. Its files are shown once they are there."""
    ended = batch.status == batch.outcome
    errors = None if batch.errors is None else {"object": "list", "data": list(batch.errors)}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": errors,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id if ended else None,
        "error_file_id": batch.error_file_id if ended else None,
        "created_at": seconds(batch.created_at),
        "expires_at": seconds(batch.expires_at),
        **{f"{name}_at": seconds(batch.moments.get(name)) for name in MOMENTS},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch),
        "metadata": batch.metadata,
    }


def _usage(batch: Batch) -> dict[str, object] | None:
    used = batch.usage
    if used is None:
        return None
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }
