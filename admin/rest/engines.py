"""`/admin/v1/engines`: processes that serve models, as they are wanted and as they are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Connection

from admin.fleet.desk import sealing
from admin.rest.complaints import complaint
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute, at, moment
from gateway.database import record_revision
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.secret_box import shown
from gateway.settings import Section
from inference.fleet import command, store
from inference.fleet.settings import (
    Argument,
    EngineKind,
    EnginePriceSpec,
    EngineSpec,
    Gpu,
    IdleSpec,
    LoraSpec,
    ModelName,
    ProgramSpec,
    ReadySpec,
    RestartSpec,
    Seconds,
    Secret,
    Variable,
    WakeSpec,
)
from inference.fleet.states import Phase, State
from inference.fleet.store import EngineExistsError, EngineRecord, UnknownEngineError

Action = Literal["restart", "stop", "start", "sleep", "wake"]


class EngineBody(EngineSpec):
    """As under `engines:` in `penstock.yaml`. The program and its variables have to be allowed by `engine_programs` of that file."""


class EngineChangeBody(Section):
    """What is left out stays; null puts the default back. The name stays what it is. Running processes are replaced, one by one."""

    kind: EngineKind | None = None
    description: Annotated[str | None, Field(max_length=2000)] = None
    model: Annotated[str | None, Field(min_length=1, max_length=4096)] = None
    serves: ModelName | None = None
    program: Annotated[tuple[Argument, ...] | None, Field(min_length=1, max_length=100)] = None
    args: Annotated[tuple[Argument, ...] | None, Field(max_length=1000)] = None
    env: dict[Variable, Secret] | None = None
    gpus: Annotated[tuple[tuple[Gpu, ...], ...] | None, Field(max_length=256)] = None
    host: Annotated[str | None, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")] = None
    port: Annotated[int | None, Field(ge=1, le=65_000)] = None
    replicas: Annotated[int | None, Field(ge=1, le=64)] = None
    parallel: Annotated[int | None, Field(ge=1, le=100_000)] = None
    lora: Annotated[tuple[LoraSpec, ...] | None, Field(max_length=1000)] = None
    price: EnginePriceSpec | None = None
    ready: ReadySpec | None = None
    restart: RestartSpec | None = None
    check_s: Seconds | None = None
    drain_s: Annotated[float | None, Field(ge=0, le=86_400)] = None
    stop_s: Annotated[float | None, Field(ge=0, le=3600)] = None
    nice: Annotated[int | None, Field(ge=0, le=19)] = None
    idle: IdleSpec | None = None
    wake: WakeSpec | None = None
    sleep_mode: bool | None = None
    replace: Literal["rolling", "recreate"] | None = None
    on_exit: Literal["stop", "keep"] | None = None
    max_rss_mb: Annotated[float | None, Field(gt=0, le=1 << 30)] = None
    log_mb: Annotated[float | None, Field(gt=0, le=1 << 20)] = None
    log_files: Annotated[int | None, Field(ge=1, le=100)] = None
    enabled: bool | None = None


class GpuView(BaseModel):
    """Of the machine that runs the engine, as `nvidia-smi` tells. MiB and percent."""

    index: str
    uuid: str
    name: str
    memory_used_mb: float
    memory_total_mb: float
    utilisation: float


class ReplicaView(BaseModel):
    """A process. `slot` names its log, `<data>/engines/<engine>/<slot>.log`, and its deployment, `<engine>@<slot>`."""

    slot: int
    replica: int
    phase: Phase
    pid: int
    port: int
    rss_mb: float
    ready_s: float | None
    gpus: tuple[str, ...]
    adopted: bool
    reason: str | None


class EngineStateView(BaseModel):
    """As its supervisor last said. `restarts`: ends that nobody wanted; `failures`: starts in a row that came to nothing."""

    state: State
    ready: int
    wanted: int
    restarts: int
    failures: int
    restart_in_s: float | None
    last_error: str | None
    error_lines: tuple[str, ...]
    rss_mb: float
    replicas: tuple[ReplicaView, ...]
    gpus: tuple[GpuView, ...] = ()
    at: datetime | None


class EngineView(EngineSpec):
    """Values of variables read `set`, or `${NAME}` where they come from the environment. `state` is null until a supervisor saw it."""

    origin: str
    edited: bool
    wish: Literal["run", "stop", "sleep"]
    created_at: datetime
    updated_at: datetime
    state: EngineStateView | None = None


class EngineDeleted(BaseModel):
    name: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def router(control: Control, programs: Sequence[ProgramSpec]) -> APIRouter:
    """`programs` are those that the configuration file allows."""
    routes = APIRouter(prefix="/engines", tags=["engines"], route_class=StrictRoute)
    seal = sealing(control.box)

    @routes.post("", summary="Declare an engine", status_code=201, response_model=EngineView, responses=documented(409))
    async def create(request: Request, asker: Asker, body: EngineBody) -> Response:
        spec = EngineSpec.model_validate(body.model_dump(exclude_unset=True))
        _refuse_display_values(spec.env)
        _check(spec, programs)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            try:
                record = store.create(tx, spec, seal)
            except EngineExistsError:
                raise Conflict(
                    f"engine {spec.name!r} exists already: change it with PATCH, or delete it.", param="name"
                ) from None
            record_revision(tx, f"engine {spec.name} created")
            return record.name, _view(record)

        return await control.create(request, asker, "engine.create", work)

    @routes.get("", summary="List engines by name", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[EngineView]:
        found = await control.read(lambda tx: store.listed(tx, limit, after))
        views = [_view(record) for record in found]
        return ListPage[EngineView].cut(views, limit, lambda one: one.name)

    @routes.get("/{name}", summary="Show an engine", responses=documented(404))
    async def show(name: Identifier) -> EngineView:
        return await control.read(lambda tx: _shown(tx, name))

    @routes.patch("/{name}", summary="Change an engine", responses=documented(404))
    async def change(name: Identifier, asker: Asker, body: EngineChangeBody) -> EngineView:
        changes = body.model_dump(mode="json", exclude_unset=True)

        def work(tx: Connection) -> EngineView:
            _refuse_display_values(changes.get("env") or {})
            before = EngineSpec.model_validate(_found(tx, name).spec)
            try:
                record = store.change(tx, name, changes, seal)
            except ValidationError as error:
                raise complaint([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None
            _check(EngineSpec.model_validate(record.spec), programs, before)
            record_revision(tx, f"engine {name} changed")
            return _view(record)

        return await control.change(asker, "engine.change", name, work, before=lambda tx: _shown(tx, name))

    _ends_and_actions(routes, control)
    return routes


def _ends_and_actions(routes: APIRouter, control: Control) -> None:
    @routes.delete("/{name}", summary="End an engine and forget it", responses=documented(404))
    async def delete(name: Identifier, asker: Asker) -> EngineDeleted:
        def work(tx: Connection) -> None:
            store.remove(tx, name)
            record_revision(tx, f"engine {name} deleted")

        await control.delete(asker, "engine.delete", name, work, before=lambda tx: _shown(tx, name))
        return EngineDeleted(name=name)

    @routes.post(
        "/{name}/{action}", summary="Restart, stop, start, put to sleep or wake an engine", responses=documented(404)
    )
    async def act(name: Identifier, action: Action, asker: Asker) -> EngineView:
        def work(tx: Connection) -> EngineView:
            spec = EngineSpec.model_validate(_found(tx, name).spec)
            if action == "sleep" and not spec.sleeps:
                raise BadRequest(
                    f"engine {name!r} is not started so that it can sleep: set sleep_mode, or stop it.",
                    code="engine_cannot_sleep",
                )
            record = store.wish(tx, name, "run" if action == "start" else action)
            record_revision(tx, f"engine {name}: {action}")
            return _view(record)

        return await control.change(asker, f"engine.{action}", name, work, before=lambda tx: _shown(tx, name))


def _check(spec: EngineSpec, programs: Sequence[ProgramSpec], before: EngineSpec | None = None) -> None:
    """A program that the file does not allow, or does not run already, is none that anybody can start over the network."""
    line = command.program(spec)
    allowed = [set(one.env) for one in programs if one.program == line]
    if before is not None and command.program(before) == line:
        allowed.append(set(before.env))
    if not allowed:
        raise BadRequest(
            f"program: {' '.join(line)!r} is not in engine_programs of the configuration file, which alone can allow it.",
            param="program",
            code="command_not_allowed",
        )
    if not any(set(spec.env) <= names for names in allowed):
        raise BadRequest(
            "env: engine_programs of the configuration file does not let this program have these variables.",
            param="env",
            code="command_not_allowed",
        )


def _refuse_display_values(env: dict[str, str]) -> None:
    """A client that sends back what it was shown must not turn a secret into the word `set`."""
    for name, value in env.items():
        if value == "set":
            raise BadRequest(
                f"env.{name}: `set` only shows that there is a value. Leave env out to keep it.",
                param=f"env.{name}",
                code="invalid_value",
            )


def _found(tx: Connection, name: str) -> EngineRecord:
    try:
        return store.get(tx, name)
    except UnknownEngineError:
        raise NotFound(f"There is no engine {name!r}.", param="name", code="engine_not_found") from None


def _shown(tx: Connection, name: str) -> EngineView:
    return _view(_found(tx, name))


def _view(record: EngineRecord) -> EngineView:
    spec: dict[str, Any] = dict(record.spec)
    if spec.get("env"):
        spec["env"] = {name: shown(value) for name, value in spec["env"].items()}
    state = record.state
    view = None
    if state is not None:
        view = EngineStateView.model_validate({**msgspec.to_builtins(state), "at": moment(record.state_at)})
    return EngineView.model_validate(
        {
            **spec,
            "origin": record.origin,
            "edited": record.edited,
            "wish": record.wish,
            "created_at": at(record.created_at),
            "updated_at": at(record.updated_at),
            "state": view,
        }
    )
