"""`/admin/v1/scoring`: predictions for whole tables, asked for, watched and cancelled."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute, at, moment
from admin.scoring import asked
from admin.scoring.home import Home
from gateway.errors import BadRequest
from gateway.ids import new_id
from gateway.settings import Section
from inference.ports import Library
from inference.scoring import job_store
from inference.scoring.job import Job, Place, Spec, State

Text = Annotated[str, Field(min_length=1, max_length=500)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class Scoring(msgspec.Struct, frozen=True):
    """What the routes need. `folders`: where files may be, beside those of `home`; `notice` tells this process of a new job."""

    home: Home
    library: Library
    folders: Sequence[Path]
    databases: Collection[str]
    notice: Callable[[], None]


class SourceBody(Section):
    """A file (`path`), or a `database` that the configuration names with a `query`."""

    path: FilePath | None = None
    database: Text | None = None
    query: Annotated[str | None, Field(max_length=100_000)] = None


class TargetBody(Section):
    """A file (`path`), or a `table` of a `database` that the configuration names."""

    path: FilePath | None = None
    database: Text | None = None
    table: Text | None = None


class ScoringBody(Section):
    """Relative paths are those of `scoring/files` in the data directory. The version is settled now, whatever an alias says later.

    `key_id`: the key whose budgets, limits and ledger it is on; without one it is on nobody's account.
    """

    model: Text
    version: Annotated[int | None, Field(ge=1, le=2_147_483_647)] = None
    input: SourceBody
    output: TargetBody
    refused: FilePath | None = None
    key: Text | None = None
    features: Annotated[tuple[Text, ...] | None, Field(min_length=1, max_length=100_000)] = None
    chunk_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    max_refused: Annotated[float, Field(ge=0, le=1)] = 0.1
    key_id: Text | None = None


class PlaceView(BaseModel):
    path: str | None
    database: str | None
    query: str | None
    table: str | None


class RowsView(BaseModel):
    """`total` is known once the job has begun. `done` are those looked at, `refused` among them."""

    total: int | None
    done: int
    refused: int


class ScoringErrorView(BaseModel):
    code: str
    message: str


class ScoringView(BaseModel):
    """`refused` is the file of rows that the model did not take, as JSON lines."""

    id: str
    model: str
    version: int
    state: State
    rows: RowsView
    input: PlaceView
    output: PlaceView
    refused: str
    key: str | None
    chunk_rows: int
    max_refused: float
    key_id: str | None
    error: ScoringErrorView | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


def router(control: Control, scoring: Scoring) -> APIRouter:
    routes = APIRouter(prefix="/scoring", tags=["scoring"], route_class=StrictRoute)

    @routes.get("", summary="List scoring jobs, newest first", responses=documented())
    async def listed(limit: Limit = 100, after: After = None, state: State | None = None) -> ListPage[ScoringView]:
        def work(tx: Connection) -> ListPage[ScoringView]:
            found = job_store.listed(tx, limit, after, state)
            views = [_view(each) for each in found]
            return ListPage[ScoringView].cut(views, limit, lambda one: one.id)

        return await control.read(work)

    @routes.post(
        "",
        summary="Predict for a whole table",
        status_code=201,
        response_model=ScoringView,
        responses=documented(404),
    )
    async def create(request: Request, asker: Asker, body: ScoringBody) -> Response:
        name, _, alias = body.model.partition("@")
        version = scoring.library.bundle(name, body.version, alias or None).version
        home = await asyncio.to_thread(scoring.home.id)
        job = new_id("score")
        spec = await asyncio.to_thread(_spec, scoring, body, job)

        def work(tx: Connection) -> tuple[str, ScoringView]:
            asked.payer(tx, spec)
            return job, _view(job_store.add(tx, job, home, name, version, spec, asker.actor))

        answer = await control.create(request, asker, "scoring.create", work)
        scoring.notice()
        return answer

    @routes.get("/{id}", summary="Show a scoring job and how far it is", responses=documented(404))
    async def show(id: Identifier) -> ScoringView:  # noqa: A002 — the name in the path
        return await control.read(lambda tx: _view(job_store.find(tx, id)))

    @routes.post("/{id}/cancel", summary="Cancel a scoring job; it leaves no output", responses=documented(404, 409))
    async def cancel(id: Identifier, asker: Asker) -> ScoringView:  # noqa: A002 — as above
        def before(tx: Connection) -> ScoringView:
            return _view(job_store.find(tx, id))

        return await control.change(
            asker, "scoring.cancel", id, lambda tx: _view(job_store.cancel(tx, id)), before=before
        )

    @routes.post("/{id}/resume", summary="Go on with a paused scoring job", responses=documented(404, 409))
    async def resume(id: Identifier, asker: Asker) -> ScoringView:  # noqa: A002 — as above
        def before(tx: Connection) -> ScoringView:
            return _view(job_store.find(tx, id))

        shown = await control.change(
            asker, "scoring.resume", id, lambda tx: _view(job_store.resume(tx, id)), before=before
        )
        scoring.notice()
        return shown

    return routes


def _spec(scoring: Scoring, body: ScoringBody, job: str) -> Spec:
    """Blocks. Raises BadRequest."""
    given, wanted = body.input, body.output
    _one("input", given.path, given.database)
    _one("output", wanted.path, wanted.database)
    if given.path is not None:
        source = asked.file(_within(scoring, given.path, "input.path"), "input.path")
    else:
        source = asked.query(given.database or "", given.query, scoring.databases, "input")
    if wanted.path is not None:
        target = asked.file(_within(scoring, wanted.path, "output.path"), "output.path")
        refused = f"{target.path}.refused.jsonl"
    else:
        target = asked.table(wanted.database or "", wanted.table, scoring.databases, "output")
        refused = str(scoring.home.files / f"{job}.refused.jsonl")
    if body.refused is not None:
        refused = str(_within(scoring, body.refused, "refused"))
    return asked.checked(
        Spec(source, target, refused, body.key, body.features, body.chunk_rows, body.max_refused, body.key_id)
    )


def _one(param: str, path: str | None, database: str | None) -> None:
    if (path is None) is (database is None):
        raise BadRequest(f"{param}: name a path or a database, one of them", param=param, code="invalid_value")


def _within(scoring: Scoring, path: str, param: str) -> Path:
    """Symbolic links are followed before it is asked. Raises BadRequest."""
    if "\0" in path:
        raise BadRequest(f"{param}: this is no path", param=param, code="invalid_value")
    found = (scoring.home.files / path).resolve()
    for folder in (scoring.home.files, *scoring.folders):
        if found.is_relative_to(folder.resolve()):
            return found
    raise BadRequest(
        f"{param}: only files in scoring/files of the data directory, or in predictions.scoring.folders, can be named",
        param=param,
        code="path_not_allowed",
    )


def _view(job: Job) -> ScoringView:
    spec = job.spec
    return ScoringView(
        id=job.id,
        model=job.model,
        version=job.version,
        state=job.state,
        rows=RowsView(total=job.count.total, done=job.count.done, refused=job.count.refused),
        input=_place(spec.input),
        output=_place(spec.output),
        refused=spec.refused,
        key=spec.key,
        chunk_rows=spec.chunk_rows,
        max_refused=spec.max_refused,
        key_id=spec.key_id,
        error=None if job.code is None else ScoringErrorView(code=job.code, message=job.message or ""),
        created_by=job.created_by,
        created_at=at(job.created_at),
        started_at=moment(job.started_at),
        ended_at=moment(job.ended_at),
    )


def _place(place: Place) -> PlaceView:
    return PlaceView(path=place.path, database=place.database, query=place.query, table=place.table)
