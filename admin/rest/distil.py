"""`/admin/v1/distil`: a small model from the recorded answers of a large one, registered as a classic model."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from admin.distil.service import Distillery
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.registry_bodies import AliasName, VersionView, Word, version_view
from admin.rest.wire import Instant, StrictRoute
from gateway.database import record_revision
from gateway.settings import Name, Section
from inference.distil.recipe import Kind, Recipe
from inference.registry import alias_store, version_store
from inference.registry.names import NAME

Share = Annotated[float, Field(gt=0, le=1)]


class DistilBody(Section):
    """`route`: the model or route, by the name that was asked for; `name`: the classic model to register.

    `agreement`: of the answers that it will give; `coverage`: the least share of texts that it has to answer. `field`: of answers in JSON,
    the one with the label.
    """

    route: Name
    name: Annotated[str, Field(pattern=NAME)]
    kind: Kind = "classifier"
    agreement: Share = 0.95
    coverage: Share = 0.2
    held_out: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 7
    field: Word | None = None
    least_of_a_label: Annotated[int, Field(ge=2, le=10_000)] = 5
    limit: Annotated[int, Field(ge=50, le=100_000)] = 20_000
    since: Instant | None = None
    alias: AliasName | None = None


class DistilledView(BaseModel):
    """`metrics` are of held-out texts; below `threshold` it leaves the answer to others. `skipped` answers had labels that are too rare."""

    version: VersionView
    rows: int
    skipped: int
    threshold: float
    metrics: dict[str, float]


def router(control: Control, distillery: Distillery) -> APIRouter:
    routes = APIRouter(prefix="/distil", tags=["distil"], route_class=StrictRoute)

    @routes.post(
        "",
        summary="Learn a classic model from the recorded answers of a route",
        status_code=201,
        response_model=DistilledView,
        responses=documented(409),
    )
    async def distil(request: Request, asker: Asker, body: DistilBody) -> Response:
        recipe = Recipe(
            kind=body.kind,
            agreement=body.agreement,
            coverage=body.coverage,
            held_out=body.held_out,
            seed=body.seed,
            field=body.field,
            least_of_a_label=body.least_of_a_label,
        )
        since = None if body.since is None else body.since.timestamp()
        made = await distillery.distil(body.route, recipe, body.limit, since)

        def work(tx: Connection) -> tuple[str, DistilledView]:
            revision = record_revision(tx, f"classic model {body.name} distilled from {body.route}")
            version = version_store.add_version(tx, body.name, made.version, asker.actor, revision)
            if body.alias is not None:
                alias_store.move(tx, body.name, body.alias, version.version, asker.actor, revision)
            view = DistilledView(
                version=version_view(version, [] if body.alias is None else [body.alias]),
                rows=made.rows,
                skipped=made.skipped,
                threshold=made.learnt.threshold or 0.0,
                metrics=dict(made.learnt.metrics),
            )
            return f"{body.name}/{version.version}", view

        return await control.create(request, asker, "classic_version.distil", work)

    return routes
