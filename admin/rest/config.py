"""`/admin/v1/config`: the configuration in force, with the origin of every object and without secrets."""

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Connection

from admin.rest.control import Control
from admin.rest.errors import documented
from admin.rest.models import ModelView, model_view
from admin.rest.wire import StrictRoute
from gateway import model_store
from gateway.database import newest_revision


class SkippedView(BaseModel):
    """An object that is stored but not in use, and why."""

    kind: str
    id: str
    reason: str


class ConfigView(BaseModel):
    version: str
    revision: int
    models: list[ModelView]
    skipped: list[SkippedView]


def router(control: Control, version: str) -> APIRouter:
    routes = APIRouter(prefix="/config", tags=["config"], route_class=StrictRoute)

    @routes.get("", summary="Show the configuration in force", responses=documented())
    async def show() -> ConfigView:
        def work(tx: Connection) -> tuple[int, list[ModelView]]:
            views = [model_view(model, below) for model, below in model_store.every_model(tx)]
            return newest_revision(tx), views

        revision, models = await control.read(work)
        skipped = [SkippedView(kind=each.kind, id=each.id, reason=each.reason) for each in control.refresher.skipped]
        return ConfigView(version=version, revision=revision, models=models, skipped=skipped)

    return routes
