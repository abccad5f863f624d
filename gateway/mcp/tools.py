"""Tools as servers describe them, checked, and as they are offered under another name."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.mcp.rights import admitted

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MAX_TOOL_BYTES: Final = 256 * 1024
_SHOWN: Final = ("title", "description", "inputSchema", "outputSchema", "annotations", "icons", "_meta")

RawObject = dict[str, Raw]


class Tool(msgspec.Struct, frozen=True):
    """`fields` are what the server says of it, but its name."""

    server: str
    name: str
    fields: Mapping[str, Raw]

    def shown(self, name: str) -> dict[str, object]:
        """As `tools/list` has it."""
        return {"name": name, **self.fields}


class Hints(msgspec.Struct, gc=False):
    readOnlyHint: bool | None = None  # noqa: N815 — the protocol's name


class Result(msgspec.Struct, gc=False):
    """What is read of a call's result; it goes on as it came."""

    content: list[Raw] = []
    isError: bool | None = None  # noqa: N815 — the protocol's name
    structuredContent: Raw = NULL  # noqa: N815 — the protocol's name


_object: Final = msgspec.json.Decoder(RawObject)
_text: Final = msgspec.json.Decoder(str)
_result: Final = msgspec.json.Decoder(Result)
_hints: Final = msgspec.json.Decoder(Hints)


def offered(server: str, described: Sequence[Raw], only: Sequence[str] | None) -> tuple[dict[str, Tool], int]:
    """Those that can be offered by name, and how many cannot: nameless, twice there, too large, or without a schema."""
    found: dict[str, Tool] = {}
    left = 0
    for one in described:
        tool = _tool(server, one)
        if tool is None or tool.name in found:
            left += 1
        elif only is None or admitted(only, tool.name):
            found[tool.name] = tool
    return found, left


def read_result(result: Raw, where: str) -> Result:
    """Raises UpstreamError for what is no result of a tool."""
    try:
        return _result.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.UpstreamError(f"{where} gave a result in a shape that is none: {error}") from None


def read_only(tool: Tool) -> bool:
    """Whether the tool says that it changes nothing."""
    try:
        return _hints.decode(tool.fields.get("annotations", Raw(b"{}"))).readOnlyHint is True
    except msgspec.DecodeError:
        return False


def _tool(server: str, described: Raw) -> Tool | None:
    if len(bytes(described)) > MAX_TOOL_BYTES:
        return None
    try:
        fields = _object.decode(described)
        name = _text.decode(fields.get("name", NULL))
        _object.decode(fields.get("inputSchema", NULL))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not NAME.fullmatch(name):
        return None
    return Tool(server, name, {key: fields[key] for key in _SHOWN if key in fields})
