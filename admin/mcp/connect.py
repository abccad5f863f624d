"""A link for each kind of server."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import final

from sqlalchemy import Engine

from admin.mcp.http_link import HttpLink
from admin.mcp.oauth import Tokens
from admin.mcp.openapi_link import OpenApiLink
from gateway.database import changing
from gateway.mcp import store
from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import Events, KeepToken, Link
from gateway.mcp.settings import CommandSpec, permitted
from gateway.mcp.stdio import StdioLink
from gateway.secret_box import SecretBox


@final
class Connector:
    """`commands` are the programs that the configuration file allows; `environ` this process's environment."""

    def __init__(self, commands: Sequence[CommandSpec], environ: Mapping[str, str], keep: KeepToken) -> None:
        self._commands = tuple(commands)
        self._environ = environ
        self._keep = keep

    def __call__(self, server: Server, events: Events) -> Link:
        """Raises ServerDown for a program that may not be started."""
        match server.kind:
            case "stdio":
                refused = permitted(
                    server.command, server.args, frozenset(name for name, _ in server.env), self._commands
                )
                if refused is not None:
                    raise ServerDown(f"The MCP server '{server.name}' is not started: {refused}", unsent=True)
                return StdioLink(server, events, self._environ)
            case "http":
                return HttpLink(server, events, self._tokens(server))
            case "openapi":
                return OpenApiLink(server, events, self._tokens(server))

    def _tokens(self, server: Server) -> Tokens | None:
        return None if server.oauth is None else Tokens(server, server.oauth, self._keep)


def token_keeper(engine: Engine, box: SecretBox) -> KeepToken:
    """Writes refresh tokens into the database, sealed."""

    async def keep(name: str, token: str) -> None:
        def write() -> None:
            with changing(engine) as tx:
                store.keep_refresh_token(tx, name, token, box)

        await asyncio.to_thread(write)

    return keep
