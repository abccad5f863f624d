"""`/admin/v1/monitors`: whether what is asked of a collection, and what is in it, is still like it was."""

import time
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Deleted, Identifier, Limit, ListPage, StrictRoute, at
from gateway.database import record_revision
from gateway.errors import BadRequest, NotFound
from gateway.ids import new_id
from gateway.settings import Section
from inference.monitors import store
from inference.monitors.monitor import FEWEST, STREAMS, TESTS, Monitor, Stream, Terms, Test, Window
from retrieval import collection_store

MOST_ROWS = 5_000
MOST_MONITORS = 1_000

Alpha = Annotated[float, Field(ge=0.001, le=0.2)]
Tests = Literal["auto"] | Annotated[list[Test], Field(min_length=1, max_length=len(TESTS))]


class TargetBody(Section):
    """`name`: a vector store's id, or its name if no other one has it."""

    kind: Literal["collection"]
    name: Annotated[str, Field(min_length=1, max_length=256)]


class WindowBody(Section):
    """So many distinct questions, or those of so many seconds, as soon as these are 30."""

    rows: Annotated[int, Field(ge=FEWEST, le=MOST_ROWS)] = 200
    seconds: Annotated[float, Field(ge=1, le=31_536_000)] | None = None


class ActionBody(Section):
    """`alert`: webhooks that want `drift` hear of it."""

    action: Literal["alert"]


class MonitorBody(Section):
    """`reference`: the first window of questions, and the documents that there are by then. `alpha`: the share of windows that chance alone
    may call drifted. `tests`: `mmd`, where the vectors lie; `ks`, how near questions have the nearest document."""

    target: TargetBody
    reference: Literal["window"] = "window"
    window: WindowBody = WindowBody()
    tests: Tests = "auto"
    alpha: Alpha = 0.01
    on_drift: Annotated[tuple[ActionBody, ...], Field(max_length=1)] = (ActionBody(action="alert"),)


class MonitorPatch(Section):
    """`renew`: forgets what it was like, so that the next window is the new reference."""

    window: WindowBody | None = None
    tests: Tests | None = None
    alpha: Alpha | None = None
    on_drift: Annotated[tuple[ActionBody, ...], Field(max_length=1)] | None = None
    renew: bool = False


class TargetView(BaseModel):
    kind: str
    name: str
    id: str


class ActionView(BaseModel):
    action: str


class SizeView(BaseModel):
    rows: int
    seconds: float | None


class MonitorView(BaseModel):
    """`state`: `waiting` until there is a reference to compare questions with. `drifted`: of the newest window of each stream."""

    id: str
    target: TargetView
    reference: str
    window: SizeView
    tests: list[str]
    alpha: float
    on_drift: list[ActionView]
    state: Literal["waiting", "watching"]
    embedding_version: int | None
    drifted: dict[str, bool]
    created_at: datetime


class ColumnView(BaseModel):
    """Of queries, `embedding`: where they lie, `nearest`: how near the corpus is to them. `threshold` is of `p_value`."""

    column: str
    test: str
    statistic: float
    p_value: float
    threshold: float
    drifted: bool


class WindowView(BaseModel):
    """`stream`: `queries`, of which `rows` were distinct, or `corpus`, of which as many documents were looked at."""

    number: int
    stream: str
    embedding_version: int
    rows: int
    since: datetime
    until: datetime
    drifted: bool
    columns: list[ColumnView]


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/monitors", tags=["monitors"], route_class=StrictRoute)
    _write(routes, control)
    _look(routes, control)
    return routes


def _write(routes: APIRouter, control: Control) -> None:
    @routes.post(
        "", summary="Watch a collection", status_code=201, response_model=MonitorView, responses=documented(404)
    )
    async def create(request: Request, asker: Asker, body: MonitorBody) -> Response:
        def work(tx: Connection) -> tuple[str, BaseModel]:
            if len(store.every(tx)) >= MOST_MONITORS:
                raise BadRequest(f"There are {MOST_MONITORS} monitors already: delete some.", code="too_many_monitors")
            subject = _collection(tx, body.target.name)
            monitor = Monitor(new_id("mon"), "collection", body.target.name, subject, _terms(body), time.time())
            store.add(tx, monitor)
            record_revision(tx, f"monitor {monitor.id}")
            return monitor.id, _view(tx, monitor)

        return await control.create(request, asker, "monitor.create", work)

    @routes.patch("/{id}", summary="Change a monitor, or let it begin anew", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: MonitorPatch) -> MonitorView:  # noqa: A002 — the path's name
        def work(tx: Connection) -> MonitorView:
            found = _found(tx, id)
            store.change(tx, id, _changed(found.terms, body))
            if body.renew:
                store.forget(tx, id)
            record_revision(tx, f"monitor {id}")
            return _view(tx, _found(tx, id))

        return await control.change(asker, "monitor.change", id, work, before=lambda tx: _view(tx, _found(tx, id)))

    @routes.delete("/{id}", summary="Watch it no longer", responses=documented(404))
    async def delete(id: Identifier, asker: Asker) -> Deleted:  # noqa: A002 — as above
        def work(tx: Connection) -> None:
            store.remove(tx, id)
            record_revision(tx, f"monitor {id} deleted")

        await control.delete(asker, "monitor.delete", id, work, before=lambda tx: _view(tx, _found(tx, id)))
        return Deleted(id=id)


def _look(routes: APIRouter, control: Control) -> None:
    @routes.get("", summary="List monitors, newest first", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[MonitorView]:
        def work(tx: Connection) -> ListPage[MonitorView]:
            found = store.listed(tx, limit, after)
            views = [_view(tx, one) for one in found]
            return ListPage[MonitorView].cut(views, limit, lambda one: one.id)

        return await control.read(work)

    @routes.get("/{id}", summary="Show a monitor", responses=documented(404))
    async def show(id: Identifier) -> MonitorView:  # noqa: A002 — as above
        return await control.read(lambda tx: _view(tx, _found(tx, id)))

    @routes.get("/{id}/windows", summary="What was found, newest first", responses=documented(404))
    async def windows(
        id: Identifier,  # noqa: A002 — as above
        limit: Limit = 100,
        after: Annotated[int | None, Query(ge=1, le=2_147_483_647)] = None,
        stream: Stream | None = None,
    ) -> ListPage[WindowView]:
        def work(tx: Connection) -> ListPage[WindowView]:
            _found(tx, id)
            found = store.windows(tx, id, limit, after, stream)
            views = [_window(one) for one in found]
            return ListPage[WindowView].cut(views, limit, lambda one: str(one.number))

        return await control.read(work)


def _collection(tx: Connection, name: str) -> str:
    """Its id. Raises NotFound, BadRequest."""
    found = collection_store.called(tx, name)
    if not found:
        raise NotFound(f"There is no collection {name!r}", param="target.name", code="collection_not_found")
    if len(found) > 1:
        raise BadRequest(
            f"{len(found)} collections are called {name!r}: say which one by its id, as {found[0]}",
            param="target.name",
            code="ambiguous_collection",
        )
    return found[0]


def _found(tx: Connection, id_: str) -> Monitor:
    found = store.find(tx, id_)
    if found is None:
        raise NotFound(f"There is no monitor {id_!r}", param="id", code="monitor_not_found")
    return found


def _tests(tests: Tests) -> tuple[Test, ...]:
    return TESTS if tests == "auto" else tuple(dict.fromkeys(tests))


def _terms(body: MonitorBody) -> Terms:
    return Terms(body.window.rows, body.window.seconds, _tests(body.tests), body.alpha, bool(body.on_drift))


def _changed(terms: Terms, body: MonitorPatch) -> Terms:
    if body.window is not None:
        terms = msgspec.structs.replace(terms, rows=body.window.rows, seconds=body.window.seconds)
    if body.tests is not None:
        terms = msgspec.structs.replace(terms, tests=_tests(body.tests))
    if body.alpha is not None:
        terms = msgspec.structs.replace(terms, alpha=body.alpha)
    if body.on_drift is not None:
        terms = msgspec.structs.replace(terms, alert=bool(body.on_drift))
    return terms


def _view(tx: Connection, monitor: Monitor) -> MonitorView:
    terms = monitor.terms
    version, ready = store.progress(tx, monitor.id)
    newest = {stream: store.windows(tx, monitor.id, 1, stream=stream) for stream in STREAMS}
    return MonitorView(
        id=monitor.id,
        target=TargetView(kind=monitor.kind, name=monitor.name, id=monitor.subject),
        reference="window",
        window=SizeView(rows=terms.rows, seconds=terms.seconds),
        tests=list(terms.tests),
        alpha=terms.alpha,
        on_drift=[ActionView(action="alert")] if terms.alert else [],
        state="watching" if ready else "waiting",
        embedding_version=version,
        drifted={stream: found[0].drifted for stream, found in newest.items() if found},
        created_at=at(monitor.created_at),
    )


def _window(window: Window) -> WindowView:
    return WindowView(
        number=window.number,
        stream=window.stream,
        embedding_version=window.version,
        rows=window.rows,
        since=at(window.since),
        until=at(window.until),
        drifted=window.drifted,
        columns=[
            ColumnView(
                column=each.column,
                test=each.test,
                statistic=each.statistic,
                p_value=each.p_value,
                threshold=each.threshold,
                drifted=each.drifted,
            )
            for each in window.findings
        ],
    )
