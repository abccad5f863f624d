"""How Google's API and Bedrock's say that something went wrong. OpenAI's and Anthropic's clients are served by what is there for them."""

from collections.abc import Mapping
from typing import Final, final

import msgspec

from gateway.errors import GatewayError
from gateway.native.eventstream import frame

# https://cloud.google.com/apis/design/errors: HTTP status → google.rpc.Code.
STATUSES: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
EXCEPTIONS: Final[Mapping[int, str]] = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    413: "ValidationException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}


def google(error: GatewayError, request_id: str) -> bytes:
    """`google.rpc.Status`, with our code as the reason of an `ErrorInfo`."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": (error.code or error.type).upper(),
        "domain": "penstock",
        "metadata": {"request_id": request_id},
    }
    status = STATUSES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    return msgspec.json.encode(
        {"error": {"code": error.status, "message": error.message, "status": status, "details": [info]}}
    )


def amazon(error: GatewayError, request_id: str) -> bytes:  # noqa: ARG001  # its clients read that in a header
    """The exception's name also stands in the body, where clients look if there is no header for it."""
    return msgspec.json.encode({"__type": exception(error), "message": f"{error.message} ({error.code or error.type})"})


def exception(error: GatewayError) -> str:
    return EXCEPTIONS.get(error.status, "ValidationException" if error.status < 500 else "InternalServerException")


@final
class Google:
    """`as_array`: a stream is one JSON array, else it has events."""

    def __init__(self, *, as_array: bool = False) -> None:
        self._as_array = as_array

    def error(self, error: GatewayError, request_id: str) -> bytes:
        return google(error, request_id)

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """A stream that has begun has an element already."""
        said = google(error, request_id)
        return b",\n%b]" % said if self._as_array else b"data: %b\n\n" % said


@final
class Amazon:
    def error(self, error: GatewayError, request_id: str) -> bytes:
        return amazon(error, request_id)

    def error_event(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002  # the head of the answer had it
        """An exception of the stream; its type is one that the operation's model knows."""
        name = "throttlingException" if error.status == 429 else "internalServerException"
        headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
        return frame(headers, msgspec.json.encode({"message": error.message}))
