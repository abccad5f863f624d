"""Feast's HTTP API over the views here: `/get-online-features` reads, `/push` and `/write-to-online-store` write.

Keys, limits and records are those of every other call. Reading is for keys that may use the model `features/{view}`; writing, for the admin
key and for those whose own list of routes names the path, since what is written decides answers of others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import BadRequest, InferenceError, NotFound
from inference.features import row_store, wire, writing
from inference.features.online import OnlineStore, StoreFailed
from inference.features.view import MICRO, FeatureView, Native, Row
from inference.features.wire import Asked, Wanted
from inference.serving import errors
from inference.serving.desk import Desk, Visit
from inference.serving.errors import BadInput, NotAllowed
from inference.serving.exchange import JSON, Exchange, parsed, path_of

if TYPE_CHECKING:
    from inference.features.joining import Views

READ: Final = "/get-online-features"
PUSH: Final = "/push"
WRITE: Final = "/write-to-online-store"
ENDPOINT: Final = "features"
ASKS: Final = frozenset(
    {"features", "feature_service", "entities", "full_feature_names", "include_feature_view_version_metadata"}
)
PUSHES: Final = frozenset({"push_source_name", "df", "to", "allow_registry_cache", "transform_on_write"})
WRITES: Final = frozenset({"feature_view_name", "df", "allow_registry_cache", "transform_on_write"})
TO: Final = frozenset({"online", "offline", "online_and_offline"})

Writing = Callable[[], AbstractContextManager[Connection]]


@final
class FeaturesRest:
    """One per process. `writing` is a transaction, for a thread; `most_rows`: of one request."""

    def __init__(self, views: "Views", store: OnlineStore, desk: Desk, writing: Writing, most_rows: int) -> None:
        self._views = views
        self._store = store
        self._desk = desk
        self._writing = writing
        self._most_rows = most_rows

    async def serve(self, exchange: Exchange) -> None:
        path = path_of(exchange).rstrip("/")
        visit = self._desk.open(exchange.headers, ENDPOINT, path, exchange.started_at)
        try:
            visit.enter()
            if exchange.method != b"POST":
                raise NotAllowed("Use POST here", headers=(("allow", "POST"),))
            began = time.monotonic()
            said = await (self._read(exchange, visit) if path == READ else self._write(exchange, visit, path))
            visit.done(time.monotonic() - began)
            exchange.respond(200, visit.head(JSON), said)
        except InferenceError as error:
            visit.failed(error)
            exchange.respond(error.status, errors.head(error) + visit.fail_head(), errors.body(error))
        finally:
            visit.close()

    async def _read(self, exchange: Exchange, visit: Visit) -> bytes:
        body = _known(parsed(exchange.body), ASKS)
        views = self._views()
        asked = wire.read(body, views.get, self._most_rows)
        for view, _ in asked.wanted:
            visit.about(f"features/{view.name}")
        visit.found(f"features/{asked.wanted[0].view.name}", asked.wanted[0].view.version)
        await visit.hold(0)
        found = [await self._rows(asked, one) for one in asked.wanted]
        return msgspec.json.encode(wire.answer(asked, found, int(time.time() * MICRO)))

    async def _rows(self, asked: Asked, wanted: Wanted) -> Sequence[Row | None]:
        view = wanted.view
        entities = {}
        for column in view.entities:
            if column.name not in asked.entities:
                raise BadInput(
                    f"The feature view '{view.name}' wants the entity '{column.name}'",
                    param=f"entities.{column.name}",
                    code="missing_feature",
                )
            entities[column.name] = writing.values(column, asked.entities[column.name], _entity_place, required=True)
        return await self._store.read(view, entities, asked.rows)

    async def _write(self, exchange: Exchange, visit: Visit, path: str) -> bytes:
        visit.require_named(path)
        body = _known(parsed(exchange.body), PUSHES if path == PUSH else WRITES)
        if path == PUSH and body.get("to", "online") not in TO:
            raise BadInput("Invalid 'to': online, offline or online_and_offline", param="to")
        name = "push_source_name" if path == PUSH else "feature_view_name"
        view = self._named(body.get(name), name, pushed=path == PUSH)
        visit.about(f"features/{view.name}")
        visit.found(f"features/{view.name}", view.version)
        await visit.hold(0)
        columns, rows = writing.by_column(body.get("df"), "df")
        if rows > self._most_rows:
            raise BadInput(f"{rows} rows in one request; at most {self._most_rows} are taken", param="df")
        await asyncio.to_thread(keep, self._writing, view, columns, rows, _df_place, strict=False)
        return b"" if path == PUSH else b"null"  # as the feature server of Feast says that it is done

    def _named(self, name: Any, field: str, *, pushed: bool) -> FeatureView:
        views = self._views()
        if not isinstance(name, str):
            raise BadInput(f"Invalid '{field}': expected a text", param=field)
        if pushed:
            for view in views.values():
                if isinstance(view.source, Native) and view.source.push == name:
                    return view
        found = views.get(name)
        if found is None:
            raise NotFound(f"There is no feature view '{name[:200]}'", param=field, code="feature_view_not_found")
        return found


def keep(
    transaction: Writing, view: FeatureView, columns: writing.Columns, rows: int, at: writing.At, *, strict: bool = True
) -> int:
    """Blocks. How many rows were written, all of them or none. Raises InferenceError."""
    if not isinstance(view.source, Native):
        raise BadRequest(f"The features of '{view.name}' are kept at Feast: write them there", code="not_writable")
    now_us = int(time.time() * MICRO)
    made = writing.written(view, columns, rows, at, now_us, strict=strict)
    try:
        with transaction() as tx:
            row_store.write(tx, view.number, made, now_us)
    except SQLAlchemyError as error:
        raise StoreFailed("The features were not written: the database did not answer") from error
    return len(made)


def _known(body: Mapping[str, Any], fields: frozenset[str]) -> Mapping[str, Any]:
    more = next((field for field in body if field not in fields), None)
    if more is not None:
        raise BadInput(f"Unknown field '{more[:80]}'", param=more[:80], code="unknown_field")
    return body


def _entity_place(name: str, row: int) -> str:
    return f"entities.{name}[{row}]"


def _df_place(name: str, row: int) -> str:
    return f"df.{name}[{row}]"
