"""`/admin/v1/routes`, `/prompts` and `/retrievers`: what a name stands for, in versions that share its callers by weight."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, BaseModel, Field, JsonValue
from sqlalchemy import Connection

from admin.api.search_wire import SearchSettings
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Limit, ListPage, StrictRoute, at
from gateway import version_store
from gateway.errors import BadRequest, NotFound
from gateway.routing.template import variables
from gateway.routing.versions import Sticky
from gateway.settings import Name, Section
from gateway.version_store import FamilyRecord, Kind
from retrieval import collection_store

# Parts of a request that a version may not set: they say whose it is, or what it is.
RESERVED = frozenset(("model", "messages", "prompt", "stream", "stream_options", "user"))
MAX_PROMPT_BYTES = 262_144


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _settable(value: dict[str, Any]) -> dict[str, Any]:
    taken = sorted(RESERVED & value.keys())
    if taken:
        raise ValueError(f"{taken[0]} is not a parameter that a version sets")
    return value


FamilyName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s/\x00-\x1f\x7f]+$")]
PathName = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]+$")]
Weight = Annotated[float, Field(ge=0, le=1_000_000), AfterValidator(_finite)]
Params = Annotated[dict[str, JsonValue], Field(max_length=100, default_factory=dict), AfterValidator(_settable)]
Number = Annotated[int, Field(ge=1, le=2_147_483_647)]


class RouteVersionBody(Section):
    """`params` replace those of a request."""

    model: Name
    params: Params
    weight: Weight = 0.0

    def spec(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include={"model", "params"})


class Message(Section):
    """A message of a prompt. `{{name}}` in any of its texts is a variable."""

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[dict[str, JsonValue]]
    name: Annotated[str | None, Field(max_length=64)] = None


class PromptVersionBody(Section):
    """`params` and `model` stand in for what a request leaves out."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    params: Params
    model: Name | None = None
    weight: Weight = 0.0

    def spec(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include={"messages", "params", "model"}, exclude_none=True)


class RouteBody(RouteVersionBody):
    """`name` is what clients ask for as a model; a model of the same name is hidden by it. The first version gets every caller."""

    name: FamilyName
    sticky: Sticky = "key"


class PromptBody(PromptVersionBody):
    """`name` is the `id` in `prompt: {id, version, variables}` of a chat request."""

    name: FamilyName
    sticky: Sticky = "key"


class RetrieverVersionBody(Section):
    """`search` is how the collection is searched, where a search itself does not say."""

    collection: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^vs_")]
    search: SearchSettings = SearchSettings()
    weight: Weight = 0.0

    def spec(self) -> dict[str, Any]:
        """As little as was said, so that equal versions are equal."""
        return {
            "collection": self.collection,
            "search": self.search.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }


class RetrieverBody(RetrieverVersionBody):
    """`name` is searched as if it was a vector store; one whose id it is is hidden by it."""

    name: FamilyName
    sticky: Sticky = "key"


class FamilyChangeBody(Section):
    """`weights` by version; what is not named stays."""

    weights: Annotated[dict[Number, Weight], Field(max_length=1000)] | None = None
    sticky: Sticky | None = None


class RollbackBody(Section):
    """Without `version`, back to the weights before the last change; with it, everybody gets that one."""

    version: Number | None = None


class VersionView(BaseModel):
    """`share`: the part of the callers that it has. `variables`: of a prompt, what a request has to give."""

    version: int
    weight: float
    share: float
    model: str | None
    params: dict[str, JsonValue]
    messages: list[dict[str, JsonValue]] | None
    variables: list[str] | None
    collection: str | None
    search: dict[str, JsonValue] | None
    created_at: datetime


class FamilyView(BaseModel):
    """A route, a prompt or a retriever. `changes`: how many changes of weights can be rolled back."""

    name: str
    sticky: Sticky
    versions: list[VersionView]
    changes: int
    created_at: datetime
    updated_at: datetime


class FamilyDeleted(BaseModel):
    name: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def routes_router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/routes", tags=["routes"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Add a route with its first version",
        status_code=201,
        response_model=FamilyView,
        responses=documented(409),
    )
    async def create(request: Request, asker: Asker, body: RouteBody) -> Response:
        return await control.create(
            request, asker, "route.create", _creation("route", body.name, body.sticky, body.spec())
        )

    @routes.post(
        "/{name}/versions",
        summary="Add a version to a route",
        status_code=201,
        response_model=FamilyView,
        responses=documented(404),
    )
    async def add(request: Request, name: PathName, asker: Asker, body: RouteVersionBody) -> Response:
        work = _addition("route", name, body.spec(), body.weight)
        return await control.create(request, asker, "route.version", work, before=_shown("route", name))

    _shared(routes, control, "route")
    return routes


def prompts_router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/prompts", tags=["prompts"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Add a prompt with its first version",
        status_code=201,
        response_model=FamilyView,
        responses=documented(409),
    )
    async def create(request: Request, asker: Asker, body: PromptBody) -> Response:
        _check_template(body)
        work = _creation("prompt", body.name, body.sticky, body.spec())
        return await control.create(request, asker, "prompt.create", work)

    @routes.post(
        "/{name}/versions",
        summary="Add a version to a prompt",
        status_code=201,
        response_model=FamilyView,
        responses=documented(404),
    )
    async def add(request: Request, name: PathName, asker: Asker, body: PromptVersionBody) -> Response:
        _check_template(body)
        work = _addition("prompt", name, body.spec(), body.weight)
        return await control.create(request, asker, "prompt.version", work, before=_shown("prompt", name))

    _shared(routes, control, "prompt")
    return routes


def retrievers_router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/retrievers", tags=["retrievers"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Add a retriever with its first version",
        status_code=201,
        response_model=FamilyView,
        responses=documented(404, 409),
    )
    async def create(request: Request, asker: Asker, body: RetrieverBody) -> Response:
        def work(tx: Connection) -> tuple[str, BaseModel]:
            _require_collection(tx, body.collection)
            return _creation("retriever", body.name, body.sticky, body.spec())(tx)

        return await control.create(request, asker, "retriever.create", work)

    @routes.post(
        "/{name}/versions",
        summary="Add a version to a retriever",
        status_code=201,
        response_model=FamilyView,
        responses=documented(404),
    )
    async def add(request: Request, name: PathName, asker: Asker, body: RetrieverVersionBody) -> Response:
        def work(tx: Connection) -> tuple[str, BaseModel]:
            _require_collection(tx, body.collection)
            return _addition("retriever", name, body.spec(), body.weight)(tx)

        return await control.create(request, asker, "retriever.version", work, before=_shown("retriever", name))

    _shared(routes, control, "retriever")
    return routes


def _require_collection(tx: Connection, id_: str) -> None:
    """Raises NotFound."""
    if collection_store.by_id(tx, id_) is None:
        raise NotFound(f"There is no vector store {id_!r}.", param="collection", code="vector_store_not_found")


def _shared(routes: APIRouter, control: Control, kind: Kind) -> None:
    """What routes, prompts and retrievers have in common."""

    @routes.get("", summary=f"List {kind}s by name", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[FamilyView]:
        found = await control.read(lambda tx: version_store.listed(tx, kind, limit, after))
        views = [_view(kind, record) for record in found.data]
        return ListPage[FamilyView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{name}", summary=f"Show a {kind} with its versions", responses=documented(404))
    async def show(name: PathName) -> FamilyView:
        return await control.read(_shown(kind, name))

    @routes.patch("/{name}", summary=f"Change the weights of a {kind}'s versions", responses=documented(404))
    async def change(name: PathName, asker: Asker, body: FamilyChangeBody) -> FamilyView:
        def work(tx: Connection) -> FamilyView:
            if body.sticky is not None:
                version_store.set_sticky(tx, kind, name, body.sticky)
            return _view(kind, version_store.set_weights(tx, kind, name, body.weights or {}))

        return await control.change(asker, f"{kind}.change", name, work, before=_shown(kind, name))

    @routes.post("/{name}/rollback", summary=f"Take back a change of a {kind}'s weights", responses=documented(404))
    async def roll_back(name: PathName, asker: Asker, body: RollbackBody) -> FamilyView:
        def work(tx: Connection) -> FamilyView:
            return _view(kind, version_store.roll_back(tx, kind, name, body.version))

        return await control.change(asker, f"{kind}.rollback", name, work, before=_shown(kind, name))

    @routes.delete("/{name}", summary=f"Delete a {kind} and its versions", responses=documented(404))
    async def delete(name: PathName, asker: Asker) -> FamilyDeleted:
        await control.delete(
            asker, f"{kind}.delete", name, lambda tx: version_store.remove(tx, kind, name), before=_shown(kind, name)
        )
        return FamilyDeleted(name=name)


def _creation(
    kind: Kind, name: str, sticky: Sticky, spec: dict[str, Any]
) -> Callable[[Connection], tuple[str, BaseModel]]:
    return lambda tx: (name, _view(kind, version_store.create(tx, kind, name, sticky, spec)))


def _addition(
    kind: Kind, name: str, spec: dict[str, Any], weight: float
) -> Callable[[Connection], tuple[str, BaseModel]]:
    return lambda tx: (name, _view(kind, version_store.add_version(tx, kind, name, spec, weight)))


def _shown(kind: Kind, name: str) -> Callable[[Connection], FamilyView]:
    return lambda tx: _view(kind, version_store.get(tx, kind, name))


def _check_template(body: PromptVersionBody) -> None:
    if len(body.model_dump_json().encode()) > MAX_PROMPT_BYTES:
        raise BadRequest(f"messages: a prompt has at most {MAX_PROMPT_BYTES} bytes.", param="messages")
    try:
        variables(body.spec()["messages"])
    except ValueError as error:
        raise BadRequest(f"messages: {error}.", param="messages", code="invalid_template") from None


def _view(kind: Kind, record: FamilyRecord) -> FamilyView:
    total = sum(one.weight for one in record.versions)
    return FamilyView(
        name=record.name,
        sticky=record.sticky,
        versions=[
            VersionView(
                version=one.version,
                weight=one.weight,
                share=one.weight / total if total else 0.0,
                model=one.spec.get("model"),
                params=one.spec.get("params", {}),
                messages=one.spec.get("messages"),
                variables=sorted(variables(one.spec["messages"])) if kind == "prompt" else None,
                collection=one.spec.get("collection"),
                search=one.spec.get("search"),
                created_at=at(one.created_at),
            )
            for one in record.versions
        ],
        changes=len(record.history),
        created_at=at(record.created_at),
        updated_at=at(record.updated_at),
    )
