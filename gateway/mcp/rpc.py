"""JSON-RPC 2.0 as the Model Context Protocol uses it: messages in, messages out. Pure."""

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.bodies import NULL
from gateway.wire import present

Id = int | str

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that begin with `initialize`."""
STATELESS_VERSIONS: Final = ("2026-07-28",)
"""Revisions in which every request says who sends it."""
NEWEST_HANDSHAKE: Final = HANDSHAKE_VERSIONS[-1]
MAX_ID: Final = 256


class Fault(msgspec.Struct, gc=False):
    code: int = INTERNAL_ERROR
    message: str = ""
    data: Raw = NULL


class Message(msgspec.Struct, gc=False):
    """A request (id and method), a notification (method), an answer (id and result) or an error (id and error)."""

    jsonrpc: Literal["2.0"]
    id: Id | UnsetType | None = UNSET
    method: str | None = None
    params: Raw = NULL
    result: Raw = NULL
    error: Fault | None = None

    @property
    def key(self) -> Id | None:
        """The id, if it is one."""
        found = self.id
        return None if isinstance(found, UnsetType) else found


class Progress(msgspec.Struct, gc=False):
    """`progress` grows; of `total`, if that is known."""

    progressToken: Id | None = None  # noqa: N815 — the protocol's name
    progress: float = 0.0
    total: float | None = None
    message: str | None = None


class Meta(msgspec.Struct, gc=False):
    progressToken: Id | None = None  # noqa: N815 — the protocol's name


class ToolParams(msgspec.Struct, gc=False):
    """Of `tools/call`."""

    name: str
    arguments: Raw = NULL
    _meta: Meta | None = None

    @property
    def token(self) -> Id | None:
        return None if self._meta is None else self._meta.progressToken


class CancelParams(msgspec.Struct, gc=False):
    requestId: Id  # noqa: N815 — the protocol's name
    reason: str | None = None


_message: Final = msgspec.json.Decoder(Message)
encode: Final = msgspec.json.Encoder().encode


def read(data: bytes | Raw) -> Message:
    """Raises ValueError for what is no message."""
    try:
        found = _message.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if isinstance(found.key, str) and len(found.key) > MAX_ID:
        raise ValueError("the id is too long")
    return found


def request(id_: Id, method: str, params: object = UNSET) -> bytes:
    return _made({"jsonrpc": "2.0", "id": id_, "method": method}, params)


def notification(method: str, params: object = UNSET) -> bytes:
    return _made({"jsonrpc": "2.0", "method": method}, params)


def answer(id_: Id | None, result: object) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id_, "result": result})


def fault(id_: Id | None, code: int, message: str, data: object = UNSET) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not UNSET:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": id_, "error": error})


def params_of(message: Message) -> Raw:
    """An object in any case."""
    return message.params if present(message.params) else Raw(b"{}")


def _made(fields: dict[str, object], params: object) -> bytes:
    return encode(fields if params is UNSET else fields | {"params": params})
