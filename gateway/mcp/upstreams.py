"""Links to servers, kept alive: opened when somebody needs one, opened again with growing pauses when lost, closed in the end.

One server's trouble is its own: whoever asks hears of it within a deadline, and nobody else waits for it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, final

import structlog
from msgspec import Raw

from gateway import errors
from gateway.mcp.catalog import Server, Servers
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import Connect, Hear, Link
from gateway.mcp.tools import Tool, offered

log = structlog.stdlib.get_logger(__name__)

REFRESH_S: Final = 300.0  # of a list whose server tells no changes
LIST_S: Final = 5.0
RELIST_S: Final = 0.5
SHORT_LIFE_S: Final = 30.0  # a link that is lost sooner counts as one that could not be opened
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 60.0

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


@final
class Upstream:
    """One server. `now` is a monotonic clock, `chance` gives a number from 0 to 1; `changed` is told of another list of tools."""

    def __init__(
        self,
        server: Server,
        connect: Connect,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        spawn: Spawn,
        changed: Callable[[], None],
    ) -> None:
        self.server = server
        self._connect = connect
        self._now = now
        self._chance = chance
        self._spawn = spawn
        self._tell_changed = changed
        self._link: Link | None = None
        self._opening: asyncio.Task[errors.GatewayError | None] | None = None
        self._listing: asyncio.Task[None] | None = None
        self._again: asyncio.Task[None] | None = None
        self._listed_at = self._opened_at = self._not_before = float("-inf")
        self._failures = 0
        self._running = 0
        self._closed = False
        self.tools: Mapping[str, Tool] = {}
        self.reason: str | None = None  # why there is no link

    @property
    def up(self) -> bool:
        return self._link is not None

    async def ready(self) -> Link:
        """A link, and its tools in `tools`. Raises ServerDown."""
        if self._link is None:
            if self._closed:
                raise ServerDown(f"The MCP server '{self.server.name}' is not registered any more", unsent=True)
            if self._opening is None:
                wait_s = self._not_before - self._now()
                if wait_s > 0:
                    raise ServerDown(f"{self.reason}; it is tried again in {wait_s:.1f} s", unsent=True)
                self._opening = self._spawn(self._open())
            opening = self._opening
            await asyncio.wait((opening,))  # who leaves early must not stop it for the others
            if opening.cancelled():
                raise ServerDown(f"The MCP server '{self.server.name}' is not there any more", unsent=True)
            failed = opening.result()
            if failed is not None:
                raise failed
            if self._link is None:
                raise ServerDown(self.reason or "The server is gone", unsent=True)
        elif self._now() - self._listed_at > REFRESH_S:
            self.changed()
        return self._link

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:
        """Raises GatewayError. A call that its server cannot have seen, as the link was dead, is made once more on a new one."""
        if self._running >= self.server.parallel:
            raise errors.Overloaded(
                f"The MCP server '{self.server.name}' has as many calls as it may",
                code="mcp_server_busy",
                headers=(("retry-after", "1"),),
            )
        self._running += 1
        try:
            link = await self.ready()
            try:
                return await link.call(tool, arguments, hear, sent)
            except ServerDown as down:
                self._lose(link, down.message)
                if not down.unsent or self._failures > 1:
                    raise
            return await (await self.ready()).call(tool, arguments, hear, sent)
        finally:
            self._running -= 1

    async def close(self) -> None:
        self._closed = True
        for task in (self._again, self._listing, self._opening):
            if task is not None:
                task.cancel()
        await asyncio.gather(
            *(task for task in (self._again, self._listing, self._opening) if task), return_exceptions=True
        )
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # What a link tells

    def changed(self) -> None:
        """Asks for the list again; meanwhile the old one is as good as any."""
        link = self._link
        if link is not None and (self._listing is None or self._listing.done()):
            wait_s = max(0.0, self._listed_at + RELIST_S - self._now())
            self._listed_at = self._now() + wait_s
            self._listing = self._spawn(self._list_again(link, wait_s))

    async def _open(self) -> errors.GatewayError | None:
        server = self.server
        link: Link | None = None
        failed: errors.GatewayError | None = None
        try:
            events = _Events(self)
            link = events.link = self._connect(server, events)
            async with asyncio.timeout(server.start_s):
                await link.open()
                described = await link.tools()
            self._link = link
            self._opened_at = self._now()
            self.reason = None
            self._take(described)
            log.info("mcp.server_up", server=server.name, tools=len(self.tools))
        except errors.GatewayError as error:
            failed = error if isinstance(error, ServerDown) else ServerDown(error.message, unsent=True)
        except TimeoutError:
            failed = ServerDown(
                f"The MCP server '{server.name}' did not start within {server.start_s:g} s", unsent=True
            )
        except Exception:  # a task's border: the log has it, and whoever waits hears of it
            log.exception("mcp.open_failed", server=server.name)
            failed = ServerDown(f"The MCP server '{server.name}' cannot be used; the log has the details", unsent=True)
        finally:
            self._opening = None
            if self._link is None and link is not None:
                await link.close()
        if failed is not None:
            self._failed(failed.message)
        return failed

    async def _list_again(self, link: Link, wait_s: float) -> None:
        """A server that tells of changes all the time is asked once in `RELIST_S`."""
        await asyncio.sleep(wait_s)
        try:
            described = await link.tools()
        except errors.GatewayError as error:
            if isinstance(error, ServerDown):
                self._lose(link, error.message)
            else:
                log.warning("mcp.list_failed", server=self.server.name, reason=error.message)
            return
        if link is self._link:
            self._take(described)

    def _take(self, described: list[Raw]) -> None:
        before = self.tools
        self.tools, left = offered(self.server.name, described, self.server.tools)
        self._listed_at = self._now()
        if left:
            log.warning("mcp.tools_left_out", server=self.server.name, count=left)
        if self.tools != before:
            self._tell_changed()

    def _lose(self, link: Link, reason: str) -> None:
        """The link is of no use: its tools vanish until there is another one."""
        if link is not self._link:
            return
        self._link = None
        self._spawn(link.close())
        if self._now() - self._opened_at > SHORT_LIFE_S:
            self._failures = 0
        self._failed(reason)

    def _failed(self, reason: str) -> None:
        """Each failure in a row doubles the pause; after the first there is none."""
        if self._closed:
            return
        if self._failures == 0 or self.reason is None:
            log.warning("mcp.server_down", server=self.server.name, reason=reason)
        self.reason = reason
        self._failures += 1
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(16, self._failures - 2)) if self._failures > 1 else 0.0
        pause_s *= 0.5 + self._chance() / 2
        self._not_before = self._now() + pause_s
        if self.tools:
            self.tools = {}
            self._tell_changed()
        if self._again is None or self._again.done():
            self._again = self._spawn(self._try_again())

    async def _try_again(self) -> None:
        """Until it is back: who listens for changes is told then."""
        while self._link is None and not self._closed:
            await asyncio.sleep(max(0.05, self._not_before - self._now()))
            try:
                await self.ready()
            except errors.GatewayError:
                log.debug("mcp.still_down", server=self.server.name)
        if self._failures and self._link is not None:
            await asyncio.sleep(SHORT_LIFE_S)
            if self._link is not None:
                self._failures = 0


@final
class _Events:
    """What one link tells its server's owner."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.link: Link | None = None

    def changed(self) -> None:
        self._upstream.changed()

    def lost(self, reason: str) -> None:
        if self.link is not None:
            self._upstream._lose(self.link, reason)  # noqa: SLF001 — its other half


@final
class Upstreams:
    """Those of one revision. What stays the same keeps its link."""

    def __init__(
        self,
        connect: Connect,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        spawn: Spawn,
    ) -> None:
        self._connect = connect
        self._now = now
        self._chance = chance
        self._spawn = spawn
        self._every: dict[str, Upstream] = {}
        self._listeners: set[Callable[[], None]] = set()

    def apply(self, servers: Servers) -> None:
        """Another configuration is in force."""
        wanted = {server.name: server for server in servers}
        if wanted == {name: upstream.server for name, upstream in self._every.items()}:
            return
        for name, upstream in tuple(self._every.items()):
            if wanted.get(name) != upstream.server:
                del self._every[name]
                self._spawn(upstream.close())
        for name, server in wanted.items():
            if name not in self._every:
                self._every[name] = Upstream(
                    server, self._connect, now=self._now, chance=self._chance, spawn=self._spawn, changed=self._changed
                )
        self._changed()

    def every(self) -> Iterable[Upstream]:
        return self._every.values()

    def find(self, name: str) -> Upstream | None:
        return self._every.get(name)

    async def listed(self, upstreams: Iterable[Upstream]) -> list[Tool]:
        """The tools of those that have any, by server and name; a server that does not answer has none.

        Who takes longer to start than `LIST_S` is left out this once: its tools are told as a change when they are there.
        """
        asked = list(upstreams)
        waiting = [self._spawn(_readied(one)) for one in asked if not one.up]
        if waiting:
            await asyncio.wait(waiting, timeout=LIST_S)
        return [one.tools[name] for one in sorted(asked, key=lambda one: one.server.name) for name in sorted(one.tools)]

    def subscribe(self, listener: Callable[[], None]) -> None:
        """`listener` is told whenever some list of tools may be another one."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.discard(listener)

    async def close(self) -> None:
        await asyncio.gather(*(upstream.close() for upstream in self._every.values()), return_exceptions=True)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()


async def _readied(upstream: Upstream) -> None:
    """Has said why not, where it could not be."""
    with contextlib.suppress(errors.GatewayError):
        await upstream.ready()
