"""`/admin/v1/registry/{name}/versions/{version}/skew`: what a version was trained on against what it is asked."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel
from sqlalchemy import Connection, Engine, select

from admin.rest.control import Control
from admin.rest.errors import documented
from admin.rest.wire import StrictRoute, at
from gateway.database import reading
from inference.errors import NotFound
from inference.registry import version_store
from inference.registry.names import NAME
from inference.tables import predictions

if TYPE_CHECKING:
    from inference.features.skew import Finding

MOST_CALLS: Final = 100_000

Share = Annotated[float, Query(ge=0, le=1)]


class WindowView(BaseModel):
    """Captured calls, newest first, and their rows."""

    since: datetime | None
    until: datetime | None
    calls: int
    rows: int


class NullsView(BaseModel):
    reference: float
    current: float


class UnseenView(BaseModel):
    """The share of values that the training data had not, and the commonest of them."""

    share: float
    values: list[str]


class SkewColumnView(BaseModel):
    """`test`, `statistic` and `p_value`: Kolmogorov-Smirnov's of numbers. `threshold`: of `psi`, the policy's or chance's, the larger."""

    name: str
    kind: str
    rows: int
    psi: float | None
    threshold: float | None
    test: Literal["ks"] | None
    statistic: float | None
    p_value: float | None
    nulls: NullsView
    unseen: UnseenView | None
    drifted: bool
    reasons: list[str]


class ConsistencyView(BaseModel):
    """Of features that were joined: how often a model was given something else than the history of its feature view now says that was
    known then, as when a row came late. `unequal`: that share, by feature."""

    view: str
    rows: int
    unequal: dict[str, float]


class SkewView(BaseModel):
    """`drifted`: whether any column is. Of fewer than 30 values nothing is said."""

    model: str
    version: int
    reference_rows: int
    window: WindowView
    drifted: bool
    columns: list[SkewColumnView]
    consistency: ConsistencyView | None


def router(control: Control, engine: Engine) -> APIRouter:
    routes = APIRouter(prefix="/registry", tags=["registry"], route_class=StrictRoute)

    @routes.get(
        "/{name}/versions/{version}/skew",
        summary="Hold what is asked against what a version was trained on",
        responses=documented(404),
    )
    async def skew(
        name: Annotated[str, InPath(pattern=NAME)],
        version: Annotated[int, InPath(ge=1, le=2_147_483_647)],
        window_s: Annotated[float, Query(gt=0, le=31_536_000)] = 86_400,
        calls: Annotated[int, Query(ge=1, le=MOST_CALLS)] = 10_000,
        psi: Annotated[float, Query(ge=0, le=100)] = 0.2,
        ks: Share = 0.1,
        nulls: Share = 0.05,
        unseen: Share = 0.01,
        alpha: Annotated[float, Query(gt=0, le=0.5)] = 0.01,
    ) -> SkewView:
        profile = await control.read(lambda tx: version_store.profile(tx, name, version))
        if profile is None:
            raise NotFound(f"Version {version} of {name!r} has no reference profile.", code="profile_not_found")
        found = await control.read(partial(_captured, name, version, time.time() - window_s, calls))
        words = {"psi": psi, "ks": ks, "nulls": nulls, "unseen": unseen, "alpha": alpha}
        return await asyncio.to_thread(_view, engine, name, version, profile, found, words)

    return routes


def _captured(name: str, version: int, since: float, most: int, tx: Connection) -> Sequence[tuple[float, int, str]]:
    columns = predictions.c
    query = (
        select(columns.at, columns.rows, columns.inputs)
        .where(columns.model == name, columns.version == version, columns.at >= since)
        .where(columns.inputs.is_not(None), columns.error.is_(None))
        .order_by(columns.at.desc())
        .limit(most)
    )
    return [(row.at, row.rows, row.inputs) for row in tx.execute(query)]


def _view(
    engine: Engine,
    name: str,
    version: int,
    profile: Mapping[str, Any],
    found: Sequence[tuple[float, int, str]],
    words: Mapping[str, float],
) -> SkewView:
    from inference.features import skew  # noqa: PLC0415 — for those who ask

    decode = msgspec.json.Decoder(dict[str, Any]).decode
    calls = [(moment, decode(inputs)) for moment, _, inputs in found]
    values: dict[str, list[Any]] = {}
    for _, inputs in calls:
        for column, some in skew.flat(inputs).items():
            values.setdefault(column, []).extend(some)
    columns = [_column(each) for each in skew.findings(profile, values, skew.Limits(**words))]
    with reading(engine) as tx:
        named = version_store.find_version(tx, name, version).lineage.get("feature_view")
    times = [moment for moment, _ in calls]
    return SkewView(
        model=name,
        version=version,
        reference_rows=profile["rows"],
        window=WindowView(
            since=at(min(times)) if times else None,
            until=at(max(times)) if times else None,
            calls=len(calls),
            rows=sum(rows for _, rows, _ in found),
        ),
        drifted=any(each.drifted for each in columns),
        columns=columns,
        consistency=_consistency(engine, named, calls) if isinstance(named, Mapping) else None,
    )


def _consistency(
    engine: Engine, named: Mapping[str, Any], calls: Sequence[tuple[float, Mapping[str, Any]]]
) -> ConsistencyView | None:
    """Of the calls whose features were joined from a view that is kept here."""
    from inference.features import consistency  # noqa: PLC0415 — as above

    found = consistency.compared(partial(reading, engine), named, calls)
    if found is None:
        return None
    return ConsistencyView(view=found.view, rows=found.rows, unequal=dict(found.unequal))


def _column(found: "Finding") -> SkewColumnView:
    return SkewColumnView(
        name=found.name,
        kind=found.kind,
        rows=found.rows,
        psi=found.psi,
        threshold=found.psi_threshold,
        test=None if found.ks is None else "ks",
        statistic=found.ks,
        p_value=found.p_value,
        nulls=NullsView(reference=found.nulls_reference, current=found.nulls),
        unseen=None if found.unseen is None else UnseenView(share=found.unseen, values=list(found.unseen_values)),
        drifted=bool(found.reasons),
        reasons=list(found.reasons),
    )
