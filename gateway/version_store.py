"""The tables of routes, prompts and retrievers and their versions. Every function takes the transaction it works in.

A version is written once; what changes is how much of the callers each one has, and the weights that were in force before are kept, so
that there is a way back.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Row, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.paging import Page, page
from gateway.routing.template import variables
from gateway.routing.versions import Family, Mirror, PromptVersion, RetrieverVersion, RouteVersion, Sticky, V, Versions
from gateway.tables import families, versions

Kind = Literal["route", "prompt", "retriever"]
Spec = Mapping[str, Any]

HISTORY = 20


class VersionRecord(msgspec.Struct, frozen=True):
    version: int
    weight: float
    spec: Spec
    created_at: float


class Copied(msgspec.Struct, frozen=True):
    """A version that gets copies of so large a part of a family's requests."""

    version: int
    share: float


class FamilyRecord(msgspec.Struct, frozen=True):
    """`history`: weights by version as they were before each change, newest first."""

    name: str
    sticky: Sticky
    versions: tuple[VersionRecord, ...]
    history: tuple[Mapping[str, float], ...]
    created_at: float
    updated_at: float
    shadow: Copied | None = None


def create(tx: Connection, kind: Kind, name: str, sticky: Sticky, spec: Spec) -> FamilyRecord:
    """With its first version, which everybody gets. Raises Conflict when the name is taken."""
    if tx.execute(select(families.c.name).where(_of(kind, name))).one_or_none() is not None:
        raise Conflict(f"{kind} {name!r} exists already: add a version to it.", param="name")
    now = time.time()
    values = {"kind": kind, "name": name, "sticky": sticky, "history": [], "created_at": now, "updated_at": now}
    tx.execute(insert(families).values(values))
    _insert(tx, kind, name, 1, 1.0, spec)
    record_revision(tx, f"{kind} {name} created")
    return get(tx, kind, name)


def add_version(tx: Connection, kind: Kind, name: str, spec: Spec, weight: float) -> FamilyRecord:
    """The next number. Raises NotFound."""
    family = get(tx, kind, name)
    number = 1 + max(one.version for one in family.versions)
    _insert(tx, kind, name, number, 0.0, spec)
    record_revision(tx, f"{kind} {name} has a version {number}")
    if weight:
        return set_weights(tx, kind, name, {number: weight})
    return get(tx, kind, name)


def get(tx: Connection, kind: Kind, name: str) -> FamilyRecord:
    """Raises NotFound."""
    row = tx.execute(select(families).where(_of(kind, name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no {kind} {name!r}.", param="name", code=f"{kind}_not_found")
    return _record(row, _versions(tx, kind, [name]).get(name, []))


def listed(tx: Connection, kind: Kind, limit: int, after: str | None = None) -> Page[FamilyRecord]:
    """By name."""
    query = select(families).where(families.c.kind == kind).order_by(families.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(families.c.name > after)
    rows = tx.execute(query).all()
    below = _versions(tx, kind, [row.name for row in rows])
    found = [_record(row, below.get(row.name, [])) for row in rows]
    return page(found, limit, [one.name for one in found])


def set_weights(tx: Connection, kind: Kind, name: str, weights: Mapping[int, float]) -> FamilyRecord:
    """Those that are not named stay. What was in force is kept for `roll_back`. Raises NotFound, BadRequest for an unknown version."""
    family = get(tx, kind, name)
    before = _weights(family)
    for number in weights:
        if str(number) not in before:
            raise BadRequest(f"{kind} {name!r} has no version {number}.", param=f"weights.{number}")
    after = before | {str(number): weight for number, weight in weights.items()}
    if after != before:
        _put(tx, kind, name, after, [before, *family.history][:HISTORY])
    return get(tx, kind, name)


def set_sticky(tx: Connection, kind: Kind, name: str, sticky: Sticky) -> FamilyRecord:
    get(tx, kind, name)
    tx.execute(update(families).where(_of(kind, name)).values(sticky=sticky, updated_at=time.time()))
    record_revision(tx, f"{kind} {name} changed")
    return get(tx, kind, name)


def set_shadow(tx: Connection, kind: Kind, name: str, shadow: Copied | None) -> None:
    """Raises NotFound."""
    if get(tx, kind, name).shadow == shadow:
        return
    value = None if shadow is None else msgspec.to_builtins(shadow)
    tx.execute(update(families).where(_of(kind, name)).values(shadow=value, updated_at=time.time()))
    record_revision(tx, f"{kind} {name} has another shadow")


def roll_back(tx: Connection, kind: Kind, name: str, version: int | None) -> FamilyRecord:
    """To the weights before the last change; or everybody to one version. Raises NotFound, BadRequest."""
    family = get(tx, kind, name)
    if version is not None:
        return set_weights(
            tx, kind, name, {one.version: float(one.version == version) for one in family.versions} | {version: 1.0}
        )
    if not family.history:
        raise BadRequest(f"The weights of {kind} {name!r} were never changed.", code="nothing_to_roll_back")
    earlier, *history = family.history
    _put(tx, kind, name, dict.fromkeys(_weights(family), 0.0) | dict(earlier), history)
    return get(tx, kind, name)


def remove(tx: Connection, kind: Kind, name: str) -> None:
    """Raises NotFound."""
    get(tx, kind, name)
    tx.execute(delete(versions).where(versions.c.kind == kind, versions.c.name == name))
    tx.execute(delete(families).where(_of(kind, name)))
    record_revision(tx, f"{kind} {name} deleted")


def every(tx: Connection) -> Versions | None:
    """What the data plane draws from; None where there is nothing."""
    rows = tx.execute(select(families).where(families.c.kind != "retriever")).all()
    if not rows:
        return None
    below: dict[tuple[str, str], list[VersionRecord]] = {}
    for row in tx.execute(select(versions).order_by(versions.c.version)):
        below.setdefault((row.kind, row.name), []).append(_version(row))
    found = Versions(
        {
            row.name: Family(row.name, row.sticky, _routes(below[row.kind, row.name]))
            for row in rows
            if row.kind == "route"
        },
        {
            row.name: Family(row.name, row.sticky, _prompts(below[row.kind, row.name]))
            for row in rows
            if row.kind == "prompt"
        },
    )
    mirrors = {(row.kind, row.name): _mirror(found, row) for row in rows if row.shadow is not None}
    return replace(found, mirrors=mirrors) if mirrors else found


def retrievers(tx: Connection) -> Mapping[str, Family[RetrieverVersion]]:
    """By name. What a chat request draws from is not made of them."""
    rows = tx.execute(select(families).where(families.c.kind == "retriever")).all()
    if not rows:
        return {}
    below = _versions(tx, "retriever", [row.name for row in rows])
    return {
        row.name: Family(
            row.name,
            row.sticky,
            tuple(RetrieverVersion(one.version, one.weight, one.spec) for one in below.get(row.name, [])),
        )
        for row in rows
    }


def _mirror(every: Versions, row: Row[Any]) -> Mirror:
    """As if everybody had the version that gets copies."""
    copied, name = msgspec.convert(row.shadow, Copied), row.name
    if row.kind == "route":
        alone = replace(every.routes[name], versions=_alone(every.routes[name], copied.version))
        return Mirror(replace(every, routes={**every.routes, name: alone}), copied.share)
    only = replace(every.prompts[name], versions=_alone(every.prompts[name], copied.version))
    return Mirror(replace(every, prompts={**every.prompts, name: only}), copied.share)


def _alone(family: Family[V], version: int) -> tuple[V, ...]:
    return tuple(replace(one, weight=1.0) for one in family.versions if one.version == version)


def _routes(records: list[VersionRecord]) -> tuple[RouteVersion, ...]:
    return tuple(
        RouteVersion(one.version, one.weight, one.spec["model"], one.spec.get("params", {})) for one in records
    )


def _prompts(records: list[VersionRecord]) -> tuple[PromptVersion, ...]:
    return tuple(
        PromptVersion(
            one.version,
            one.weight,
            tuple(one.spec["messages"]),
            variables(one.spec["messages"]),
            one.spec.get("params", {}),
            one.spec.get("model"),
        )
        for one in records
    )


def _put(tx: Connection, kind: Kind, name: str, weights: Mapping[str, float], history: object) -> None:
    for number, weight in weights.items():
        mine = (versions.c.kind == kind) & (versions.c.name == name) & (versions.c.version == int(number))
        tx.execute(update(versions).where(mine).values(weight=weight))
    tx.execute(update(families).where(_of(kind, name)).values(history=history, updated_at=time.time()))
    record_revision(tx, f"{kind} {name} has other weights")


def _insert(tx: Connection, kind: Kind, name: str, version: int, weight: float, spec: Spec) -> None:
    values = {"kind": kind, "name": name, "version": version, "weight": weight, "spec": spec, "created_at": time.time()}
    tx.execute(insert(versions).values(values))


def _versions(tx: Connection, kind: Kind, names: list[str]) -> dict[str, list[VersionRecord]]:
    found: dict[str, list[VersionRecord]] = {}
    query = select(versions).where(versions.c.kind == kind, versions.c.name.in_(names)).order_by(versions.c.version)
    for row in tx.execute(query):
        found.setdefault(row.name, []).append(_version(row))
    return found


def _version(row: Row[Any]) -> VersionRecord:
    return VersionRecord(row.version, row.weight, row.spec, row.created_at)


def _record(row: Row[Any], below: list[VersionRecord]) -> FamilyRecord:
    shadow = None if row.shadow is None else msgspec.convert(row.shadow, Copied)
    return FamilyRecord(row.name, row.sticky, tuple(below), tuple(row.history), row.created_at, row.updated_at, shadow)


def _weights(family: FamilyRecord) -> dict[str, float]:
    return {str(one.version): one.weight for one in family.versions}


def _of(kind: Kind, name: str) -> Any:
    return (families.c.kind == kind) & (families.c.name == name)
