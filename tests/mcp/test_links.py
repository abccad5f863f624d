"""What keeps links to servers, without a server."""

import asyncio
from collections.abc import Callable
from typing import final

import pytest
from msgspec import Raw

from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import Events, Hear
from gateway.mcp.upstreams import Upstream
from gateway.pricing import fixed_price


@final
class Slow:
    """A link that is being opened for ever."""

    def __init__(self, begun: asyncio.Event) -> None:
        self._begun = begun

    async def open(self) -> None:
        self._begun.set()
        await asyncio.Event().wait()

    async def tools(self) -> list[Raw]:
        return []

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:  # noqa: ARG002 — the port's names
        return Raw(b"{}")

    async def close(self) -> None: ...


def slow(begun: asyncio.Event) -> Upstream:
    def connect(server: Server, events: Events) -> Slow:  # noqa: ARG001 — the port's names
        return Slow(begun)

    spawn = asyncio.get_running_loop().create_task
    return Upstream(
        Server("s", "http", fixed_price(0)),
        connect,
        now=lambda: 0.0,
        chance=lambda: 0.5,
        spawn=spawn,
        changed=lambda: None,
    )


async def test_who_waits_for_a_server_that_is_taken_away_is_told() -> None:
    """They have not left: a call that just ended would leave its client without an answer."""
    begun = asyncio.Event()
    upstream = slow(begun)
    waiting = [asyncio.get_running_loop().create_task(upstream.ready()) for _ in range(2)]
    await begun.wait()
    await upstream.close()
    for one in waiting:
        with pytest.raises(ServerDown) as down:
            await one
        assert down.value.unsent


async def test_who_leaves_does_not_stop_it_for_the_others() -> None:
    begun = asyncio.Event()
    upstream = slow(begun)
    leaves, stays = (asyncio.get_running_loop().create_task(upstream.ready()) for _ in range(2))
    await begun.wait()
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert not stays.done()
    await upstream.close()
    with pytest.raises(ServerDown):
        await stays
