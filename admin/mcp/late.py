"""MCP in a process that may never need it: two routes, and everything behind them loaded with the first request."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from gateway.authentication import Authenticator
from gateway.bills import Bills
from gateway.grounding.ports import Searcher
from gateway.http_exchange import HttpExchange
from gateway.mcp.settings import McpSection
from gateway.metering import Meter
from gateway.recorder import Records
from gateway.route import Route
from gateway.secret_box import SecretBox
from gateway.snapshot import Current

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from gateway.mcp.service import Mcp
    from gateway.responses.agent import Agent
    from gateway.watching import Parts

PATH: Final = b"/mcp"
PREFIX: Final = b"/mcp/"


@final
class LateMcp:
    """`secret` is known to every process of an installation. Lives on one event loop."""

    def __init__(
        self,
        *,
        settings: McpSection,
        environ: Mapping[str, str],
        engine: "Engine",
        box: SecretBox,
        current: Current,
        authenticator: Authenticator,
        meter: Meter,
        recorder: Records,
        secret: bytes,
        searcher: Searcher,
        bills: Bills,
        parts: "Parts | None" = None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._engine = engine
        self._box = box
        self._current = current
        self._authenticator = authenticator
        self._meter = meter
        self._recorder = recorder
        self._secret = secret
        self._searcher = searcher
        self._bills = bills
        self._parts = parts
        self._loading: asyncio.Task[None] | None = None
        self._made: Mcp | None = None
        self.routes = {PATH: Route(b"", self._serve)}
        self.prefixes = {PREFIX: Route(b"", self._serve)}

    async def ready(self) -> "Mcp":
        """Its modules are loaded in a thread: a fifth of a second in which others go on."""
        if self._made is None:
            if self._loading is None:
                self._loading = asyncio.get_running_loop().create_task(asyncio.to_thread(_load))
            await asyncio.shield(self._loading)
            if self._made is None:  # whoever waited first has made it
                self._made = self._make()
        return self._made

    async def agent(self) -> "Agent":
        """Who calls tools for `/v1/responses`."""
        return (await self.ready()).agent

    def conditions(self) -> Mapping[str, tuple[bool, str | None, int]]:
        """Of the servers that this process knows: whether they answer, why not, how many tools they have."""
        return {} if self._made is None else self._made.conditions()

    def drain(self) -> None:
        """Ends what would only wait."""
        if self._made is not None:
            self._made.drain()

    async def close(self) -> None:
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    async def _serve(self, exchange: HttpExchange) -> None:
        await (await self.ready()).serve(exchange)

    def _make(self) -> "Mcp":
        from admin.mcp.connect import Connector, token_keeper  # noqa: PLC0415 — an HTTP client, for those who have servers
        from gateway.mcp.service import Mcp  # noqa: PLC0415 — as above

        return Mcp(
            current=self._current,
            authenticator=self._authenticator,
            meter=self._meter,
            finished=self._recorder.finished,
            connect=Connector(self._settings.stdio_commands, self._environ, token_keeper(self._engine, self._box)),
            secret=self._secret,
            unlisted=self._settings.unlisted,
            origins=self._settings.origins,
            rounds=self._settings.max_rounds,
            bills=self._bills,
            searcher=self._searcher,
            parts=self._parts,
        )


def _load() -> None:
    import admin.mcp.connect  # noqa: F401, PLC0415 — as above
    import gateway.mcp.service  # noqa: F401, PLC0415 — as above
