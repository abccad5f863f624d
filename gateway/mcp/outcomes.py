"""Between a model and a tool: what the one wrote as the other's arguments, and what came of it as the model hears it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from gateway.bodies import NULL, RawObject
from gateway.mcp import history
from gateway.mcp.errors import ToolRefused
from gateway.mcp.rpc import INVALID_PARAMS
from gateway.mcp.tools import Tool
from gateway.responses.items import encode
from gateway.wire import present

_arguments: Final = msgspec.json.Decoder(dict[str, Raw])


def checked(arguments: str) -> Raw:
    """What a model wrote as an object. Raises ToolRefused, whose message it can learn from."""
    text = arguments.strip() or "{}"
    try:
        _arguments.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ToolRefused(INVALID_PARAMS, f"The arguments are no JSON object: {error}") from None
    return Raw(text.encode())


def words(content: Sequence[Raw]) -> str:
    """Texts as they are; what is none as the JSON that it is."""
    parts: list[str] = []
    for one in content:
        fields = msgspec.json.decode(one)
        text = fields.get("text") if isinstance(fields, dict) and fields.get("type") == "text" else None
        parts.append(text if isinstance(text, str) else bytes(one).decode())
    return "\n".join(parts)


def described(tool: Tool) -> dict[str, object]:
    made: dict[str, object] = {"name": tool.name, "input_schema": tool.fields["inputSchema"]}
    made["description"] = tool.fields.get("description", NULL)
    return made | {"annotations": tool.fields.get("annotations", NULL)}


def as_item(item: Mapping[str, object]) -> history.Item:
    return msgspec.json.decode(encode(item), type=history.Item)


def loosen(fields: RawObject) -> None:
    """A tool that had to be called was called: from here on the model may speak."""
    given = fields.get("tool_choice", NULL)
    if not present(given) or bytes(given) in {b'"auto"', b'"none"'}:
        return
    if b'"allowed_tools"' in bytes(given):
        loose = msgspec.json.decode(given, type=dict[str, Raw]) | {"mode": Raw(b'"auto"')}
        fields["tool_choice"] = Raw(encode(loose))
    else:
        del fields["tool_choice"]
