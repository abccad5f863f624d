"""The port of a server's kind: how the gateway speaks to one server, whatever carries it. `gateway.mcp.upstreams` owns the links."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Raw

from gateway.mcp.catalog import Server
from gateway.mcp.rpc import Progress

Hear = Callable[[Progress], None]


class Events(Protocol):
    """Whom a link tells of what happens without being asked."""

    def changed(self) -> None:
        """The list of tools is another one."""

    def lost(self, reason: str) -> None:
        """The link is of no use any more."""


class Link(Protocol):
    """One connection to one server, for all keys. Lives on one event loop; its methods run in tasks.

    Raises GatewayError: ServerDown, ToolRefused, UpstreamError, UpstreamTimeout.
    """

    async def open(self) -> None:
        """Once, before anything else."""

    async def tools(self) -> list[Raw]:
        """Every tool as the server describes it, of all its pages."""

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:
        """The result object of `tools/call`. `sent` is told before the server may see the call."""

    async def close(self) -> None: ...


Connect = Callable[[Server, Events], Link]
KeepToken = Callable[[str, str], Awaitable[None]]
"""Keeps a server's new refresh token, by the server's name."""
