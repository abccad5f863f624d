"""`/admin/v1/mcp/servers`: servers whose tools are offered at `/mcp`. Secrets go in and are never shown again."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import AnyHttpUrl, BaseModel, Field, JsonValue, ValidationError
from sqlalchemy import Connection

from admin.rest.complaints import complaint
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute, at
from gateway.errors import BadRequest
from gateway.mcp import store
from gateway.mcp.settings import (
    OAUTH_SECRETS,
    SECRETS,
    Argument,
    CommandSpec,
    HeaderName,
    HeaderValue,
    OAuthSpec,
    Pattern,
    Secret,
    ServerKind,
    ServerSpec,
    ToolPriceSpec,
    Variable,
    permitted,
)
from gateway.named_specs import SpecRecord
from gateway.secret_box import shown
from gateway.settings import PositiveSeconds, Section

ServerConditions: TypeAlias = Callable[[], Mapping[str, tuple[bool, str | None, int]]]  # up, why not, how many tools


class ServerBody(ServerSpec):
    """As under `mcp.servers:` in `penstock.yaml`. A program has to be allowed by `mcp.stdio_commands` of that file."""


class ServerChangeBody(Section):
    """What is left out stays; null puts the default back. The name stays what it is."""

    kind: ServerKind | None = None
    description: Annotated[str, Field(max_length=2000)] | None = None
    url: AnyHttpUrl | None = None
    api_key: Secret | None = None
    headers: dict[HeaderName, HeaderValue] | None = None
    query: dict[Annotated[str, Field(min_length=1, max_length=200)], Secret] | None = None
    oauth: OAuthSpec | None = None
    command: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    args: tuple[Argument, ...] | None = None
    env: dict[Variable, Secret] | None = None
    document: dict[str, JsonValue] | None = None
    document_url: AnyHttpUrl | None = None
    tools: tuple[Pattern, ...] | None = None
    price: ToolPriceSpec | None = None
    enabled: bool | None = None
    timeout_s: PositiveSeconds | None = None
    start_s: PositiveSeconds | None = None
    parallel: Annotated[int | None, Field(ge=1, le=4096)] = None
    max_answer_mb: Annotated[float | None, Field(gt=0, le=256)] = None
    verify_tls: bool | None = None
    ca_file: str | None = None


class ServerStateView(BaseModel):
    """What the process that answers knows of it: `up` if it has a connection, and else why not, once it was tried."""

    up: bool
    tools: int
    last_error: str | None


class ServerView(ServerSpec):
    """Secrets read `set`, or `${NAME}` where they come from the environment. `state` is null before the server is first used."""

    origin: str
    edited: bool
    created_at: datetime
    updated_at: datetime
    state: ServerStateView | None = None


class ServerDeleted(BaseModel):
    name: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def router(control: Control, conditions: ServerConditions, commands: Sequence[CommandSpec]) -> APIRouter:
    """`commands` are the programs that the configuration file allows."""
    routes = APIRouter(prefix="/mcp/servers", tags=["mcp"], route_class=StrictRoute)
    allowed = tuple(commands)

    @routes.post(
        "", summary="Register an MCP server", status_code=201, response_model=ServerView, responses=documented(409)
    )
    async def create(request: Request, asker: Asker, body: ServerBody) -> Response:
        spec = ServerSpec.model_validate(body.model_dump(exclude_unset=True))
        _check(spec, allowed)
        _refuse_display_values(body.model_dump(mode="json", exclude_unset=True))

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record = store.SERVERS.create(tx, spec, control.box)
            return record.name, _view(record)

        return await control.create(request, asker, "mcp_server.create", work)

    @routes.get("", summary="List MCP servers by name", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[ServerView]:
        found = await control.read(lambda tx: store.SERVERS.listed(tx, limit, after))
        views = [_with_state(_view(record), conditions) for record in found.data]
        return ListPage[ServerView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{name}", summary="Show an MCP server", responses=documented(404))
    async def show(name: Identifier) -> ServerView:
        return _with_state(await control.read(lambda tx: _shown(tx, name)), conditions)

    @routes.patch("/{name}", summary="Change an MCP server", responses=documented(404))
    async def change(name: Identifier, asker: Asker, body: ServerChangeBody) -> ServerView:
        changes = body.model_dump(mode="json", exclude_unset=True)

        def work(tx: Connection) -> ServerView:
            _refuse_display_values(changes)
            try:
                record = store.SERVERS.change(tx, name, changes, control.box)
            except ValidationError as error:
                raise complaint([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None
            _check(ServerSpec.model_validate(record.spec), allowed)
            return _view(record)

        return await control.change(asker, "mcp_server.change", name, work, before=lambda tx: _shown(tx, name))

    @routes.delete("/{name}", summary="Delete an MCP server", responses=documented(404))
    async def delete(name: Identifier, asker: Asker) -> ServerDeleted:
        await control.delete(
            asker,
            "mcp_server.delete",
            name,
            lambda tx: store.SERVERS.remove(tx, name),
            before=lambda tx: _shown(tx, name),
        )
        return ServerDeleted(name=name)

    return routes


def _check(spec: ServerSpec, allowed: tuple[CommandSpec, ...]) -> None:
    """A program that the file does not allow is none that anybody can register over the network."""
    if spec.kind == "stdio" and spec.command is not None:
        refused = permitted(spec.command, spec.args, frozenset(spec.env), allowed)
        if refused is not None:
            raise BadRequest(f"command: {refused}.", param="command", code="command_not_allowed")


def _refuse_display_values(given: Mapping[str, Any]) -> None:
    """A client that sends back what it was shown must not turn a secret into the word `set`."""
    oauth = given.get("oauth") or {}
    told = {f"oauth.{name}": oauth.get(name) for name in OAUTH_SECRETS} | {"api_key": given.get("api_key")}
    for name in SECRETS:
        if isinstance(given.get(name), dict):
            told |= {f"{name}.{key}": value for key, value in given[name].items()}
    for param, value in told.items():
        if value == "set":
            raise BadRequest(
                f"{param}: `set` only shows that there is a value. Leave it out to keep it.",
                param=param,
                code="invalid_value",
            )


def _shown(tx: Connection, name: str) -> ServerView:
    return _view(store.SERVERS.get(tx, name))


def _view(record: SpecRecord) -> ServerView:
    spec = dict(record.spec)
    for name in SECRETS:
        value = spec.get(name)
        if isinstance(value, dict):
            spec[name] = {key: shown(inner) for key, inner in value.items()}
        elif value is not None:
            spec[name] = shown(value)
    if spec.get("oauth"):
        spec["oauth"] = spec["oauth"] | {
            name: shown(spec["oauth"][name]) for name in OAUTH_SECRETS if spec["oauth"].get(name)
        }
    return ServerView.model_validate(
        {
            **spec,
            "origin": record.origin,
            "edited": record.edited,
            "created_at": at(record.created_at),
            "updated_at": at(record.updated_at),
        }
    )


def _with_state(view: ServerView, conditions: ServerConditions) -> ServerView:
    known = conditions().get(view.name)
    if known is None:
        return view
    up, reason, tools = known
    return view.model_copy(update={"state": ServerStateView(up=up, tools=tools, last_error=reason)})
