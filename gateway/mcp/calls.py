"""One call of a tool, through the same stages as any other: who may, hold, the call itself, settle, record.

A tool has a price per call. It is owed once the server may have seen the call, whatever becomes of it; a call that the server refused
by a JSON-RPC error costs nothing, as it did no work.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.authentication import ADMIN
from gateway.bills import Bills
from gateway.completion import tags_of
from gateway.ids import RequestIds
from gateway.keys import Key
from gateway.mcp.errors import ServerDown, ToolRefused, UnknownTool
from gateway.mcp.links import Hear
from gateway.mcp.rights import JOINT, NONE, Rights
from gateway.mcp.tools import Tool, read_result
from gateway.mcp.upstreams import Upstream, Upstreams
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.pricing import cost
from gateway.record import LEFT, Record
from gateway.snapshot import Current
from gateway.usage import usage
from gateway.used import NOTHING

ENDPOINT: Final = "mcp"
ONE_CALL: Final = usage()  # a request, and nothing that is counted otherwise
EVERYTHING: Final = (Rights(),)


class Asked(msgspec.Struct, frozen=True):
    """What a client or a model wants to be done. `started_at` is on the event loop's clock."""

    server: str
    tool: str
    shown: str  # how the caller named it
    arguments: Raw
    headers: Mapping[bytes, bytes]
    started_at: float


class Done(msgspec.Struct, frozen=True):
    """`result` as the server gave it. `failed`: the tool itself says that it did not work."""

    record: Record
    result: Raw
    failed: bool


@final
class Calls:
    """One per process. `unix` and `now` are clocks: Unix seconds, and monotonic ones. `finished` is given each record once."""

    def __init__(
        self,
        *,
        current: Current,
        upstreams: Upstreams,
        meter: Meter,
        unix: Callable[[], float],
        now: Callable[[], float],
        finished: Callable[[Record, Asked], None],
        unlisted: Literal["deny", "allow"],
        bills: Bills,
    ) -> None:
        self._current = current
        self._upstreams = upstreams
        self._meter = meter
        self._unix = unix
        self._now = now
        self._finished = finished
        self._bills = bills
        self._unlisted = unlisted
        self._ids = RequestIds()

    def rights(self, key: Key) -> tuple[Rights, ...]:
        """Every one of them has to admit a tool."""
        if key is ADMIN:
            return EVERYTHING
        return key.tools or (EVERYTHING if self._unlisted == "allow" else (NONE,))

    async def visible(self, key: Key, server: str | None = None) -> list[Tool]:
        """What a key may call now, of one server or of all, by name."""
        rights = self.rights(key)
        asked = [
            one
            for one in self._upstreams.every()
            if server in {None, one.server.name} and all(each.admits_server(one.server.name) for each in rights)
        ]
        tools = await self._upstreams.listed(asked)
        return [tool for tool in tools if all(each.admits(tool.server, tool.name) for each in rights)]

    async def offered(self, key: Key, server: str) -> tuple[list[Tool], str | None]:
        """The same of one server, and why it has none, if it does not answer."""
        tools = await self.visible(key, server)
        upstream = self._upstreams.find(server)
        if upstream is None or upstream.up:
            return tools, None
        return tools, upstream.reason or f"The MCP server '{server}' is not ready yet"

    def may_see(self, key: Key, server: str) -> bool:
        """Whether there is such a server, and for this key."""
        return self._upstreams.find(server) is not None and all(each.admits_server(server) for each in self.rights(key))

    async def call(self, key: Key, asked: Asked, hear: Hear | None = None) -> Done:
        """Runs in a task. Raises GatewayError; whatever happens, there is one record, and one settlement of what was held."""
        at = self._unix()
        record = Record(self._ids.at(at), ENDPOINT, at, asked.started_at)
        record.key = key
        tags = asked.headers.get(b"x-penstock-tags")
        record.tags = None if tags is None else tags_of(tags)
        try:
            return await self._served(key, asked, record, hear)
        except errors.GatewayError as error:
            record.status, record.error_code = error.status, error.code or error.type
            raise
        except asyncio.CancelledError:
            record.status, record.error_code = 499, LEFT
            raise
        finally:
            record.finished_at = self._now()
            if not record.status:
                record.status, record.error_code = 500, errors.Internal.code
            self._bills.settle(self._meter, record, asked.headers, b"")
            self._finished(record, asked)

    async def _served(self, key: Key, asked: Asked, record: Record, hear: Hear | None) -> Done:
        upstream = await self._found(key, asked)
        server = upstream.server
        record.model = record.metric_model = f"{ENDPOINT}/{server.name}/{asked.tool}"
        record.provider = f"{ENDPOINT}/{server.name}"
        record.deployment = server.name
        price = server.price_of(asked.tool)
        offer = Offer(price, Need(cost(ONE_CALL, price), 0, 0), worst=ONE_CALL)
        await self._meter.open(self._current.snapshot.rules, record, offer)
        record.attempts = 1
        began = self._now()

        def sent() -> None:
            record.sent = True

        try:
            result = await upstream.call(asked.tool, asked.arguments, hear, sent)
            read = read_result(result, f"The MCP server '{server.name}'")
        except ToolRefused:
            record.usage, record.usage_source = NOTHING, "provider"
            raise
        except ServerDown as down:
            record.sent = record.sent and not down.unsent
            raise
        finally:
            record.upstream_s = self._now() - began
        record.status = 200
        record.usage, record.usage_source = ONE_CALL, "counted"
        self._meter.cost(record)
        return Done(record, result, read.isError is True)

    async def _found(self, key: Key, asked: Asked) -> Upstream:
        """The server of a tool that there is, and for this key; else nobody learns which of both it was."""
        upstream = self._upstreams.find(asked.server)
        rights = self.rights(key)
        if upstream is None or not all(each.admits(asked.server, asked.tool) for each in rights):
            raise UnknownTool(asked.shown)
        await upstream.ready()
        if asked.tool not in upstream.tools:
            raise UnknownTool(asked.shown)
        return upstream


def parted(name: str) -> tuple[str, str]:
    """Server and tool of a tool's name among all; a server's name has no such joint."""
    server, _, tool = name.partition(JOINT)
    return server, tool
