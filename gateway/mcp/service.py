"""Everything of MCP in one process, put together when somebody first needs it."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Literal, final

from gateway.authentication import Authenticator
from gateway.bills import Bills
from gateway.grounding.ports import Searcher
from gateway.http_exchange import HttpExchange
from gateway.mcp.agent import McpAgent
from gateway.mcp.calls import Asked, Calls
from gateway.mcp.documents import Documents
from gateway.mcp.endpoint import Endpoint
from gateway.mcp.links import Connect
from gateway.mcp.sessions import Sessions
from gateway.mcp.streams import Streams
from gateway.mcp.upstreams import Upstreams
from gateway.metering import Meter
from gateway.record import Record
from gateway.snapshot import Current
from gateway.watching import Parts


@final
class Mcp:
    """`secret` is the same in every process of an installation; the others as in what they are given to."""

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        meter: Meter,
        finished: Callable[[Record, Asked], None],
        connect: Connect,
        secret: bytes,
        unlisted: Literal["deny", "allow"],
        origins: Collection[str],
        rounds: int,
        bills: Bills,
        searcher: Searcher | None = None,
        parts: Parts | None = None,
    ) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upstreams = Upstreams(connect, now=time.monotonic, chance=random.random, spawn=self.spawn)
        self.calls = Calls(
            current=current,
            upstreams=self._upstreams,
            meter=meter,
            unix=time.time,
            now=time.monotonic,
            finished=finished,
            unlisted=unlisted,
            bills=bills,
        )
        self._streams = Streams(self._upstreams)
        self._endpoint = Endpoint(
            current=current,
            authenticator=authenticator,
            calls=self.calls,
            sessions=Sessions(secret),
            streams=self._streams,
            spawn=self.spawn,
            origins=origins,
            documents_=self._documents(searcher, current, meter, finished),
        )
        self.agent = McpAgent(
            current=current,
            calls=self.calls,
            searcher=searcher,
            spawn=self.spawn,
            unix=time.time,
            most=rounds,
            bills=bills,
            parts=parts,
        )
        self._upstreams.apply(current.snapshot.servers)
        current.on_change(lambda snapshot: self._upstreams.apply(snapshot.servers))

    @staticmethod
    def _documents(
        searcher: Searcher | None, current: Current, meter: Meter, finished: Callable[[Record, Asked], None]
    ) -> Documents | None:
        if searcher is None:
            return None
        return Documents(
            searcher=searcher, current=current, meter=meter, unix=time.time, now=time.monotonic, finished=finished
        )

    async def serve(self, exchange: HttpExchange) -> None:
        await self._endpoint.serve(exchange)

    def drain(self) -> None:
        self._streams.end()

    def conditions(self) -> Mapping[str, tuple[bool, str | None, int]]:
        """By server: whether there is a link, why not, and how many tools it has."""
        return {one.server.name: (one.up, one.reason, len(one.tools)) for one in self._upstreams.every()}

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Links and programs end before the books do: what they still settle is written."""
        await self._upstreams.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
