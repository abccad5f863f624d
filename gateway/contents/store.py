"""The table of what was said: redacted texts by request, for as long as the configuration keeps them."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select

from gateway.tables import request_contents

FORGOTTEN_AT_ONCE = 500


class Content(msgspec.Struct, frozen=True):
    """Of one request; `answer` None: there was none, or it was too long. `at` is Unix seconds."""

    id: str
    at: float
    key_id: str | None
    team_id: str | None
    org_id: str | None
    session: str | None
    request: str
    answer: str | None


class Search(msgspec.Struct, frozen=True):
    """`text` is found anywhere in what was asked or answered, in whatever case. `org_id` and `team_id` are what who asks may see."""

    text: str | None = None
    session: str | None = None
    org_id: str | None = None
    team_id: str | None = None
    since: float | None = None


def add(tx: Connection, contents: Sequence[Content]) -> None:
    tx.execute(insert(request_contents), [msgspec.structs.asdict(one) for one in contents])


def get(tx: Connection, id_: str) -> Content | None:
    row = tx.execute(select(request_contents).where(request_contents.c.id == id_)).one_or_none()
    return None if row is None else Content(**row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it


def found(tx: Connection, search: Search, limit: int, after: str | None = None) -> Sequence[str]:
    """Ids of requests, newest first, older than `after`."""
    columns = request_contents.c
    query = select(columns.id).order_by(columns.id.desc()).limit(limit)
    if after is not None:
        query = query.where(columns.id < after)
    if search.since is not None:
        query = query.where(columns.at >= search.since)
    for name in ("session", "org_id", "team_id"):
        value = getattr(search, name)
        if value is not None:
            query = query.where(columns[name] == value)
    if search.text is not None:
        wanted = search.text.lower()
        query = query.where(
            or_(
                func.lower(columns.request).contains(wanted, autoescape=True),
                func.lower(columns.answer).contains(wanted, autoescape=True),
            )
        )
    return tx.execute(query).scalars().all()


def forget(tx: Connection, before: float) -> int:
    """Deletes what is older than that, a part at a time; how many it were."""
    columns = request_contents.c
    old = select(columns.id).where(columns.at < before).limit(FORGOTTEN_AT_ONCE)
    count = 0
    while ids := tx.execute(old).scalars().all():
        count += tx.execute(delete(request_contents).where(columns.id.in_(ids))).rowcount
    return count
