"""Errors as Anthropic's clients read them: https://docs.claude.com/en/api/errors. Status and headers stay the gateway's."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.errors import GatewayError

TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
TOO_LONG: Final = "prompt is too long"  # the words by which clients know that they have to shorten their conversation


class _Error(msgspec.Struct, frozen=True):
    type: str
    message: str


class _Envelope(msgspec.Struct, frozen=True):
    error: _Error
    request_id: str
    type: str = "error"


def kind(status: int) -> str:
    """Anthropic's type for a status: a type of its own, or whose fault it is."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def body(error: GatewayError, request_id: str) -> bytes:
    """The JSON of an error's answer."""
    message = error.message
    if error.code == "context_length_exceeded" and TOO_LONG not in message:
        message = f"{TOO_LONG}: {message}"
    return msgspec.json.encode(_Envelope(_Error(kind(error.status), message), request_id))


def event(error: GatewayError, request_id: str) -> bytes:
    """The same inside a stream that has begun. No `message_stop` follows it."""
    return b"event: error\ndata: %b\n\n" % body(error, request_id)
