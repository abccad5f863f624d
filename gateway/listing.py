"""`GET /v1/models` and `GET /v1/models/{model}`: what the caller may use, in OpenAI's shape or in Anthropic's for its clients, with what
is known of it beside that.

The admin key also sees each model's deployments.
"""

from collections.abc import Collection
from typing import final
from urllib.parse import unquote_to_bytes

import msgspec

from gateway import errors
from gateway.authentication import ADMIN, Authenticator
from gateway.catalog import Catalog, Model
from gateway.fronts import messages_models
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.keys import Key
from gateway.model_card import Json, card
from gateway.price_map import PriceMap
from gateway.snapshot import Current

PREFIX = b"/v1/models/"
MAX_CARDS = 4096  # names that stand behind wildcards come from clients


@final
class Listing:
    """Wildcards are shown as their patterns: what they admit, only the upstream knows."""

    def __init__(self, current: Current, authenticator: Authenticator, prices: PriceMap) -> None:
        self._prices = prices
        self._cards: dict[tuple[str, bool], Json] = {}
        self._cards_of: Catalog | None = None
        self._current = current
        self._authenticator = authenticator

    async def every(self, exchange: HttpExchange) -> None:
        """The list, sorted by name."""
        try:
            key = self._key(exchange)
        except errors.GatewayError as error:
            exchange.fail(error)
            return
        catalog = self._current.snapshot.catalog
        named = {**{model.name: model for _, model in catalog.wildcards}, **catalog.aliases, **catalog.models}
        rows = [self._card(named[name], name, key) for name in named if key.may_use(name, named[name].admitted_by)]
        rows += [_route(name) for name in self._routes() if name not in named and key.may_use(name)]
        rows.sort(key=lambda row: str(row["id"]))
        made: dict[str, object] = {"object": "list", "data": rows}
        if messages_models.MARK in exchange.headers:
            try:
                made = messages_models.page(rows, exchange.url.partition(b"?")[2].decode("latin-1"))
            except errors.BadRequest as error:
                exchange.fail(error)
                return
        exchange.respond(200, JSON_HEAD, msgspec.json.encode(made))

    async def one(self, exchange: HttpExchange) -> None:
        """One model by its name, which may contain slashes."""
        try:
            key = self._key(exchange)
            name = unquote_to_bytes(exchange.url.partition(b"?")[0][len(PREFIX) :]).decode("utf-8", "replace")
            if name in self._routes() and key.may_use(name):
                _tell(exchange, _route(name))
                return
            found = self._current.snapshot.catalog.find(name)
            if found is None or not key.may_use(name, found[0].admitted_by):
                raise errors.NotFound(f"The model '{name}' does not exist", param="model")
        except errors.GatewayError as error:
            exchange.fail(error)
            return
        model, match = found
        _tell(exchange, self._card(model, name, key, match))

    def _card(self, model: Model, name: str, key: Key, match: str = "") -> Json:
        """Made once per name and configuration: clients' interfaces ask for the list all day."""
        catalog = self._current.snapshot.catalog
        if catalog is not self._cards_of or len(self._cards) >= MAX_CARDS:
            self._cards, self._cards_of = {}, catalog
        known = self._cards.get((name, key is ADMIN))
        if known is None:
            stands_for = match or ("" if name.endswith("*") else model.name)
            if model.router is not None:  # what holds wherever its calls may go
                model = msgspec.structs.replace(model, deployments=catalog.places(model))
            known = card(model, name, stands_for, self._prices, for_admin=key is ADMIN)
            self._cards[name, key is ADMIN] = known
        return known

    def _routes(self) -> Collection[str]:
        versions = self._current.snapshot.versions
        return () if versions is None else versions.routes.keys()

    def _key(self, exchange: HttpExchange) -> Key:
        return self._authenticator.caller(self._current.snapshot, exchange.headers)


def _tell(exchange: HttpExchange, row: Json) -> None:
    made = messages_models.model(row) if messages_models.MARK in exchange.headers else row
    exchange.respond(200, JSON_HEAD, msgspec.json.encode(made))


def _route(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock"}
