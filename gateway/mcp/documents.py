"""The key's own documents as a server of MCP: `search` and `fetch`, in the shapes that research agents and connectors look for.

No registered server stands behind it, so nobody has to be let in: it shows what `/v1/vector_stores` shows the same key. A call is
recorded like that of any tool; a search is held and settled by the call that makes the vector of its question.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.completion import tags_of
from gateway.grounding import booking
from gateway.grounding.ports import Booking, Found, Searcher, Wanted
from gateway.grounding.searching import MOST_CHARACTERS
from gateway.ids import RequestIds
from gateway.keys import Key
from gateway.mcp.calls import ENDPOINT, ONE_CALL, Asked, Done
from gateway.mcp.errors import ToolRefused, UnknownTool
from gateway.mcp.rpc import INVALID_PARAMS
from gateway.mcp.tools import Tool
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.pricing import fixed_price
from gateway.record import LEFT, Record
from gateway.responses.items import encode
from gateway.snapshot import Current
from gateway.wire import present

NAME: Final = "retrieval"
INSTRUCTIONS: Final = (
    "Searches in documents, and gives the text of one: search first, then fetch what a result's id names."
)
MOST_RESULTS: Final = 20
MOST_TEXT: Final = 400_000  # characters of one document
_FREE: Final = Offer(fixed_price(0), Need(0, 0, 0), worst=ONE_CALL)
_HINTS: Final = {"readOnlyHint": True, "openWorldHint": False}


Arguments = TypeVar("Arguments", bound=msgspec.Struct)


class _Search(msgspec.Struct):
    query: str


class _Fetch(msgspec.Struct):
    id: str


def _tool(name: str, title: str, description: str, argument: str, says: str, result: Mapping[str, object]) -> Tool:
    schema = {
        "type": "object",
        "properties": {argument: {"type": "string", "description": says}},
        "required": [argument],
    }
    fields = {"title": title, "description": description, "inputSchema": schema, "outputSchema": result}
    return Tool(NAME, name, {key: Raw(encode(value)) for key, value in (fields | {"annotations": _HINTS}).items()})


_TEXT: Final = {"type": "string"}
_HIT: Final = {
    "type": "object",
    "properties": dict.fromkeys(("id", "title", "url"), _TEXT),
    "required": ["id", "title", "url"],
}
_HITS: Final = {"type": "object", "properties": {"results": {"type": "array", "items": _HIT}}, "required": ["results"]}
_DOCUMENT: Final = {
    "type": "object",
    "properties": {**dict.fromkeys(("id", "title", "text", "url"), _TEXT), "metadata": {"type": "object"}},
    "required": ["id", "title", "text", "url", "metadata"],
}
TOOLS: Final = (
    _tool("fetch", "Fetch a document", "The whole text of a document that search has found.", "id", "A result's id", _DOCUMENT),
    _tool(
        "search", "Search documents", "Documents that have something about a question, best first.", "query", "What to look for", _HITS
    ),
)  # fmt: skip


@final
class Documents:
    """One per process. `unix` and `now` are clocks: Unix seconds, and monotonic ones. `finished` is given each record once."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        current: Current,
        meter: Meter,
        unix: Callable[[], float],
        now: Callable[[], float],
        finished: Callable[[Record, Asked], None],
    ) -> None:
        self._searcher = searcher
        self._current = current
        self._meter = meter
        self._unix = unix
        self._now = now
        self._finished = finished
        self._ids = RequestIds()

    async def call(self, key: Key, asked: Asked, scope: str | None, base: str) -> Done:
        """Runs in a task. `scope` is one store, by id or name, or a retriever; `base` the address that clients use. Raises GatewayError."""
        at = self._unix()
        record = Record(self._ids.at(at), ENDPOINT, at, asked.started_at)
        record.key = key
        tags = asked.headers.get(booking.TAGS)
        record.tags = None if tags is None else tags_of(tags)
        record.model = record.metric_model = f"{ENDPOINT}/{NAME}/{asked.tool}"
        record.provider, record.deployment = f"{ENDPOINT}/{NAME}", NAME
        try:
            if all(asked.tool != tool.name for tool in TOOLS):
                raise UnknownTool(asked.shown)
            if asked.tool == "fetch":  # a search is counted by its embedding, which would wait for this call's own slot
                await self._meter.open(self._current.snapshot.rules, record, _FREE)
                record.sent = True
            record.attempts = 1
            record.usage, record.usage_source = ONE_CALL, "counted"
            made = await self._made(key, asked, scope, base, record.id)
            record.status = 200
        except errors.GatewayError as error:
            record.status, record.error_code = error.status, error.code or error.type
            raise
        except asyncio.CancelledError:
            record.status, record.error_code = 499, LEFT
            raise
        finally:
            record.finished_at = self._now()
            record.status = record.status or 500
            self._meter.close(record, b"")
            self._finished(record, asked)
        told = encode({"content": [{"type": "text", "text": made.decode()}], "structuredContent": Raw(made)})
        return Done(record, Raw(told), failed=False)

    async def _made(self, key: Key, asked: Asked, scope: str | None, base: str, whole: str) -> bytes:
        if asked.tool == "search":
            query = _read(asked.arguments, _Search).query.strip()[:MOST_CHARACTERS]
            if not query:
                raise ToolRefused(INVALID_PARAMS, "Invalid arguments: the query is empty")
            return encode({"results": await self._search(key, query, scope, base, booking.of(asked.headers, whole))})
        return encode(await self._fetch(key, _read(asked.arguments, _Fetch).id, scope, base))

    async def _search(
        self, key: Key, query: str, scope: str | None, base: str, booked: Booking
    ) -> list[dict[str, str]]:
        """Documents in the order of their best passages."""
        stores = await self._searcher.every(key) if scope is None else (scope,)
        if not stores:
            return []
        found = await self._searcher.search(key, [query], Wanted(stores, MOST_RESULTS), booked)
        best: dict[str, Found] = {}
        for one in found:
            best.setdefault(_id(one.store_id, one.file_id), one)
        return [
            {"id": id_, "title": one.filename, "url": _url(base, one.store_id, one.file_id)}
            for id_, one in best.items()
        ]

    async def _fetch(self, key: Key, id_: str, scope: str | None, base: str) -> dict[str, object]:
        store, _, file = id_.partition("/")
        if scope is not None:
            meant = await self._searcher.stores(key, Wanted((scope,)), booking.NOTHING)
            if all(one.id != store for one in meant):
                raise errors.NotFound(f"There is no document '{id_[:200]}'", param="id", code="document_not_found")
        document = await self._searcher.document(key, store, file)
        cut = len(document.text) > MOST_TEXT
        return {
            "id": id_,
            "title": document.filename,
            "text": document.text[:MOST_TEXT],
            "url": _url(base, store, file),
            "metadata": {**document.attributes, **({"truncated": True} if cut else {})},
        }


def _id(store: str, file: str) -> str:
    return f"{store}/{file}"


def _url(base: str, store: str, file: str) -> str:
    """Where the text can be had, with the same key."""
    return f"{base}/v1/vector_stores/{store}/files/{file}/content"


def _read(arguments: Raw, kind: type[Arguments]) -> Arguments:
    """Raises ToolRefused."""
    try:
        return msgspec.json.decode(arguments if present(arguments) else b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ToolRefused(INVALID_PARAMS, f"Invalid arguments: {error}") from None
