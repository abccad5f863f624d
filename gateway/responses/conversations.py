"""`/v1/conversations`: items that are kept until somebody deletes them, for responses to go on from."""

from collections.abc import Callable
from typing import Any, Final, final

from msgspec import Raw
from sqlalchemy import Connection

from gateway import errors, wire
from gateway.http_exchange import HttpExchange
from gateway.ids import uuid7_hex
from gateway.keys import Key
from gateway.responses import params, store
from gateway.responses.items import MAX_ITEMS, encode, given, id_of, page, shown, whole
from gateway.responses.service import answer, not_allowed
from gateway.responses.shelf import Shelf
from gateway.responses.store import owner_of

PATH: Final = b"/v1/conversations"
PREFIX: Final = b"/v1/conversations/"
MOST_AT_ONCE: Final = 20  # items of one request, as at OpenAI


@final
class Conversations:
    """`caller` tells who asks; it raises Unauthenticated and AccessDenied."""

    def __init__(self, shelf: Shelf, caller: Callable[[HttpExchange, str], Key]) -> None:
        self._shelf = shelf
        self._caller = caller

    async def every(self, exchange: HttpExchange) -> None:
        """`/v1/conversations`."""
        try:
            key = self._caller(exchange, "/v1/conversations")
            if exchange.method != b"POST":
                raise not_allowed(exchange, "POST")
            await self._create(exchange, owner_of(key))
        except errors.GatewayError as error:
            exchange.fail(error)

    async def one(self, exchange: HttpExchange) -> None:
        """What stands below `/v1/conversations/`."""
        try:
            owner = owner_of(self._caller(exchange, "/v1/conversations"))
            path = exchange.url.partition(b"?")[0][len(PREFIX) :].decode("latin-1")
            match exchange.method, path.split("/"):
                case b"GET", [id_]:
                    found = await self._shelf.ask(lambda tx: store.conversation(tx, owner, id_))
                    answer(exchange, found.shown())
                case b"POST", [id_]:
                    await self._update(exchange, owner, id_)
                case b"DELETE", [id_]:
                    await self._shelf.change(lambda tx: store.remove_conversation(tx, owner, id_))
                    answer(exchange, {"id": id_, "object": "conversation.deleted", "deleted": True})
                case b"GET", [id_, "items"]:
                    await self._items(exchange, owner, id_)
                case b"POST", [id_, "items"]:
                    await self._extend(exchange, owner, id_)
                case b"GET", [id_, "items", item_id]:
                    item = await self._shelf.ask(lambda tx: _item(tx, owner, id_, item_id))
                    answer(exchange, shown(item, params.included(params.query_of(exchange.url))))
                case b"DELETE", [id_, "items", item_id]:
                    left = await self._shelf.change(lambda tx: _without(tx, owner, id_, item_id))
                    answer(exchange, left.shown())
                case _, [_] | [_, "items"] | [_, "items", _]:
                    raise not_allowed(exchange, "GET, DELETE" if path.count("/") == 2 else "GET, POST, DELETE")
                case _:
                    raise errors.NotFound(f"There is no /v1/conversations/{path}", code="unknown_url")
        except errors.GatewayError as error:
            exchange.fail(error)

    async def _create(self, exchange: HttpExchange, owner: str) -> None:
        body = exchange.body
        asked = wire.parse(params.conversation_decoder, body or b"{}")
        stem = uuid7_hex()
        items = _few(whole(given(asked.items), f"{stem}c", "items"))
        made = store.new_conversation(f"conv_{stem}", owner, Raw(encode(asked.metadata or {})))
        await self._shelf.change(lambda tx: store.create(tx, made, items))
        answer(exchange, made.shown())

    async def _update(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        asked = wire.parse(params.update_decoder, exchange.body)
        metadata = encode(asked.metadata or {})
        answer(exchange, (await self._shelf.change(lambda tx: store.set_metadata(tx, owner, id_, metadata))).shown())

    async def _items(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        wanted = params.page_of(params.query_of(exchange.url))
        items = await self._shelf.ask(lambda tx: _all(tx, owner, id_))
        answer(
            exchange,
            page(items, after=wanted.after, limit=wanted.limit, ascending=wanted.ascending, include=wanted.include),
        )

    async def _extend(self, exchange: HttpExchange, owner: str, id_: str) -> None:
        asked = wire.parse(params.items_decoder, exchange.body)
        items = _few(whole(given(asked.items), f"{uuid7_hex()}c", "items"))
        include = params.included(params.query_of(exchange.url))

        def add(tx: Connection) -> None:
            store.conversation(tx, owner, id_, locked=True)
            if store.end_of(tx, id_) + len(items) > MAX_ITEMS:
                raise errors.BadRequest(
                    f"A conversation has at most {MAX_ITEMS} items", param="items", code="too_many_items"
                )
            store.extend(tx, id_, items)

        await self._shelf.change(add)
        data: list[Any] = [shown(one, include) for one in items]
        ids = [id_of(one) for one in items]
        answer(
            exchange,
            {
                "object": "list",
                "data": data,
                "first_id": ids[0] if ids else None,
                "last_id": ids[-1] if ids else None,
                "has_more": False,
            },
        )


def _few(items: list[Raw]) -> list[Raw]:
    if len(items) > MOST_AT_ONCE:
        raise errors.BadRequest(f"At most {MOST_AT_ONCE} items at a time", param="items", code="array_above_max_length")
    return items


def _item(tx: Connection, owner: str, id_: str, item_id: str) -> Raw:
    store.conversation(tx, owner, id_)
    return store.item(tx, id_, item_id)


def _without(tx: Connection, owner: str, id_: str, item_id: str) -> store.Conversation:
    found = store.conversation(tx, owner, id_, locked=True)
    store.remove_item(tx, id_, item_id)
    return found


def _all(tx: Connection, owner: str, id_: str) -> list[Raw]:
    store.conversation(tx, owner, id_)
    return store.items_of(tx, id_)
