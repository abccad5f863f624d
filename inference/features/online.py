"""Where the newest features of entities are read while a prediction waits: this database, or a feature server of Feast."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, final

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import InferenceError
from inference.features import row_store, wire
from inference.features.view import Feast, FeatureView, Row, entity

Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[tuple[int, bytes]]]
"""URL, body, headers and seconds to status and body. Raises OSError. Wants to be called in a task of asyncio."""

PATH: Final = "/get-online-features"


class StoreFailed(InferenceError):
    """The store did not answer, or nothing that could be used: nobody's input is at fault."""

    status, type, code = 502, "upstream_error", "feature_store_failed"


class FeastServer(msgspec.Struct, frozen=True):
    """`token` is sent as a bearer's."""

    url: str
    token: str | None = None
    timeout_s: float = 2.0


@final
class OnlineStore:
    """One per process. `reading` is a transaction that writes nothing, for a thread; `servers` are those that the configuration names."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Connection]],
        post: Post,
        servers: Mapping[str, FeastServer],
    ) -> None:
        self._reading = reading
        self._post = post
        self._servers = servers

    async def read(self, view: FeatureView, entities: Mapping[str, Sequence[Any]], rows: int) -> Sequence[Row | None]:
        """The newest row of each; None for an entity of which nothing is known. `entities` by column. Raises StoreFailed."""
        if isinstance(view.source, Feast):
            loop = asyncio.get_running_loop()
            return await loop.create_task(self._ask(view, view.source, entities, rows))
        keys = [entity(values) for values in zip(*(entities[name] for name in view.keys), strict=True)]
        try:
            found = await asyncio.to_thread(self._look, view.number, keys)
        except SQLAlchemyError as error:
            raise StoreFailed("The features cannot be read: the database did not answer") from error
        return [found.get(key) for key in keys]

    def _look(self, view: int, keys: Sequence[str]) -> Mapping[str, Row]:
        with self._reading() as tx:
            return row_store.latest(tx, view, keys)

    async def _ask(
        self, view: FeatureView, source: Feast, entities: Mapping[str, Sequence[Any]], rows: int
    ) -> Sequence[Row | None]:
        server = self._servers.get(source.server)
        if server is None:
            raise StoreFailed(f"The configuration names no feature server '{source.server}': features.feast")
        body = msgspec.json.encode(wire.question(view, source.view or view.name, entities))
        headers = {"content-type": "application/json"}
        if server.token is not None:
            headers["authorization"] = f"Bearer {server.token}"
        who = f"The feature server '{source.server}'"
        try:
            status, said = await self._post(f"{server.url.rstrip('/')}{PATH}", body, headers, server.timeout_s)
        except OSError as error:
            raise StoreFailed(f"{who} did not answer: {error}") from error
        if status != 200:
            raise StoreFailed(f"{who} answered {status}")
        try:
            return wire.rows_of(msgspec.json.decode(said), view, rows)
        except (msgspec.DecodeError, ValueError) as error:
            raise StoreFailed(f"{who} gave {str(error)[:200]}") from error
