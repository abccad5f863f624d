"""What is under way, as server-sent events instead of being asked for again and again: for who says `Accept: text/event-stream`.

event: progress     data: the object, as a GET shows it, whenever it is another one than before
event: completed    or failed, cancelled, as its status is in the end: nothing comes after it
event: error        data: OpenAI's error object; nothing comes after it, either
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from admin.api.wire import answered
from gateway.errors import GatewayError
from retrieval.errors import RetrievalError

POLL_MS: Final = "200"  # when to ask again, for the SDK's polling helpers
LOOK_S: Final = 0.2
LOOK_SELDOM_S: Final = 1.0  # after a minute in which nothing became of it
QUIET_S: Final = 60.0
HEARTBEAT_S: Final = 15.0
MOST_S: Final = 3600.0  # an EventSource comes back by itself
MEDIA_TYPE: Final = "text/event-stream"

T = TypeVar("T")
View = dict[str, object]


def wanted(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "").lower()


def polled(view: View) -> Response:
    """Something to wait for says how long."""
    response = answered(view)
    if view["status"] == "in_progress":
        response.headers["openai-poll-after-ms"] = POLL_MS
    return response


async def shown(
    request: Request, look: Callable[[], Awaitable[T]], view: Callable[[T], View], draining: Callable[[], bool]
) -> Response:
    """The object as it is, or as it becomes. Raises what `look` raises the first time."""

    async def viewed() -> View:
        return view(await look())

    first = await viewed()
    if not wanted(request):
        return polled(first)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(_events(first, viewed, draining), media_type=MEDIA_TYPE, headers=headers)


async def _events(
    first: View, look: Callable[[], Awaitable[View]], draining: Callable[[], bool]
) -> AsyncIterator[bytes]:
    began = changed = told = time.monotonic()
    view = first
    yield _event(view)
    while view["status"] == "in_progress" and not draining() and told - began < MOST_S:
        quiet = time.monotonic() - changed > QUIET_S
        await asyncio.sleep(LOOK_SELDOM_S if quiet else LOOK_S)
        try:
            now = await look()
        except (RetrievalError, GatewayError) as error:  # it was deleted, or the database is away
            fault = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
            yield b"event: error\ndata: " + msgspec.json.encode({"error": fault}) + b"\n\n"
            return
        if now != view:
            view, changed = now, time.monotonic()
            told = changed
            yield _event(view)
        elif time.monotonic() - told > HEARTBEAT_S:
            told = time.monotonic()
            yield b": waiting\n\n"


def _event(view: View) -> bytes:
    status = str(view["status"])
    name = "progress" if status == "in_progress" else status
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode(view) + b"\n\n"
