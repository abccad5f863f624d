"""Tools of MCP servers that a provider would call by itself: past who may call them here, what they cost and what is recorded."""

from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL

_tools: Final = msgspec.json.Decoder(list[Raw])
_kind: Final = msgspec.json.Decoder(dict[str, Raw])


def refuse_servers(tools: Raw, at: str, instead: str) -> None:
    """Raises BadRequest for a tool of the type `mcp`; `at` is where `tools` stand. What is no list of tools is the provider's to refuse."""
    if not bytes(tools).startswith(b"["):
        return
    for number, tool in enumerate(_tools.decode(tools)):
        if _is_server(tool):
            raise errors.BadRequest(
                f"Tools of MCP servers are not passed on to a provider; {instead}",
                param=f"{at}[{number}]",
                code="mcp_server_not_registered",
            )


def _is_server(tool: Raw) -> bool:
    if not bytes(tool).startswith(b"{"):
        return False
    try:
        kind: object = msgspec.json.decode(_kind.decode(tool).get("type", NULL))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return kind == "mcp"
