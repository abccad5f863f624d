"""`/admin/v1/feedback`: what was said of answers, predictions and searches, newest first."""

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from msgspec.structs import replace
from pydantic import BaseModel, JsonValue
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Filter, Limit, ListPage, StrictRoute, at
from gateway import request_store
from gateway.request_store import RequestFilter
from inference.feedback import store
from inference.feedback.store import Kept


class FeedbackView(BaseModel):
    """`id` is that of what it is about; `number` that of the feedback itself."""

    number: str
    id: str
    kind: str
    source: str
    label: JsonValue
    score: float | None
    comment: str | None
    key_id: str | None
    team_id: str | None
    org_id: str | None
    created_at: datetime
    updated_at: datetime


def router(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/feedback", tags=["feedback"], route_class=StrictRoute)

    @routes.get("", summary="List feedback, newest first", responses=documented())
    async def listed(
        *,
        asker: Asker,
        limit: Limit = 100,
        after: After = None,
        id: Filter = None,  # noqa: A002 — the parameter's name
        kind: Filter = None,
        source: Filter = None,
    ) -> ListPage[FeedbackView]:
        only = store.Filter(id, kind, source, asker.reach.org_id, asker.reach.team_id)

        def read(tx: Connection) -> Sequence[Kept]:
            found = store.listed(tx, limit, after, only)
            return found if found or id is None else store.listed(tx, limit, after, _renamed(tx, id, only))

        found = await control.read(read)
        views = [_view(one) for one in found]
        return ListPage[FeedbackView].cut(views, limit, lambda one: one.number)

    return routes


def _renamed(tx: Connection, id_: str, only: store.Filter) -> store.Filter:
    """By the request, where the id is the one that stands in its answer."""
    reach = RequestFilter(org_id=only.org_id, team_id=only.team_id)
    found = request_store.answered(tx, [id_], reach.admits).get(id_)
    return only if found is None else replace(only, id=found.id)


def _view(one: Kept) -> FeedbackView:
    word, owner = one.word, one.owner
    return FeedbackView(
        number=one.number,
        id=word.id,
        kind=owner.kind,
        source=word.source,
        label=word.label,
        score=word.score,
        comment=word.comment,
        key_id=owner.key_id,
        team_id=owner.team_id,
        org_id=owner.org_id,
        created_at=at(one.created_at),
        updated_at=at(one.updated_at),
    )
