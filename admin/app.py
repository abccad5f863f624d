"""The admin plane as one FastAPI application: everything that is not hot. The data plane's routes never come here."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from fastapi import FastAPI
from sqlalchemy import Engine

from admin.api import batches as batches_api
from admin.api import dify as dify_api
from admin.api import document, mlflow
from admin.api import feedback as feedback_api
from admin.api import files as files_api
from admin.api import uploads as uploads_api
from admin.api import vector_store_files as vector_store_files_api
from admin.api import vector_stores as vector_stores_api
from admin.api.gate import KeyGate
from admin.distil.service import Distillery
from admin.feedback import Feedback
from admin.identity import Identities
from admin.rest import (
    audit,
    backlog,
    budgets,
    collections,
    config,
    deployments,
    distil,
    documentation,
    engines,
    errors,
    features,
    feedback,
    guards,
    keys,
    limits,
    mcp_servers,
    models,
    monitors,
    orgs,
    reembeddings,
    registry,
    requests,
    rollouts,
    scoring,
    skew,
    spend,
    teams,
    tokens,
    users,
    versions,
)
from admin.rest.budgets import Uses
from admin.rest.control import Control, nothing_waits
from admin.rest.deployments import Conditions
from admin.rest.documentation import DocumentedApi
from admin.rest.gate import AdminGate, LastResort
from admin.rest.mcp_servers import ServerConditions
from admin.rest.scoring import Scoring
from admin.rest.snapshots import router as snapshots_router
from admin.retrievers import Retrievers
from admin.rollouts.events import Tell
from admin.rollouts.service import Rollouts
from gateway.batches.batches import Batches
from gateway.files.keeper import Files
from gateway.grounding.ports import Searcher
from gateway.keys import Key
from gateway.mcp.settings import CommandSpec
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox
from inference.fleet.settings import ProgramSpec
from inference.registry.registrar import Registrar

if TYPE_CHECKING:  # logins of people are loaded for those who have them
    from admin.distil.student import Vectors
    from admin.oidc import Oidc
    from retrieval.service import Retrieval


class Api(msgspec.Struct, frozen=True):
    """What the data plane's paths need that are not hot. `identify` finds the virtual key of a request by its headers,
    `entered` hears those of who has one, `searchable` is told of each new vector store. `draining`: the server is about to end.
    """

    identify: Callable[[Mapping[bytes, bytes]], Key]
    files: Files
    batches: Batches
    retrieval: Callable[[], Awaitable["Retrieval"]]
    searchable: Callable[[], Awaitable[None]]
    searcher: Searcher
    feedback: Feedback
    retrievers: Retrievers
    entered: Callable[[Mapping[bytes, bytes]], None] = lambda _: None
    draining: Callable[[], bool] = lambda: False


class Steering(msgspec.Struct, frozen=True):
    """Rollouts by hand, and who hears of it."""

    rollouts: Rollouts
    tell: Tell


def create_app(
    *,
    engine: Engine,
    box: SecretBox,
    refresher: Refresher,
    admin_key_digest: bytes,
    version: str,
    oidc: "Oidc | None" = None,
    uses: Uses | None = None,
    shown: Callable[[], Awaitable[None]] = nothing_waits,
    enforcing: bool = False,
    conditions: Conditions = lambda _: None,
    servers: ServerConditions = dict,
    commands: Sequence[CommandSpec] = (),
    programs: Sequence[ProgramSpec] = (),
    api: Api | None = None,
    registrar: Registrar | None = None,
    webhook_secret: str | None = None,
    rolling: Steering | None = None,
    snapshots: Path = Path("snapshots"),
    reembedding: Callable[[], None] = lambda: None,
    scoring_desk: Scoring | None = None,
    vectors: "Vectors | None" = None,
) -> FastAPI:
    """`admin_key_digest` is the SHA-256 of the admin key (`gateway.keys.digest`). The application has no lifespan.

    `uses` tells what accounts hold, `shown` waits until all that was done is in the records; `conditions`, how deployments are, `servers`,
    how those of MCP are. `commands`: programs that may be MCP servers, `programs`, that may be engines. `registrar` takes artefacts of
    classic models in; without one there is no registry. `webhook_secret` is what MLflow signs its webhooks with.
    `snapshots`: the folder for those of collections. `reembedding` is told when one of those is asked for.
    `vectors` embeds texts, for who distils.
    `scoring_desk`: where predictions in bulk are asked for.
    `enforcing`: whether the data plane holds budgets and limits: if not, none is accepted.
    """
    app = DocumentedApi(
        title="Penstock",
        version=version,
        summary="One gate in front of every model a team uses.",
        redirect_slashes=False,
        strict_content_type=False,
        docs_url=None,  # the framework's page loads scripts from a network that may not be there
        redoc_url=None,
    )
    control = Control(engine, box, refresher, enforcing=enforcing, shown=shown)
    for routes in (
        orgs.router(control),
        teams.router(control),
        users.router(control),
        keys.router(control),
        budgets.router(control, uses),
        limits.router(control),
        tokens.router(control),
        audit.router(control),
        models.router(control),
        deployments.router(control, conditions),
        mcp_servers.router(control, servers, commands),
        guards.router(control),
        engines.router(control, programs),
        requests.router(control),
        spend.router(control),
        versions.routes_router(control),
        versions.prompts_router(control),
        versions.retrievers_router(control),
        collections.router(control, None if api is None else api.retrieval),
        backlog.router(control),
        snapshots_router(control, engine, snapshots),
        reembeddings.router(control, None if api is None else api.retrieval, reembedding),
        feedback.router(control),
        monitors.router(control),
        features.router(control, engine),
        skew.router(control, engine),
        config.router(control, version),
    ):
        # Whole as they are: `include_router` would build each of them a second time, for a tenth of a second.
        app.router.routes.extend(routes.routes)
    if registrar is not None:
        app.router.routes.extend(registry.router(control, registrar).routes)
        if vectors is not None:
            app.router.routes.extend(distil.router(control, Distillery(engine, registrar, vectors)).routes)
        if webhook_secret is not None:
            app.include_router(mlflow.router(control, registrar, webhook_secret))
    if rolling is not None:
        app.router.routes.extend(rollouts.router(control, rolling.rollouts, rolling.tell).routes)
    if scoring_desk is not None:
        app.router.routes.extend(scoring.router(control, scoring_desk).routes)
    if api is not None:
        for routes in (
            files_api.router(api.files),
            uploads_api.router(api.files),
            batches_api.router(api.batches),
            vector_stores_api.router(
                api.retrieval, api.searchable, api.feedback.search_id, api.retrievers, api.draining
            ),
            vector_store_files_api.router(api.retrieval, api.draining),
            dify_api.router(api.identify, api.searcher),
            feedback_api.router(api.feedback),
        ):
            app.include_router(routes)
        app.add_middleware(KeyGate, identify=api.identify, entered=api.entered)
        app.extend = document.extend
    documentation.install(app)
    errors.install(app)
    app.add_middleware(AdminGate, identities=Identities(engine, admin_key_digest, oidc))
    app.add_middleware(LastResort)  # the outer one
    return app
