"""How an error looks on the path that was called: clients of another API read their own shape, also where no handler was reached."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway import errors
from gateway.fronts import messages_errors
from gateway.ids import RequestIds
from gateway.native import faces as native

Body = Callable[[errors.GatewayError, str], bytes]


def _inference(error: errors.GatewayError, _: str) -> bytes:
    """As clients of the Open Inference Protocol read it."""
    return msgspec.json.encode({"error": error.message})


FACES: Final[Mapping[bytes, Body]] = MappingProxyType(
    {
        b"/v1/messages": messages_errors.body,
        b"/anthropic": messages_errors.body,
        b"/gemini": native.google,
        b"/bedrock": native.amazon,
        b"/v2/models": _inference,
        b"/v2/repository": _inference,
        b"/v2/health": _inference,
    }
)


def face(url: bytes, error: errors.GatewayError) -> tuple[bytes, bytes]:
    """Header lines and body for a request target. An API that has an id in its errors gets a new one."""
    body = face_of(url)
    if body is None:
        return b"", error.body()
    id_ = RequestIds().at(time.time())
    return b"x-request-id: %b\r\nrequest-id: %b\r\n" % (id_.encode(), id_.encode()), body(error, id_)


def face_of(url: bytes) -> Body | None:
    """None: OpenAI's."""
    for path, body in FACES.items():
        if url.startswith(path) and url[len(path) : len(path) + 1] in (b"", b"/", b"?"):
            return body
    return None
