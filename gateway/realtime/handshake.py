"""What stands in the head of a WebSocket request: whether it is one, the key, the model. Browsers can set nothing but subprotocols."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from gateway import errors
from gateway.native.credentials import keyed

KEY: Final = "openai-insecure-api-key."
SPOKEN: Final = "realtime"
BETA: Final = "openai-beta.realtime-v1"
NAMED_ONCE: Final = (
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
)


class Asked(msgspec.Struct, frozen=True):
    """`headers` as every other request shows its key. `intent` is `transcription` where nothing is to be said."""

    headers: Mapping[bytes, bytes]
    model: str | None
    intent: str | None
    beta: bool
    offered: tuple[str, ...]


def asked(url: bytes, headers: Mapping[bytes, bytes]) -> Asked:
    offered = tuple(
        one.strip() for one in headers.get(b"sec-websocket-protocol", b"").decode("latin-1").split(",") if one.strip()
    )
    in_protocol = next((one.removeprefix(KEY) for one in offered if one.startswith(KEY)), None)
    query = parse_qs(url.partition(b"?")[2].decode("latin-1"))
    beta = BETA in offered or b"realtime=v1" in headers.get(b"openai-beta", b"")
    return Asked(
        keyed(headers, in_protocol), query.get("model", [None])[0], query.get("intent", [None])[0], beta, offered
    )


def is_upgrade(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"upgrade", b"").lower() == b"websocket"


def accepted(url: bytes, headers: Mapping[bytes, bytes], offered: tuple[str, ...]) -> Headers:
    """The header of the answer that switches. Raises BadRequest for a handshake that is none (RFC 6455 4.2.1)."""
    shown = Headers()
    for name in NAMED_ONCE:
        value = headers.get(name.encode())
        if value is not None:
            shown[name] = value.decode("latin-1")
    response = ServerProtocol().accept(Request(url.decode("latin-1"), shown))
    if response.status_code != 101:
        said = (response.body or b"").decode(errors="replace").strip()
        raise errors.BadRequest(said or "This is no WebSocket handshake", code="bad_handshake")
    if SPOKEN in offered:
        response.headers["Sec-WebSocket-Protocol"] = SPOKEN
    return response.headers
