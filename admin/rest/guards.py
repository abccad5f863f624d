"""`/admin/v1/guards`: what may go to a model, and what may come from it. Secrets go in and are never shown again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, JsonValue, ValidationError
from sqlalchemy import Connection

from admin.rest.complaints import complaint
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute, at
from gateway.errors import BadRequest
from gateway.guards import store
from gateway.guards.policy import Action, Kind, OnError, Stage
from gateway.guards.settings import GuardSpec
from gateway.named_specs import SpecRecord
from gateway.secret_box import shown
from gateway.settings import Section


class GuardBody(GuardSpec):
    """As under `guards:` in `penstock.yaml`."""


class GuardChangeBody(Section):
    """What is left out stays; null puts the default back. The name stays what it is."""

    kind: Kind | None = None
    stage: Stage | Annotated[list[Stage], Field(min_length=1, max_length=4)] | None = None
    action: Action | None = None
    on_error: OnError | None = None
    timeout_s: Annotated[float | None, Field(gt=0, le=600)] = None
    dry_run: bool | None = None
    enabled: bool | None = None
    order: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    default: bool | None = None
    keys: list[str] | None = None
    teams: list[str] | None = None
    models: list[str] | None = None
    entities: list[str] | None = None
    engine: str | None = None
    language: str | None = None
    score: float | None = None
    nlp_model: str | None = None
    secrets: list[str] | None = None
    deny: list[JsonValue] | None = None
    allow: list[str] | None = None
    words: list[str] | None = None
    window: int | None = None
    allow_topics: list[str] | None = None
    deny_topics: list[str] | None = None
    embedding_model: str | None = None
    threshold: float | None = None
    max_usd: float | None = None
    json_schema: dict[str, JsonValue] | None = None
    repair: int | None = None
    url: str | None = None
    secret: str | None = None
    headers: dict[str, str] | None = None
    model: str | None = None
    prompt: str | None = None
    categories: list[str] | None = None
    labels: list[str] | None = None


class GuardView(GuardSpec):
    """Secrets read `set`, or `${NAME}` where they come from the environment."""

    origin: str
    edited: bool
    created_at: datetime
    updated_at: datetime


class GuardDeleted(BaseModel):
    name: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/guards", tags=["guards"], route_class=StrictRoute)

    @routes.post("", summary="Create a guard", status_code=201, response_model=GuardView, responses=documented(409))
    async def create(request: Request, asker: Asker, body: GuardBody) -> Response:
        spec = GuardSpec.model_validate(body.model_dump(exclude_unset=True))
        _refuse_display_values(body.model_dump(mode="json", exclude_unset=True))

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record = store.GUARDS.create(tx, spec, control.box)
            return record.name, _view(record)

        return await control.create(request, asker, "guard.create", work)

    @routes.get("", summary="List guards by name", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[GuardView]:
        found = await control.read(lambda tx: store.GUARDS.listed(tx, limit, after))
        return ListPage[GuardView](
            data=[_view(record) for record in found.data], has_more=found.next is not None, next=found.next
        )

    @routes.get("/{name}", summary="Show a guard", responses=documented(404))
    async def show(name: Identifier) -> GuardView:
        return await control.read(lambda tx: _shown(tx, name))

    @routes.patch("/{name}", summary="Change a guard", responses=documented(404))
    async def change(name: Identifier, asker: Asker, body: GuardChangeBody) -> GuardView:
        changes = body.model_dump(mode="json", exclude_unset=True)

        def work(tx: Connection) -> GuardView:
            _refuse_display_values(changes)
            try:
                record = store.GUARDS.change(tx, name, changes, control.box)
            except ValidationError as error:
                raise complaint([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None
            return _view(record)

        return await control.change(asker, "guard.change", name, work, before=lambda tx: _shown(tx, name))

    @routes.delete("/{name}", summary="Delete a guard", responses=documented(404))
    async def delete(name: Identifier, asker: Asker) -> GuardDeleted:
        await control.delete(
            asker, "guard.delete", name, lambda tx: store.GUARDS.remove(tx, name), before=lambda tx: _shown(tx, name)
        )
        return GuardDeleted(name=name)

    return routes


def _refuse_display_values(given: Mapping[str, Any]) -> None:
    """A client that sends back what it was shown must not turn a secret into the word `set`."""
    headers = given.get("headers") or {}
    for param, value in {
        "secret": given.get("secret"),
        **{f"headers.{name}": each for name, each in headers.items()},
    }.items():
        if value == "set":
            raise BadRequest(
                f"{param}: `set` only shows that there is a value. Leave it out to keep it.",
                param=param,
                code="invalid_value",
            )


def _shown(tx: Connection, name: str) -> GuardView:
    return _view(store.GUARDS.get(tx, name))


def _view(record: SpecRecord) -> GuardView:
    spec = dict(record.spec)
    if spec.get("secret"):
        spec["secret"] = shown(spec["secret"])
    if spec.get("headers"):
        spec["headers"] = {name: shown(value) for name, value in spec["headers"].items()}
    return GuardView.model_validate(
        {
            **spec,
            "origin": record.origin,
            "edited": record.edited,
            "created_at": at(record.created_at),
            "updated_at": at(record.updated_at),
        }
    )
