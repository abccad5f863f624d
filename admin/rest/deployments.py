"""`/admin/v1/deployments`: the places that answer for a model. Secrets go in and are never shown again."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import AnyHttpUrl, BaseModel, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Filter, Identifier, Limit, ListPage, StrictRoute, at
from gateway import model_store
from gateway.errors import BadRequest
from gateway.kinds import Kind
from gateway.model_store import DeploymentRecord
from gateway.providers import PROVIDERS
from gateway.resilience.health import Condition
from gateway.secret_box import shown
from gateway.settings import ApiVersion, DeploymentSpec, LimitsSpec, Name, PriceSpec, Section, WhenSpec

Conditions: TypeAlias = Callable[[str], Condition | None]  # by deployment id


class DeploymentBody(DeploymentSpec):
    """As under `deployments:` in `penstock.yaml`, with `model_name` saying which model it is for."""

    model_name: Name


class DeploymentChangeBody(Section):
    """What is left out stays; null puts the default back."""

    provider: Name | None = None
    base_url: AnyHttpUrl | None = None
    model: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    api_key: Annotated[str | None, Field(max_length=8192)] = None
    headers: dict[str, str] | None = None
    weight: Annotated[float | None, Field(ge=0)] = None
    order: Annotated[int | None, Field(ge=1)] = None
    price: PriceSpec | None = None
    limits: LimitsSpec | None = None
    when: WhenSpec | None = None
    region: Name | None = None
    max_input_tokens: Annotated[int | None, Field(gt=0)] = None
    max_output_tokens: Annotated[int | None, Field(gt=0)] = None
    verify_tls: bool | None = None
    ca_file: str | None = None
    api_version: ApiVersion | None = None
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] | None = None
    responses: bool | None = None


class HealthView(BaseModel):
    """What the process that answers has seen of a deployment that failed of late."""

    state: Annotated[str, Field(description="closed, open, half_open, cooling or credentials_refused.")]
    until: Annotated[datetime | None, Field(description="When it is tried again; null if it may be used now.")]
    reason: Annotated[str, Field(description="The class of its last failure.")]
    last_error: str
    failed_at: datetime


class DeploymentView(DeploymentSpec):
    """`api_key` and the values of headers read `set`, or `${NAME}` where they come from the environment.

    `health` is null for a deployment that has not failed of late.
    """

    model_name: str
    origin: str
    edited: bool
    created_at: datetime
    updated_at: datetime
    health: HealthView | None = None


class DeploymentDeleted(BaseModel):
    id: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def router(control: Control, conditions: Conditions) -> APIRouter:
    routes = APIRouter(prefix="/deployments", tags=["deployments"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Add a deployment to a model",
        status_code=201,
        response_model=DeploymentView,
        responses=documented(404, 409),
    )
    async def create(request: Request, asker: Asker, body: DeploymentBody) -> Response:
        spec = DeploymentSpec.model_validate(body.model_dump(exclude={"model_name"}, exclude_unset=True))
        check_deployment(spec)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record = model_store.create_deployment(tx, body.model_name, spec, control.box)
            return record.id, deployment_view(record)

        return await control.create(request, asker, "deployment.create", work)

    @routes.get("", summary="List deployments by id", responses=documented())
    async def listed(limit: Limit = 100, after: After = None, model_name: Filter = None) -> ListPage[DeploymentView]:
        found = await control.read(lambda tx: model_store.list_deployments(tx, limit, after, model_name))
        views = [_with_health(deployment_view(record), conditions) for record in found.data]
        return ListPage[DeploymentView](data=views, has_more=found.next is not None, next=found.next)

    @routes.get("/{id:path}", summary="Show a deployment", responses=documented(404))
    async def show(id: Identifier) -> DeploymentView:  # noqa: A002 — the contract's name
        return _with_health(await control.read(lambda tx: _show(tx, id)), conditions)

    @routes.patch("/{id:path}", summary="Change a deployment", responses=documented(404))
    async def change(id: Identifier, asker: Asker, body: DeploymentChangeBody) -> DeploymentView:  # noqa: A002 — the contract's name
        changes = body.model_dump(mode="json", exclude_unset=True)

        def work(tx: Connection) -> DeploymentView:
            _refuse_display_values(body.api_key, body.headers or {})
            view = deployment_view(model_store.change_deployment(tx, id, changes, control.box))
            _check_address(view)
            return view

        return await control.change(asker, "deployment.change", id, work, before=lambda tx: _show(tx, id))

    @routes.delete("/{id:path}", summary="Delete a deployment", responses=documented(404))
    async def delete(id: Identifier, asker: Asker) -> DeploymentDeleted:  # noqa: A002 — the contract's name
        await control.delete(
            asker,
            "deployment.delete",
            id,
            lambda tx: model_store.delete_deployment(tx, id),
            before=lambda tx: _show(tx, id),
        )
        return DeploymentDeleted(id=id)

    return routes


def check_deployment(spec: DeploymentSpec, place: str = "") -> None:
    """What a specification alone cannot say. `place` stands before the name of the field in a complaint."""
    _refuse_display_values(spec.api_key, spec.headers, place)
    _check_address(spec, place)


def deployment_view(record: DeploymentRecord) -> DeploymentView:
    return DeploymentView.model_validate(
        {
            **record.spec,
            "api_key": shown(record.spec.get("api_key")),
            "headers": {name: shown(value) for name, value in record.spec.get("headers", {}).items()},
            "model_name": record.model,
            "origin": record.origin,
            "edited": record.edited,
            "created_at": at(record.created_at),
            "updated_at": at(record.updated_at),
        }
    )


def _with_health(view: DeploymentView, conditions: Conditions) -> DeploymentView:
    condition = conditions(view.id)
    if condition is None:
        return view
    now = time.time()
    health = HealthView(
        state=condition.state,
        until=at(now + condition.for_s) if condition.for_s > 0 else None,
        reason=condition.reason,
        last_error=condition.last_error,
        failed_at=at(now - condition.ago_s),
    )
    return view.model_copy(update={"health": health})


def _show(tx: Connection, id_: str) -> DeploymentView:
    return deployment_view(model_store.get_deployment(tx, id_))


def _refuse_display_values(api_key: str | None, headers: dict[str, str], place: str = "") -> None:
    """A client that sends back what it was shown must not turn a key into the word `set`."""
    for param, value in (("api_key", api_key), *((f"headers.{name}", value) for name, value in headers.items())):
        if value == "set":
            raise BadRequest(
                f"{place}{param}: `set` only shows that there is a value. Leave it out to keep it.",
                param=place + param,
                code="invalid_value",
            )


def _check_address(spec: DeploymentSpec, place: str = "") -> None:
    if spec.base_url is None:
        provider = PROVIDERS.get(spec.provider)
        if provider is None or not provider.placed:
            raise BadRequest(
                f"{place}base_url: provider {spec.provider!r} has no address of its own, so name one.",
                param=f"{place}base_url",
                code="missing_required_parameter",
            )
    elif spec.base_url.username is not None or spec.base_url.password is not None:
        raise BadRequest(
            f"{place}base_url: an address is shown to everyone, so it takes no password. Use api_key or headers.",
            param=f"{place}base_url",
            code="invalid_value",
        )
