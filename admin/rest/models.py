"""`/admin/v1/models`: what clients ask for by name. The same objects as in `penstock.yaml`, with where they came from."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.deployments import DeploymentView, check_deployment, deployment_view
from admin.rest.errors import documented
from admin.rest.wire import After, Identifier, Limit, ListPage, StrictRoute, at
from gateway import model_store
from gateway.catalog import Affinity, Strategy
from gateway.embedding_settings import EmbeddingSpec
from gateway.model_store import DeploymentRecord
from gateway.named_specs import SpecRecord
from gateway.routers.settings import RouterSpec
from gateway.settings import (
    BreakerSpec,
    HedgeSpec,
    ModelSpec,
    Name,
    PriceSpec,
    PricingSection,
    ProbeSpec,
    QueueSpec,
    RetriesSpec,
    RetrievalSpec,
    Section,
    ShadowSpec,
    TimeoutsSpec,
)


class ModelChangeBody(Section):
    """What is left out stays; null puts the default back. Deployments are changed at `/admin/v1/deployments`."""

    aliases: tuple[Name, ...] | None = None
    groups: tuple[Name, ...] | None = None
    strategy: Strategy | None = None
    affinity: Affinity | None = None
    fallbacks: tuple[Name, ...] | None = None
    context_fallbacks: tuple[Name, ...] | None = None
    content_fallbacks: tuple[Name, ...] | None = None
    retries: RetriesSpec | None = None
    breaker: BreakerSpec | None = None
    heartbeat_s: Annotated[float | None, Field(ge=0.05, le=3600)] = None
    continue_streams: bool | None = None
    hedge: HedgeSpec | None = None
    queue: QueueSpec | None = None
    health: ProbeSpec | None = None
    timeouts: TimeoutsSpec | None = None
    shadow: ShadowSpec | None = None
    retrieval: RetrievalSpec | None = None
    embedding: EmbeddingSpec | None = None
    price: PriceSpec | None = None
    pricing: PricingSection | None = None
    guards: tuple[Name, ...] | None = None
    router: RouterSpec | None = None


class ModelView(ModelSpec):
    """`origin` is `rest` or where the object was seeded from; `edited` ones are no longer changed by their file."""

    deployments: tuple[DeploymentView, ...] = ()
    origin: str
    edited: bool
    created_at: datetime
    updated_at: datetime


class ModelDeleted(BaseModel):
    name: str
    deleted: Annotated[bool, Field(description="Always true.")] = True


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Add a model, with its deployments if there are any",
        status_code=201,
        response_model=ModelView,
        responses=documented(409),
    )
    async def create(request: Request, asker: Asker, body: ModelSpec) -> Response:
        for number, deployment in enumerate(body.deployments):
            check_deployment(deployment, f"deployments.{number}.")

        def work(tx: Connection) -> tuple[str, BaseModel]:
            record = model_store.create_model(tx, body, control.box)
            return record.name, _with_deployments(tx, [record])[0]

        return await control.create(request, asker, "model.create", work)

    @routes.get("", summary="List models by name", responses=documented())
    async def listed(limit: Limit = 100, after: After = None) -> ListPage[ModelView]:
        def work(tx: Connection) -> tuple[list[ModelView], str | None]:
            found = model_store.list_models(tx, limit, after)
            return _with_deployments(tx, found.data), found.next

        views, following = await control.read(work)
        return ListPage[ModelView](data=views, has_more=following is not None, next=following)

    @routes.get("/{name:path}", summary="Show a model", responses=documented(404))
    async def show(name: Identifier) -> ModelView:
        return await control.read(lambda tx: _show(tx, name))

    @routes.patch("/{name:path}", summary="Change a model", responses=documented(404))
    async def change(name: Identifier, asker: Asker, body: ModelChangeBody) -> ModelView:
        changes = body.model_dump(mode="json", exclude_unset=True)

        def work(tx: Connection) -> ModelView:
            return _with_deployments(tx, [model_store.change_model(tx, name, changes)])[0]

        return await control.change(asker, "model.change", name, work, before=lambda tx: _show(tx, name))

    @routes.delete("/{name:path}", summary="Delete a model and its deployments", responses=documented(404, 409))
    async def delete(name: Identifier, asker: Asker) -> ModelDeleted:
        await control.delete(
            asker,
            "model.delete",
            name,
            lambda tx: model_store.delete_model(tx, name),
            before=lambda tx: _show(tx, name),
        )
        return ModelDeleted(name=name)

    return routes


def model_view(record: SpecRecord, below: list[DeploymentRecord]) -> ModelView:
    return ModelView.model_validate(
        {
            **record.spec,
            "deployments": [deployment_view(deployment) for deployment in below],
            "origin": record.origin,
            "edited": record.edited,
            "created_at": at(record.created_at),
            "updated_at": at(record.updated_at),
        }
    )


def _show(tx: Connection, name: str) -> ModelView:
    return _with_deployments(tx, [model_store.get_model(tx, name)])[0]


def _with_deployments(tx: Connection, records: list[SpecRecord] | tuple[SpecRecord, ...]) -> list[ModelView]:
    below: dict[str, list[DeploymentRecord]] = {}
    for deployment in model_store.deployments_of(tx, [record.name for record in records]):
        below.setdefault(deployment.model, []).append(deployment)
    return [model_view(record, below.get(record.name, [])) for record in records]
