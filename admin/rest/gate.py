"""What stands before the routes: who asks, and the last resort for what nobody expected.

Both are plain ASGI, outside of FastAPI: a body is neither read nor parsed for a caller without a credential.
"""

import traceback
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.identity import Identities
from admin.rbac import Principal
from gateway.errors import GatewayError, Internal, Overloaded, Unauthenticated
from gateway.ids import new_id

PREFIX = "/admin/v1"
INNER_FRAMES = 8  # the outer ones are the framework's
_PRINCIPAL = "penstock.principal"

log = structlog.get_logger(__name__)


class AdminGate:
    """Lets requests under `/admin/v1` through that show whose they are; the routes find it by `principal_of`."""

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app = app
        self._identities = identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _guarded(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            scope[_PRINCIPAL] = await self._identify(scope)
        except GatewayError as error:
            await answer(send, error)
            return
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> Principal:
        shown = _shown_key(scope)
        if shown is None:
            raise Unauthenticated("Show the admin key: `Authorization: Bearer …`.")
        try:
            return await self._identities.identify(shown)
        except SQLAlchemyError as error:
            log.warning("admin.database_unavailable", type=type(error).__name__)
            raise Overloaded(
                "The database does not answer right now; only the admin key is known without it. Try again.",
                code="database_unavailable",
                headers=(("retry-after", "1"),),
            ) from error


def principal_of(scope: Mapping[str, Any]) -> Principal:
    """Whom the gate let through."""
    found = scope[_PRINCIPAL]
    assert isinstance(found, Principal)
    return found


class LastResort:
    """Answers in our shape when a handler breaks, and logs why under an id that the answer names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            id_ = new_id("error")
            # Frames and the type, but no message: that of a database driver may quote values.
            frames = traceback.format_list(traceback.extract_tb(error.__traceback__)[-INNER_FRAMES:])
            log.error("admin.failed", error=id_, type=type(error).__name__, path=scope.get("path"), frames=frames)  # noqa: TRY400 — see above
            if started or scope["type"] != "http":
                raise
            await answer(send, Internal(f"Penstock failed to answer this. Its log says why, under {id_}."))


async def answer(send: Send, error: GatewayError) -> None:
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 11.6.1
    headers += [(name.encode(), value.encode()) for name, value in error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _guarded(path: str) -> bool:
    return path == PREFIX or path.startswith(PREFIX + "/")


def _shown_key(scope: Scope) -> bytes | None:
    """From `Authorization: Bearer`, `x-api-key` or `api-key`, in this order."""
    headers = dict(reversed(scope["headers"]))  # the first of several counts
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and credentials.strip():
        return bytes(credentials.strip())
    return headers.get(b"x-api-key") or headers.get(b"api-key") or None
