"""`gateway.responses.agent.Agent` for the tools of registered servers, and for searches in documents."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bills import Bills
from gateway.bodies import NULL, RawObject
from gateway.exchange import Exchange
from gateway.grounding import booking, searching, wish
from gateway.grounding.ports import Booking, Searcher, Wanted
from gateway.grounding.searching import FileSearch
from gateway.grounding.sources import Sources
from gateway.keys import Key
from gateway.mcp import history, wanted
from gateway.mcp.calls import Calls
from gateway.mcp.rounds import Engaged, Rounds
from gateway.mcp.tools import Tool
from gateway.mcp.turn import Hosted
from gateway.mcp.upstreams import Spawn
from gateway.mcp.wanted import Meant
from gateway.responses.agent import Tell
from gateway.responses.frame import Frame
from gateway.responses.items import given
from gateway.snapshot import Current
from gateway.watching import Parts
from gateway.wire import present

_object: Final = msgspec.json.Decoder(RawObject)
_count: Final = msgspec.json.Decoder(int)


@final
class McpAgent:
    """`most` turns after the first; `unix` is the clock. Without a `searcher`, searches are the deployments' own affair."""

    def __init__(
        self,
        *,
        current: Current,
        calls: Calls,
        searcher: Searcher | None = None,
        spawn: Spawn,
        unix: Callable[[], float],
        most: int,
        bills: Bills,
        parts: Parts | None = None,
    ) -> None:
        """`parts`: of who exports traces."""
        self._current = current
        self._searcher = searcher
        self._calls = calls
        self._spawn = spawn
        self._unix = unix
        self._most = most
        self._bills = bills
        self._parts = parts

    async def engage(self, key: Key, body: bytes, headers: Mapping[bytes, bytes], *, summarised: bool) -> Tell | None:
        """Raises BadRequest, NotFound."""
        booked = booking.of(headers)
        engaged = await self._engaged(key, body, booked)
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
                searcher=self._searcher,
                booking=booked,
                spawn=self._spawn,
                unix=self._unix,
                most=self._most,
                summarised=summarised,
                bills=self._bills,
                part=None if self._parts is None else self._parts(client.headers, key, frame.model),
            )

        return tell

    async def _engaged(self, key: Key, body: bytes, booked: Booking) -> Engaged | None:
        fields = _object.decode(body)
        others, ours = wanted.parted(fields.pop("tools", NULL))
        items = given(fields.pop("input", NULL))
        sources = Sources()
        search, others, items = await self._searching(key, booked, fields, (others, items), sources)
        read = history.read(items)
        if not ours and search is None and not any(read):  # a text that speaks of it
            return None
        servers = self._current.snapshot.servers
        meants = wanted.meant(ours, servers, lambda name: self._calls.may_see(key, name))
        listings = [(one, *(await self._spawn(self._calls.offered(key, one.server.name)))) for one in meants]
        admitted: dict[str, tuple[Meant, list[Tool]]] = {
            one.label: (one, [tool for tool in tools if one.allowed.admits(tool)]) for one, tools, _ in listings
        }
        named = wanted.functions(admitted, [wanted.name_of(tool) for tool in others])
        choice = wanted.choice(fields.get("tool_choice", NULL), named)
        if choice is not None:
            fields["tool_choice"] = choice
        approved = history.approved(read)
        known = {(one.meant.label, one.tool.name) for one in named.values()}
        lost = next((one for one in approved if (one.label, one.name) not in known), None)
        if lost is not None:
            raise errors.BadRequest(
                f"'{lost.name[:200]}' of '{lost.label[:200]}' was approved, and is not among the tools of this request",
                param="tools",
                code="mcp_tool_not_offered",
            )
        functions: dict[str, Hosted] = dict(named)
        if isinstance(search, FileSearch):
            functions[search.name] = search
        return Engaged(
            fields,
            items,
            read,
            others,
            functions,
            [(one, admitted[one.label][1], error) for one, _, error in listings],
            approved,
            _most_calls(fields.get("max_tool_calls", NULL)),
            sources,
        )

    async def _searching(
        self, key: Key, booked: Booking, fields: RawObject, said: tuple[list[Raw], list[Raw]], sources: Sources
    ) -> tuple[FileSearch | Literal["before"] | None, list[Raw], list[Raw]]:
        """The search that this request may make; the other tools, and the conversation with searches as calls of functions.

        `before`: there were searches in the conversation, and there is none now. None: there is nothing of ours.
        """
        tools, items = said
        if self._searcher is None:
            return None, tools, items
        others, asked, at = wish.parted(tools)
        if asked is None:
            if not searching.calls_in(items) or self._speaks_itself(fields):
                return None, tools, items
            return "before", tools, searching.as_functions(items, wish.TYPE, sources)
        stores = await self._stores(key, booked, asked, at, theirs=self._speaks_itself(fields))
        if stores is None:
            return None, tools, items
        name = searching.free_name([wanted.name_of(tool) for tool in others])
        choice = searching.choice(fields.get("tool_choice", NULL), name)
        if choice is not None:
            fields["tool_choice"] = choice
        function = FileSearch(name, msgspec.structs.replace(asked, stores=stores))
        return function, others, searching.as_functions(items, name, sources)

    async def _stores(
        self, key: Key, booked: Booking, asked: Wanted, at: str, *, theirs: bool
    ) -> tuple[str, ...] | None:
        """Their ids. None: they are kept by whoever answers. Raises NotFound, BadRequest."""
        assert self._searcher is not None
        try:
            found = await self._spawn(self._searcher.stores(key, asked, booked))
        except errors.NotFound as error:
            if theirs:
                return None
            error.param = f"{at}.vector_store_ids"
            raise
        except errors.BadRequest as error:
            error.param = f"{at}.{error.param or 'filters'}"
            raise
        return tuple(one.id for one in found)

    def _speaks_itself(self, fields: RawObject) -> bool:
        """Whether all that may answer has searches of its own."""
        try:
            catalog = self._current.snapshot.catalog
            found = catalog.find(msgspec.json.decode(fields.get("model", NULL), type=str))
        except msgspec.DecodeError:
            return False
        return found is not None and all(one.responses for one in catalog.places(found[0]))


def _most_calls(given_: Raw) -> int | None:
    try:
        return max(0, _count.decode(given_)) if present(given_) else None
    except msgspec.DecodeError as error:
        raise errors.BadRequest(
            f"Invalid 'max_tool_calls': {error}", param="max_tool_calls", code="invalid_type"
        ) from None
