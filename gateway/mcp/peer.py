"""The protocol with one server, over anything that carries messages: the handshake, requests and their answers, what it says unasked."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final, Protocol, final

import msgspec
import structlog
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.mcp import rpc
from gateway.mcp.errors import ServerDown, ToolRefused
from gateway.mcp.links import Events, Hear
from gateway.wire import present

log = structlog.stdlib.get_logger(__name__)

MAX_PAGES: Final = 100
MAX_TOOLS: Final = 1000  # of one server
INFO: Final = {"name": "penstock", "version": "1"}
CHANGED: Final = "notifications/tools/list_changed"


class Carrier(Protocol):
    """Takes messages to the server. What comes back is given to `Peer.hear`."""

    async def deliver(self, message: bytes, answered: "asyncio.Future[rpc.Message] | None") -> None:
        """`answered` is done once the answer was heard; a carrier whose answers come by another way returns at once.

        Raises GatewayError.
        """


class _Page(msgspec.Struct, gc=False):
    tools: list[Raw]
    nextCursor: str | None = None  # noqa: N815 — the protocol's name


class _Capabilities(msgspec.Struct, frozen=True, gc=False):
    tools: Raw = NULL


class _Initialized(msgspec.Struct, gc=False):
    protocolVersion: str  # noqa: N815 — the protocol's name
    capabilities: _Capabilities = _Capabilities()


_page: Final = msgspec.json.Decoder(_Page)
_initialized: Final = msgspec.json.Decoder(_Initialized)
_progress: Final = msgspec.json.Decoder(rpc.Progress)


@final
class Peer:
    """`where` names the server in errors. Bound by `start_s` for its own questions, `timeout_s` for a call."""

    def __init__(self, where: str, carrier: Carrier, events: Events, *, start_s: float, timeout_s: float) -> None:
        self._where = where
        self._carrier = carrier
        self._events = events
        self._start_s = start_s
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._waiting: dict[rpc.Id, asyncio.Future[rpc.Message]] = {}
        self._hearing: dict[rpc.Id, Hear] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()
        self.version = rpc.NEWEST_HANDSHAKE
        self.offers_tools = True

    async def initialize(self) -> None:
        asked = {"protocolVersion": rpc.NEWEST_HANDSHAKE, "capabilities": {}, "clientInfo": INFO}
        result = await self.request("initialize", asked, self._start_s)
        try:
            told = _initialized.decode(result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"{self._where} answered the handshake with something else: {error}") from None
        if told.protocolVersion not in rpc.HANDSHAKE_VERSIONS:
            raise ServerDown(
                f"{self._where} speaks version {told.protocolVersion[:40]!r} of the protocol, which is not known here"
            )
        self.version = told.protocolVersion
        self.offers_tools = present(told.capabilities.tools)
        await self._carrier.deliver(rpc.notification("notifications/initialized"), None)

    async def tools(self) -> list[Raw]:
        if not self.offers_tools:
            return []
        found: list[Raw] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            result = await self.request("tools/list", {} if cursor is None else {"cursor": cursor}, self._start_s)
            try:
                page = _page.decode(result)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise errors.UpstreamError(f"{self._where} lists its tools in a shape that is none: {error}") from None
            found += page.tools
            cursor = page.nextCursor
            if cursor is None:
                return found[:MAX_TOOLS]
            if cursor in seen or len(found) > MAX_TOOLS:
                break
            seen.add(cursor)
        log.warning("mcp.list_cut", server=self._where, tools=len(found))
        return found[:MAX_TOOLS]

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:
        params: dict[str, Any] = {"name": tool, "arguments": arguments if present(arguments) else {}}
        return await self.request("tools/call", params, self._timeout_s, hear, sent)

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        limit_s: float,
        hear: Hear | None = None,
        sent: Callable[[], None] | None = None,
    ) -> Raw:
        """The result. Raises ToolRefused for an error that the server answers with, UpstreamTimeout, and what the carrier raises."""
        id_ = next(self._ids)
        if hear is not None:
            params = {**params, "_meta": {"progressToken": id_}}
            self._hearing[id_] = hear
        answered: asyncio.Future[rpc.Message] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answered
        try:
            async with asyncio.timeout(limit_s):
                if sent is not None:
                    sent()
                await self._carrier.deliver(rpc.request(id_, method, params), answered)
                message = await answered
        except TimeoutError:
            self._abandon(id_, method)
            raise errors.UpstreamTimeout(f"{self._where} did not answer {method} within {limit_s:g} s") from None
        except asyncio.CancelledError:
            self._abandon(id_, method)
            raise
        finally:
            self._waiting.pop(id_, None)
            self._hearing.pop(id_, None)
        if message.error is not None:
            raise ToolRefused(message.error.code, message.error.message[:2000] or "The server refused")
        return message.result

    def hear(self, data: bytes) -> None:
        """One message of the server's. Raises UpstreamError for what is none."""
        try:
            message = rpc.read(data)
        except ValueError as error:
            raise errors.UpstreamError(f"{self._where} sent something that is no message: {error}") from None
        if message.method is None:
            waiting = None if message.key is None else self._waiting.get(message.key)
            if waiting is None or waiting.done():  # an answer that comes twice, late, or to nobody's question
                log.debug("mcp.stray_answer", server=self._where)
            elif message.error is None and not present(message.result):
                raise errors.UpstreamError(f"{self._where} answered with neither a result nor an error")
            else:
                waiting.set_result(message)
        elif message.key is not None:
            self._say(self._reply(message.key, message.method))
        elif message.method == CHANGED:
            self._events.changed()
        elif message.method == "notifications/progress":
            self._tell(message)

    def fail(self, error: errors.GatewayError) -> None:
        """Whoever waits hears that nothing will come."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)

    async def close(self) -> None:
        self.fail(ServerDown(f"{self._where} was disconnected"))
        for task in self._goodbyes:
            task.cancel()
        await asyncio.gather(*self._goodbyes, return_exceptions=True)

    def _tell(self, message: rpc.Message) -> None:
        try:
            progress = _progress.decode(rpc.params_of(message))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        hear = None if progress.progressToken is None else self._hearing.get(progress.progressToken)
        if hear is not None:
            hear(progress)

    def _reply(self, id_: rpc.Id, method: str) -> bytes:
        """A server may ask whether anybody is there. It was told that nothing else can be asked here."""
        if method == "ping":
            return rpc.answer(id_, {})
        return rpc.fault(id_, rpc.METHOD_NOT_FOUND, f"{method} is not available")

    def _abandon(self, id_: int, method: str) -> None:
        if method != "initialize":  # the protocol does not allow to take that back
            self._say(rpc.notification("notifications/cancelled", {"requestId": id_, "reason": "nobody waits for it"}))

    def _say(self, message: bytes) -> None:
        """Without waiting: nothing depends on whether it arrives."""
        if len(self._goodbyes) >= 64:
            return

        async def say() -> None:
            try:
                async with asyncio.timeout(self._start_s):
                    await self._carrier.deliver(message, None)
            except (TimeoutError, errors.GatewayError):
                log.debug("mcp.unheard", server=self._where)

        task = asyncio.get_running_loop().create_task(say())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)
