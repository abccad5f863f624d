"""What the endpoint says: the handshake, lists in pages, errors as JSON-RPC has them, and what newer clients read beside that. Pure."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.mcp import rpc
from gateway.mcp.errors import ToolRefused, UnknownTool
from gateway.mcp.rights import federated
from gateway.mcp.tools import Tool
from gateway.wire import present

Json = dict[str, object]

PAGE: Final = 200
FRESH_MS: Final = 5_000  # how long a client of the stateless protocol may keep a list
INFO: Final = {"name": "penstock", "title": "Penstock", "version": "1"}
CAPABILITIES: Final = {"tools": {"listChanged": True}}
CHANGED: Final = "notifications/tools/list_changed"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
STATUSES: Final[Mapping[int, int]] = {
    rpc.METHOD_NOT_FOUND: 404,
    rpc.PARSE_ERROR: 400,
    rpc.INVALID_REQUEST: 400,
    rpc.INVALID_PARAMS: 400,
    rpc.HEADER_MISMATCH: 400,
    rpc.UNSUPPORTED_VERSION: 400,
}


class Refusal(Exception):
    """A JSON-RPC error, as the answer to one message."""

    def __init__(self, code: int, message: str, data: object = msgspec.UNSET) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class _Initialize(msgspec.Struct, gc=False):
    protocolVersion: str  # noqa: N815 — the protocol's name


class _List(msgspec.Struct, gc=False):
    cursor: str | None = None


_initialize: Final = msgspec.json.Decoder(_Initialize)
_list: Final = msgspec.json.Decoder(_List)
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_text: Final = msgspec.json.Decoder(str)
_call: Final = msgspec.json.Decoder(rpc.ToolParams)


def initialized(params: Raw, instructions: str) -> Json:
    """The client's version if it is known here, else the newest. Raises Refusal."""
    try:
        asked = _initialize.decode(params).protocolVersion
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(rpc.INVALID_PARAMS, f"Invalid params: {error}") from None
    version = asked if asked in rpc.HANDSHAKE_VERSIONS else rpc.NEWEST_HANDSHAKE
    return {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO, "instructions": instructions}


def discovered(instructions: str) -> Json:
    return {
        "supportedVersions": [*rpc.HANDSHAKE_VERSIONS, *rpc.STATELESS_VERSIONS],
        "capabilities": CAPABILITIES,
        "instructions": instructions,
    }


def page(tools: Sequence[Tool], params: Raw, *, plain: bool) -> Json:
    """`plain`: under their own names, as they are all of one server. Raises Refusal for a cursor that was not given out here."""
    after = _after(params)
    named = [(federated(tool.server, tool.name), tool) for tool in tools]
    rest = [(name, tool) for name, tool in sorted(named, key=lambda pair: pair[0]) if after is None or name > after]
    shown = rest[:PAGE]
    made: Json = {"tools": [tool.shown(tool.name if plain else name) for name, tool in shown]}
    if len(rest) > PAGE:
        made["nextCursor"] = base64.urlsafe_b64encode(shown[-1][0].encode()).decode()
    return made


def call_params(params: Raw) -> rpc.ToolParams:
    """Raises Refusal."""
    try:
        found = _call.decode(params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(rpc.INVALID_PARAMS, f"Invalid params: {error}") from None
    if present(found.arguments) and not bytes(found.arguments).startswith(b"{"):
        raise Refusal(rpc.INVALID_PARAMS, "Invalid params: arguments has to be an object")
    return found


def refusal_of(error: errors.GatewayError) -> Refusal:
    """An error of the gateway as JSON-RPC's. What it is in OpenAI's words stands in `data`."""
    if isinstance(error, UnknownTool):
        return Refusal(rpc.INVALID_PARAMS, error.message)
    if isinstance(error, ToolRefused):
        return Refusal(error.number, error.message)
    data: Json = {"type": error.type, "code": error.code, "status": error.status}
    waits = dict(error.headers).get("retry-after")
    return Refusal(rpc.SERVER_ERROR, error.message, data if waits is None else data | {"retry_after": waits})


def complete(result: object) -> object:
    """A result as clients of the stateless protocol read it."""
    fields = _object.decode(result) if isinstance(result, Raw) else result
    assert isinstance(fields, dict)
    made = {"resultType": "complete", **fields}
    if "tools" in fields or "supportedVersions" in fields:
        made |= {"ttlMs": FRESH_MS, "cacheScope": "private"}
    return made


def check_envelope(message: rpc.Message, headers: Mapping[bytes, bytes]) -> None:
    """What a request of the stateless protocol says of itself, in its body and in its headers alike. Raises Refusal."""
    try:
        params = _object.decode(rpc.params_of(message))
        meta = _object.decode(params.get("_meta", NULL))
        version = _text.decode(meta[VERSION_KEY])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        raise Refusal(rpc.INVALID_PARAMS, f"params._meta has to carry {VERSION_KEY} and {CLIENT_KEY}") from None
    if CLIENT_KEY not in meta:
        raise Refusal(rpc.INVALID_PARAMS, f"params._meta is without {CLIENT_KEY}")
    named = _decoded(headers.get(b"mcp-name")) if message.method == "tools/call" else None
    told = (
        headers.get(b"mcp-protocol-version", b"").decode("latin-1"),
        headers.get(b"mcp-method", b"").decode("latin-1"),
    )
    if told != (version, message.method):
        raise Refusal(
            rpc.HEADER_MISMATCH, "The headers mcp-protocol-version and mcp-method do not say what the body says"
        )
    if message.method == "tools/call" and "name" in params and named != _name(params["name"]):
        raise Refusal(rpc.HEADER_MISMATCH, "The header mcp-name does not say what the body says")
    if version not in rpc.STATELESS_VERSIONS:
        known = [*rpc.STATELESS_VERSIONS]
        raise Refusal(
            rpc.UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": known, "requested": version}
        )


def event(message: bytes) -> bytes:
    """A message on a stream."""
    return b"event: message\ndata: %b\n\n" % message


def _after(params: Raw) -> str | None:
    try:
        cursor = _list.decode(params).cursor
        return None if cursor is None else base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (msgspec.DecodeError, binascii.Error, UnicodeError, ValueError):
        raise Refusal(rpc.INVALID_PARAMS, "Invalid cursor") from None


def _name(raw: Raw) -> str | None:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _decoded(header: bytes | None) -> str | None:
    """Names that are no plain text come as `=?base64?…?=`."""
    if header is None:
        return None
    text = header.decode("latin-1")
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    try:
        return base64.b64decode(text[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeError):
        return None
