"""What stands before files, uploads, batches, vector stores and feedback: the virtual key, checked before a body is read.

Plain ASGI, outside of FastAPI, as `admin.rest.gate` is for the admin plane.
"""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from admin.rest.gate import answer
from gateway.authentication import Authenticator
from gateway.errors import AccessDenied, GatewayError
from gateway.keys import Key
from gateway.snapshot import Current

PREFIXES = ("/v1/files", "/v1/uploads", "/v1/batches", "/v1/vector_stores", "/v1/feedback")
_KEY = "penstock.key"


def identity(current: Current, authenticator: Authenticator) -> Callable[[Mapping[bytes, bytes]], Key]:
    """Whose a request is, by its headers. Raises Unauthenticated, KeyExpired, AccessDenied."""
    return lambda headers: authenticator.caller(current.snapshot, headers)


class KeyGate:
    """Lets requests through that show a key for their path; the routes find it by `key_of`."""

    def __init__(
        self,
        app: ASGIApp,
        identify: Callable[[Mapping[bytes, bytes]], Key],
        entered: Callable[[Mapping[bytes, bytes]], None],
    ) -> None:
        """`entered` is told the headers of those that are let in, in the request's own context."""
        self._entered = entered
        self._app = app
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (prefix := _prefix(scope["path"])) is not None:
            try:
                headers = dict(scope["headers"])
                key = self._identify(headers)
                if not (key.may_call(prefix) or key.may_call(scope["path"])):
                    raise AccessDenied(f"This key may not call {prefix}", code="route_access_denied")
            except GatewayError as error:
                await answer(send, error)
                return
            scope[_KEY] = key
            self._entered(headers)
        await self._app(scope, receive, send)


def key_of(scope: Mapping[str, Any]) -> Key:
    """Whom the gate let through."""
    found = scope[_KEY]
    assert isinstance(found, Key)
    return found


def _prefix(path: str) -> str | None:
    return next((prefix for prefix in PREFIXES if path == prefix or path.startswith(prefix + "/")), None)
