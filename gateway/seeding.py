"""Seeding: `penstock.yaml` and what was found in the environment become rows, without undoing what REST edited.

An origin reads `file penstock.yaml:12`, `environment OPENAI_API_KEY` or `local http://127.0.0.1:11434`; its first word is
the source. Each source is seeded as a whole: what is new is added, what changed there is updated, what vanished from it is
removed. What was edited, made or deleted over REST stays as it is and is reported, so that nobody wonders why the file has
no effect.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from sqlalchemy import Connection, Table, delete, insert, select, update

from gateway.database import record_revision
from gateway.guards.sealing import sealed
from gateway.mcp.settings import ServerSpec
from gateway.mcp.store import SERVERS
from gateway.model_store import deployment_json, model_json, placed
from gateway.secret_box import SecretBox
from gateway.settings import DeploymentSpec, ModelSpec
from gateway.tables import deployments, guards, mcp_servers, models

Decision = Literal["add", "update", "keep", "same", "leave"]


class Seed(msgspec.Struct, frozen=True):
    """A model of one source. Deployments have the model's origin unless `deployment_origins` has their own by id."""

    spec: ModelSpec
    origin: str
    deployment_origins: Mapping[str, str] = {}


class SeedReport(msgspec.Struct, frozen=True):
    """Labels such as `model chat`, `deployment chat-a`. `kept`: the source says otherwise, but REST has the last word."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Wanted(msgspec.Struct, frozen=True):
    origin: str
    hash: str
    spec: ModelSpec | DeploymentSpec | ServerSpec | dict[str, Any]  # a guard is what is written of it
    model: str | None = None  # of a deployment
    position: int = 0  # in the list of its model


class Stored(msgspec.Struct, frozen=True):
    origin: str
    hash: str | None
    edited: bool
    deleted: bool


def seed(tx: Connection, source: str, seeds: Sequence[Seed], box: SecretBox) -> SeedReport:
    """Brings the tables in line with all that one source names; in `gateway.database.changing`. Raises ValueError."""
    names, ids = wanted(source, seeds)
    seeding = _Seeding(tx, source, box)
    stored_models, stored_deployments = _stored(tx, models), _stored(tx, deployments)
    seeding.bring_in(models, names, stored_models)
    seeding.bring_in(deployments, ids, stored_deployments)
    seeding.take_out(deployments, ids, stored_deployments)
    seeding.take_out(models, names, stored_models)
    report = seeding.report()
    if report.added or report.updated or report.removed:
        record_revision(tx, f"seeded from {source}")
    return report


def seed_servers(tx: Connection, servers: Sequence[tuple[ServerSpec, str]], box: SecretBox) -> SeedReport:
    """The same for the MCP servers of the configuration file, each with its origin."""
    wishes = {spec.name: Wanted(origin, _hash(spec), spec) for spec, origin in servers}
    return _seed_named(tx, mcp_servers, wishes, box, "MCP servers")


def seed_guards(tx: Connection, specs: Sequence[tuple[dict[str, Any], str]], box: SecretBox) -> SeedReport:
    """The same for the guards of the configuration file, each with its origin: JSON of GuardSpecs that were checked."""
    wishes = {spec["name"]: Wanted(origin, _hash(spec), spec) for spec, origin in specs}
    return _seed_named(tx, guards, wishes, box, "guards")


def _seed_named(tx: Connection, table: Table, wishes: Mapping[str, Wanted], box: SecretBox, what: str) -> SeedReport:
    """Of one table whose objects have names, what the file says."""
    seeding = _Seeding(tx, "file", box)
    stored = _stored(tx, table)
    seeding.bring_in(table, wishes, stored)
    seeding.take_out(table, wishes, stored)
    report = seeding.report()
    if report.added or report.updated or report.removed:
        record_revision(tx, f"{what} seeded from file")
    return report


def wanted(source: str, seeds: Iterable[Seed]) -> tuple[dict[str, Wanted], dict[str, Wanted]]:
    """What a source names, by model name and by deployment id. Raises ValueError when a name comes twice."""
    names: dict[str, Wanted] = {}
    ids: dict[str, Wanted] = {}
    for each in seeds:
        if source_of(each.origin) != source:
            raise ValueError(
                f"model {each.spec.name!r} has the origin {each.origin!r}, which is not of source {source!r}"
            )
        if each.spec.name in names:
            raise ValueError(
                f"model {each.spec.name!r} is defined twice: {names[each.spec.name].origin} and {each.origin}"
            )
        names[each.spec.name] = Wanted(each.origin, _hash(each.spec), each.spec)
        for position, deployment in enumerate(each.spec.deployments):
            origin = each.deployment_origins.get(deployment.id, each.origin)
            if deployment.id in ids:
                raise ValueError(
                    f"deployment {deployment.id!r} is defined twice: {ids[deployment.id].origin} and {origin}"
                )
            hash_ = _hash(deployment, each.spec.name, position)
            ids[deployment.id] = Wanted(origin, hash_, deployment, each.spec.name, position)
    return names, ids


def decide(stored: Stored | None, wish: Wanted, source: str) -> Decision:
    """What to do about one object that a source names."""
    if stored is None:
        return "add"
    if stored.edited:
        return "keep"
    if source_of(stored.origin) != source:
        return "update" if source == "file" else "leave"  # what a person wrote beats what was found
    return "same" if stored.hash == wish.hash else "update"


def source_of(origin: str) -> str:
    return origin.partition(" ")[0]


class _Seeding:
    """The writes of one source, and the log of them."""

    def __init__(self, tx: Connection, source: str, box: SecretBox) -> None:
        self._tx = tx
        self._source = source
        self._box = box
        self._log: dict[str, list[str]] = {"added": [], "updated": [], "kept": [], "removed": []}

    def report(self) -> SeedReport:
        return SeedReport(**{what: tuple(labels) for what, labels in self._log.items()})

    def bring_in(self, table: Table, wishes: Mapping[str, Wanted], stored: Mapping[str, Stored]) -> None:
        key, now = table.primary_key.columns[0], time.time()
        for id_, wish in wishes.items():
            match decide(stored.get(id_), wish, self._source):
                case "add":
                    values = _values(wish, self._box) | {key.name: id_, "created_at": now, "updated_at": now}
                    self._tx.execute(insert(table).values(**values))
                    self._note("added", table, id_)
                case "update":
                    values = _values(wish, self._box)
                    self._tx.execute(update(table).where(key == id_).values(**values, updated_at=now))
                    self._note("updated", table, id_)
                case "keep":
                    self._note("kept", table, id_)
                case "same":  # perhaps on another line by now
                    moved = update(table).where(key == id_, table.c.origin != wish.origin)
                    self._tx.execute(moved.values(origin=wish.origin))
                case "leave":
                    pass
                case never:
                    assert_never(never)

    def take_out(self, table: Table, wishes: Mapping[str, Wanted], stored: Mapping[str, Stored]) -> None:
        key = table.primary_key.columns[0]
        for id_, old in stored.items():
            if id_ in wishes or source_of(old.origin) != self._source:
                continue
            if (old.edited and not old.deleted) or (table is models and _has_deployments(self._tx, id_)):
                self._note("kept", table, id_)
            else:
                self._tx.execute(delete(table).where(key == id_))
                if not old.deleted:
                    self._note("removed", table, id_)

    def _note(self, what: str, table: Table, id_: str) -> None:
        self._log[what].append(f"{table.name[:-1]} {id_}")


def _has_deployments(tx: Connection, model: str) -> bool:
    query = select(deployments.c.id).where(deployments.c.model == model, deployments.c.deleted_at.is_(None)).limit(1)
    return tx.execute(query).one_or_none() is not None


def _values(wish: Wanted, box: SecretBox) -> dict[str, Any]:
    values: dict[str, Any] = {"origin": wish.origin, "seed_hash": wish.hash}
    match wish.spec:
        case ModelSpec():
            return values | {"spec": model_json(wish.spec)}
        case DeploymentSpec():
            return values | {"spec": placed(deployment_json(wish.spec, box), wish.position), "model": wish.model}
        case ServerSpec():
            return values | {"spec": SERVERS.json(wish.spec, box)}
        case dict():
            return values | {"spec": sealed(wish.spec, box)}
        case never:
            assert_never(never)


def _stored(tx: Connection, table: Table) -> dict[str, Stored]:
    key = table.primary_key.columns[0]
    query = select(key, table.c.origin, table.c.seed_hash, table.c.edited, table.c.deleted_at)
    return {
        row[0]: Stored(row.origin, row.seed_hash, row.edited, row.deleted_at is not None) for row in tx.execute(query)
    }


def _hash(spec: ModelSpec | DeploymentSpec | ServerSpec | dict[str, Any], model: str = "", position: int = 0) -> str:
    """Of the object as it is written. Deployments are objects of their own, so a model's hash is without them.

    `position` 0 is left out: those were the hashes before there were positions, and what did not change must not look changed.
    """
    written = (
        spec if isinstance(spec, dict) else spec.model_dump(mode="json", exclude_defaults=True, exclude={"deployments"})
    )
    parts = (model, written, position) if position else (model, written)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
