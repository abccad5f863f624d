"""`/admin/v1/features` and `/admin/v1/training-sets`: feature views, rows for them, and what was known of entities at their times."""

import asyncio
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from sqlalchemy import Connection, Engine

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.feature_bodies import (
    FeatureBody,
    FeatureViewBody,
    FeatureViewChangeBody,
    FeatureViewView,
    RowsView,
    defaults,
    feature_view_view,
)
from admin.rest.registry_bodies import Gone
from admin.rest.wire import Limit, ListPage, StrictRoute
from gateway.database import appending, reading, record_revision
from gateway.errors import BodyTooLarge
from inference.errors import BadRequest, TooLarge
from inference.features import tabular, training, view_store, wire
from inference.features.rest import keep
from inference.features.view import FeatureView, require_columns
from inference.features.writing import Columns
from inference.registry.names import NAME

MOST_BODY: Final = 64 << 20
MOST_ROWS: Final = 200_000

Name = Annotated[str, InPath(pattern=NAME)]
Text = Annotated[str, Query(min_length=1, max_length=200)]
_TABLE = {
    "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in tabular.MEDIA},
    "required": True,
}


def router(control: Control, engine: Engine) -> APIRouter:
    routes = APIRouter(tags=["features"], route_class=StrictRoute)
    _views(routes, control)
    _changes(routes, control, engine)
    _tables(routes, control, engine)
    return routes


def _views(routes: APIRouter, control: Control) -> None:
    @routes.get("/features", summary="List feature views by name", responses=documented())
    async def listed(
        limit: Limit = 100, after: Annotated[str | None, Query(pattern=NAME)] = None
    ) -> ListPage[FeatureViewView]:
        def work(tx: Connection) -> ListPage[FeatureViewView]:
            found = view_store.listed(tx, limit, after)
            views = [feature_view_view(each) for each in found]
            return ListPage[FeatureViewView].cut(views, limit, lambda one: one.name)

        return await control.read(work)

    @routes.post(
        "/features",
        summary="Add a feature view",
        status_code=201,
        response_model=FeatureViewView,
        responses=documented(409),
    )
    async def create(request: Request, asker: Asker, body: FeatureViewBody) -> Response:
        return await control.create(request, asker, "feature_view.create", partial(_create, body, asker.actor))

    @routes.get("/features/{name}", summary="Show a feature view", responses=documented(404))
    async def show(name: Name) -> FeatureViewView:
        return await control.read(partial(_shown, name))


def _changes(routes: APIRouter, control: Control, engine: Engine) -> None:
    @routes.patch("/features/{name}", summary="Change a feature view, or add features", responses=documented(404, 409))
    async def change(name: Name, asker: Asker, body: FeatureViewChangeBody) -> FeatureViewView:
        def work(tx: Connection) -> FeatureViewView:
            before = view_store.find(tx, name)
            revision = record_revision(tx, f"feature view {name} changed")
            return feature_view_view(view_store.change(tx, name, revision, changed(before, body)))

        return await control.change(asker, "feature_view.change", name, work, before=partial(_shown, name))

    @routes.delete("/features/{name}", summary="Delete a feature view with its rows", responses=documented(404))
    async def delete(name: Name, asker: Asker) -> Gone:
        def work(tx: Connection) -> None:
            view_store.remove(tx, name)
            record_revision(tx, f"feature view {name} deleted")

        await control.delete(asker, "feature_view.delete", name, work, before=partial(_shown, name))
        await asyncio.to_thread(swept, engine)
        return Gone(name=name)


def _tables(routes: APIRouter, control: Control, engine: Engine) -> None:
    @routes.post(
        "/features/{name}/rows",
        summary="Write rows: JSON, CSV or Parquet; all of them or none",
        responses=documented(404, 413),
        openapi_extra={"requestBody": _TABLE},
    )
    async def rows(request: Request, name: Name) -> RowsView:
        form = tabular.format_of(request.headers.get("content-type", ""))
        body = await _body(request)
        view = await control.read(lambda tx: view_store.find(tx, name))
        return await asyncio.to_thread(_kept, engine, view, body, form)

    @routes.post(
        "/training-sets",
        summary="Join features to entities as of their times",
        response_class=Response,
        responses=documented(404, 413),
        openapi_extra={"requestBody": _TABLE},
    )
    async def training_set(
        request: Request,
        features: Annotated[list[str] | None, Query(max_length=2000)] = None,
        feature_view: Text | None = None,
        time_column: Text = "event_timestamp",
        full_feature_names: bool = False,
    ) -> Response:
        media = request.headers.get("content-type", "")
        form = tabular.format_of(media)
        asked = {"features": [one for each in features or () for one in each.split(",")]}
        if feature_view is not None:
            asked = {"feature_service": feature_view}  # type: ignore[dict-item]  # as Feast names all of them
        body = await _body(request)
        views = await control.read(lambda tx: {view.name: view for view in view_store.every(tx)})
        wanted = wire.wanted(asked, views.get)
        work = partial(_joined, engine, wanted, body, form, time_column, full_feature_names)
        made = await asyncio.to_thread(work)
        return Response(made, media_type=media.partition(";")[0].strip() or "application/json")


def swept(engine: Engine) -> None:
    """Blocks. Rows of views that are gone are gone too, a transaction for each part of them."""
    gone = 1
    while gone:
        with appending(engine) as tx:
            gone = view_store.sweep(tx)


def _create(body: FeatureViewBody, actor: str, tx: Connection) -> tuple[str, FeatureViewView]:
    revision = record_revision(tx, f"feature view {body.name} created")
    return body.name, feature_view_view(view_store.add(tx, body.view(revision, actor)))


def _shown(name: str, tx: Connection) -> FeatureViewView:
    return feature_view_view(view_store.find(tx, name))


def changed(before: FeatureView, body: FeatureViewChangeBody) -> dict[str, Any]:
    """Raises BadRequest."""
    given = body.model_fields_set
    changes: dict[str, Any] = {name: getattr(body, name) for name in ("ttl_s", "description") if name in given}
    if body.missing is not None:
        changes["missing"] = body.missing
    if body.tags is not None:
        changes["tags"] = dict(body.tags)
    if body.source is not None:
        changes["source"] = body.source.source()
    if body.features is not None:
        changes["features"] = _more(before, body.features)
        named = {each.name for each in body.features}
        kept = {name: value for name, value in before.defaults.items() if name not in named}
        changes["defaults"] = {**kept, **defaults(body.features)}
    return changes


def _more(before: FeatureView, features: tuple[FeatureBody, ...]) -> tuple[Any, ...]:
    made = list(before.features)
    for each in features:
        known, column = before.feature(each.name), each.column()
        if known is None:
            made.append(column)
        elif known != column:
            raise BadRequest(
                f"features: '{each.name}' stays what it is ({known.datatype}), since models were trained on it; give a new one a new name",
                param="features",
                code="feature_retyped",
            )
    require_columns(before.entities, made)
    return tuple(made)


def _kept(engine: Engine, view: FeatureView, body: bytes, form: tabular.Format) -> RowsView:
    columns, count = _table(body, form, view)
    written = keep(partial(appending, engine), view, columns, count, tabular.place(form))
    return RowsView(view=view.name, rows=written)


def _joined(
    engine: Engine, wanted: tuple[wire.Wanted, ...], body: bytes, form: tabular.Format, time_column: str, full: bool
) -> bytes:
    known = {each.name: each for view, _ in wanted for each in view.entities}
    columns, count = tabular.read(body, form, tuple(known.values()))
    _bounded(count)
    place = tabular.place(form)
    made = training.joined(partial(reading, engine), wanted, columns, place, time_column=time_column, full_names=full)
    return tabular.write(made, form)


def _table(body: bytes, form: tabular.Format, view: FeatureView) -> tuple[Columns, int]:
    columns, count = tabular.read(body, form, (*view.entities, *view.features))
    _bounded(count)
    return columns, count


def _bounded(rows: int) -> None:
    if rows > MOST_ROWS:
        raise TooLarge(
            f"{rows:,} rows at once; at most {MOST_ROWS:,} are taken: use `penstock features`", code="too_many_rows"
        )


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY:
            raise BodyTooLarge(f"The body may have {MOST_BODY:,} bytes")
        parts.append(part)
    return b"".join(parts)
