"""`gateway.responses.agent.Agent` for the tools of registered servers."""

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.exchange import Exchange
from gateway.keys import Key
from gateway.mcp import history, wanted
from gateway.mcp.calls import Calls
from gateway.mcp.rounds import Engaged, Rounds
from gateway.mcp.tools import Tool
from gateway.mcp.upstreams import Spawn
from gateway.mcp.wanted import Meant
from gateway.responses.agent import Tell
from gateway.responses.frame import Frame
from gateway.responses.items import given
from gateway.snapshot import Current
from gateway.wire import NULL, RawObject, present

_object: Final = msgspec.json.Decoder(RawObject)
_count: Final = msgspec.json.Decoder(int)


@final
class McpAgent:
    """`most` turns after the first; `unix` is the clock."""

    def __init__(self, *, current: Current, calls: Calls, spawn: Spawn, unix: Callable[[], float], most: int) -> None:
        self._current = current
        self._calls = calls
        self._spawn = spawn
        self._unix = unix
        self._most = most

    async def engage(self, key: Key, body: bytes, headers: Mapping[bytes, bytes], *, summarised: bool) -> Tell | None:  # noqa: ARG002 — the port's names
        """Raises BadRequest."""
        engaged = await self._engaged(key, body)
        if engaged is None:
            return None

        def tell(client: Exchange, frame: Frame, told: int) -> Rounds:
            return Rounds(
                client,
                frame,
                told,
                engaged,
                key=key,
                calls=self._calls,
                spawn=self._spawn,
                unix=self._unix,
                most=self._most,
                summarised=summarised,
            )

        return tell

    async def _engaged(self, key: Key, body: bytes) -> Engaged | None:
        fields = _object.decode(body)
        others, ours = wanted.parted(fields.pop("tools", NULL))
        items = given(fields.pop("input", NULL))
        read = history.read(items)
        if not ours and not any(read):  # a text that speaks of it
            return None
        servers = self._current.snapshot.servers
        meants = wanted.meant(ours, servers, lambda name: self._calls.may_see(key, name))
        listings = [(one, *(await self._spawn(self._calls.offered(key, one.server.name)))) for one in meants]
        admitted: dict[str, tuple[Meant, list[Tool]]] = {
            one.label: (one, [tool for tool in tools if one.allowed.admits(tool)]) for one, tools, _ in listings
        }
        functions = wanted.functions(admitted, [wanted.name_of(tool) for tool in others])
        choice = wanted.choice(fields.get("tool_choice", NULL), functions)
        if choice is not None:
            fields["tool_choice"] = choice
        approved = history.approved(read)
        known = {(one.meant.label, one.tool.name) for one in functions.values()}
        lost = next((one for one in approved if (one.label, one.name) not in known), None)
        if lost is not None:
            raise errors.BadRequest(
                f"'{lost.name[:200]}' of '{lost.label[:200]}' was approved, and is not among the tools of this request",
                param="tools",
                code="mcp_tool_not_offered",
            )
        return Engaged(
            fields,
            items,
            read,
            others,
            functions,
            [(one, admitted[one.label][1], error) for one, _, error in listings],
            approved,
            _most_calls(fields.get("max_tool_calls", NULL)),
        )


def _most_calls(given_: Raw) -> int | None:
    try:
        return max(0, _count.decode(given_)) if present(given_) else None
    except msgspec.DecodeError as error:
        raise errors.BadRequest(
            f"Invalid 'max_tool_calls': {error}", param="max_tool_calls", code="invalid_type"
        ) from None
