"""`/webhooks/mlflow`: MLflow says that an alias has moved, and the models that came from it follow."""

import asyncio
import time
from functools import partial

import structlog
from fastapi import APIRouter, Request
from sqlalchemy import Connection

from admin.rbac import Principal
from admin.rest.control import Control
from admin.rest.registry_bodies import AliasView, VersionView, alias_view, version_view
from gateway.database import record_revision
from gateway.errors import BodyTooLarge
from inference.errors import Conflict
from inference.mlflow.tracking import of_model
from inference.mlflow.webhook import MOST_BYTES, AliasMoved, read
from inference.registry import alias_store, version_store
from inference.registry.records import NewVersion
from inference.registry.registrar import Offer, Registrar

log = structlog.stdlib.get_logger(__name__)

PAGE = 1000
MLFLOW = Principal("mlflow webhook", "platform_admin")


def router(control: Control, registrar: Registrar, secret: str) -> APIRouter:
    """Requests show who they are by a signature, so they need no key."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/webhooks/mlflow", summary="Hear of MLflow's aliases")
    async def hear(request: Request) -> dict[str, list[str]]:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise BodyTooLarge(f"A webhook may have {MOST_BYTES:,} bytes")
        moved = read(request.headers, body, secret, time.time())
        followed = [] if moved is None else await follow(control, registrar, moved)
        return {"models": followed}

    return routes


async def follow(control: Control, registrar: Registrar, moved: AliasMoved) -> list[str]:
    """Registers the version in every model that came from that one, and moves its alias: which of them. The gates of an alias hold."""
    names = await control.read(partial(_followers, name=moved.name))
    uri = f"models:/{moved.name}/{moved.version}"
    for name in names:
        version = await control.read(partial(_known, model=name, uri=uri))
        if version is None:
            new = await asyncio.to_thread(_fetched, registrar, uri)
            registering = partial(_registered, name=name, new=new)
            version = (await control.change(MLFLOW, "classic_version.register", name, registering)).version
        try:
            moving = partial(_moved, name=name, alias=moved.alias, version=version)
            await control.change(MLFLOW, "classic_alias.set", f"{name}/{moved.alias}", moving)
        except Conflict as error:  # it waits for its approvals
            log.warning("registry.alias.waits", model=name, alias=moved.alias, version=version, reason=error.code)
    return names


def _fetched(registrar: Registrar, uri: str) -> NewVersion:
    with registrar.artefacts.aside() as folder:
        return registrar.examined(registrar.fetched(uri, Offer("mlflow", folder / "artifact", ""), folder), folder)


def _followers(tx: Connection, name: str) -> list[str]:
    found, after = [], None
    while page := version_store.list_models(tx, PAGE, after)[:PAGE]:
        after = page[-1].name
        found += [
            model.name
            for model in page
            if any(of_model(each.source.uri) == name for each in version_store.every_version(tx, model.name))
        ]
    return found


def _known(tx: Connection, model: str, uri: str) -> int | None:
    return next((each.version for each in version_store.every_version(tx, model) if each.source.uri == uri), None)


def _registered(tx: Connection, name: str, new: NewVersion) -> VersionView:
    revision = record_revision(tx, f"classic model {name} registered")
    return version_view(version_store.add_version(tx, name, new, MLFLOW.actor, revision), [])


def _moved(tx: Connection, name: str, alias: str, version: int) -> AliasView:
    revision = record_revision(tx, f"classic model {name} alias {alias} to version {version}")
    return alias_view(alias_store.move(tx, name, alias, version, MLFLOW.actor, revision))
