"""The tables of engines. Every function takes the transaction it works in; who changes what is declared numbers the revision.

As models: the file seeds it, REST changes it, and from then on the database is the truth.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, Row, case, delete, insert, select, update

from inference.fleet.settings import EngineSpec
from inference.fleet.states import Condition, Declared, Wish
from inference.fleet.tables import engine_users
from inference.fleet.tables import engines as table

Spec = Mapping[str, Any]
Seal = Callable[[str], str]
REST: Final = "rest"
GONE_S: Final = 30.0  # a worker that says nothing for so long has no calls any more


class UnknownEngineError(Exception):
    """There is no engine of that name."""


class EngineExistsError(Exception):
    """There is one of that name."""


class EngineRecord(msgspec.Struct, frozen=True):
    """`spec` is an EngineSpec's JSON with sealed values or references, never a secret in clear. `state`: what its supervisor last said."""

    name: str
    spec: Spec
    origin: str
    edited: bool
    wish: Wish
    turn: int
    called_at: float | None
    state: Condition | None
    state_at: float | None
    created_at: float
    updated_at: float


class Report(msgspec.Struct, frozen=True):
    """What became of what a file says: names. `kept`: it was edited over REST."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def any_at_all(tx: Connection) -> bool:
    return tx.execute(select(table.c.name).limit(1)).one_or_none() is not None


def every(tx: Connection) -> list[EngineRecord]:
    return [
        _record(row) for row in tx.execute(select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.name))
    ]


def listed(tx: Connection, limit: int, after: str | None = None) -> list[EngineRecord]:
    """By name, one more than the limit if there are more."""
    query = select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.name).limit(limit + 1)
    return [_record(row) for row in tx.execute(query if after is None else query.where(table.c.name > after))]


def get(tx: Connection, name: str) -> EngineRecord:
    """Raises UnknownEngineError."""
    row = tx.execute(select(table).where(_alive(name))).one_or_none()
    if row is None:
        raise UnknownEngineError(name)
    return _record(row)


def create(tx: Connection, spec: EngineSpec, seal: Seal) -> EngineRecord:
    """In the place of a deleted one of that name. Raises EngineExistsError."""
    if tx.execute(select(table.c.name).where(_alive(spec.name))).one_or_none() is not None:
        raise EngineExistsError(spec.name)
    now = time.time()
    values = {"spec": _json(spec, seal), "origin": REST, "edited": True, "deleted_at": None, "wish": "run", "turn": 0}
    values |= {"state": None, "called_at": None, "created_at": now, "updated_at": now}
    if tx.execute(update(table).where(table.c.name == spec.name).values(**values)).rowcount == 0:
        tx.execute(insert(table).values(name=spec.name, **values))
    return get(tx, spec.name)


def change(tx: Connection, name: str, changes: Spec, seal: Seal) -> EngineRecord:
    """Merges JSON of EngineSpec's fields, secrets in clear; None puts a default back. Raises UnknownEngineError, ValidationError."""
    merged = {
        key: value for key, value in {**get(tx, name).spec, **_sealed(changes, seal)}.items() if value is not None
    }
    EngineSpec.model_validate(merged)
    tx.execute(update(table).where(_alive(name)).values(spec=merged, edited=True, updated_at=time.time()))
    return get(tx, name)


def remove(tx: Connection, name: str) -> None:
    """A seeded one leaves a mark, or the next start would bring it back. Raises UnknownEngineError."""
    get(tx, name)
    now = time.time()
    seeded = update(table).where(table.c.name == name, table.c.origin != REST)
    tx.execute(seeded.values(deleted_at=now, updated_at=now, edited=True))
    tx.execute(delete(table).where(table.c.name == name, table.c.origin == REST))


def wish(tx: Connection, name: str, wanted: Wish | Literal["restart", "wake"]) -> EngineRecord:
    """What somebody wants of it; in force with the supervisor's next look. Raises UnknownEngineError."""
    get(tx, name)
    values: dict[str, Any] = {"wish": wanted if wanted in ("run", "stop", "sleep") else "run"}
    if wanted in ("restart", "run"):  # a crashed one is tried again
        values["turn"] = table.c.turn + (1 if wanted == "restart" else 0)
    if wanted in ("restart", "run", "wake"):
        values["called_at"] = time.time()
    tx.execute(update(table).where(_alive(name)).values(**values))
    return get(tx, name)


def call(tx: Connection, name: str) -> None:
    """A request waits for it. What was put to sleep by hand wakes up as well; what was stopped does not."""
    wanted = case((table.c.wish == "sleep", "run"), else_=table.c.wish)
    tx.execute(update(table).where(_alive(name)).values(called_at=time.time(), wish=wanted))


def say(tx: Connection, states: Mapping[str, Condition]) -> None:
    """What the supervisor sees."""
    now = time.time()
    for name, state in states.items():
        tx.execute(update(table).where(table.c.name == name).values(state=msgspec.to_builtins(state), state_at=now))


def declared(tx: Connection) -> dict[str, Declared]:
    """All that is wanted, by name, with when it was last used. What does not validate any more is left out."""
    used: dict[str, float] = {}
    for row in tx.execute(select(engine_users.c.used)):
        for name, at in row.used.items():
            used[name] = max(at, used.get(name, 0.0))
    found: dict[str, Declared] = {}
    for record in every(tx):
        try:
            spec = EngineSpec.model_validate(record.spec)
        except ValueError:
            continue
        found[record.name] = Declared(
            spec, record.wish, record.turn, record.called_at or 0.0, used.get(record.name, 0.0)
        )
    return found


def report(tx: Connection, worker: str, revision: int, running: Mapping[str, int], used: Mapping[str, float]) -> None:
    """A worker's calls by deployment, and its last use of each engine in Unix seconds."""
    values = {"revision": revision, "running": dict(running), "used": dict(used), "at": time.time()}
    if tx.execute(update(engine_users).where(engine_users.c.worker == worker).values(**values)).rowcount == 0:
        tx.execute(insert(engine_users).values(worker=worker, **values))
    tx.execute(delete(engine_users).where(engine_users.c.at < time.time() - 86_400))


def leave(tx: Connection, worker: str) -> None:
    """The worker ends: it has no calls. When engines were used is kept."""
    tx.execute(update(engine_users).where(engine_users.c.worker == worker).values(running={}, revision=1 << 62))


def drained(tx: Connection, deployments: Callable[[str], bool], revision: int) -> bool:
    """Whether every worker knows a revision and has no call at these deployments."""
    query = select(engine_users).where(engine_users.c.at > time.time() - GONE_S)
    return all(
        row.revision >= revision and not any(count and deployments(id_) for id_, count in row.running.items())
        for row in tx.execute(query)
    )


def seed(tx: Connection, specs: Sequence[tuple[EngineSpec, str]], seal: Seal) -> Report:
    """Brings the table in line with the configuration file, each engine with its origin, without undoing what REST edited."""
    log: dict[str, list[str]] = {"added": [], "updated": [], "kept": [], "removed": []}
    rows = {row.name: row for row in tx.execute(select(table))}
    now = time.time()
    for spec, origin in specs:
        row, digest = rows.pop(spec.name, None), _hash(spec)
        values: dict[str, Any] = {"spec": _json(spec, seal), "origin": origin, "seed_hash": digest, "updated_at": now}
        if row is None:
            tx.execute(insert(table).values(name=spec.name, created_at=now, **values))
            log["added"].append(spec.name)
        elif row.edited:
            log["kept"].append(spec.name)
        elif row.seed_hash != digest:
            tx.execute(update(table).where(table.c.name == spec.name).values(**values))
            log["updated"].append(spec.name)
    for name, row in rows.items():
        if row.origin == REST:
            continue
        if row.edited and row.deleted_at is None:
            log["kept"].append(name)
            continue
        tx.execute(delete(table).where(table.c.name == name))
        if row.deleted_at is None:
            log["removed"].append(name)
    return Report(**{what: tuple(names) for what, names in log.items()})


def _json(spec: EngineSpec, seal: Seal) -> dict[str, Any]:
    return _sealed(spec.model_dump(mode="json", exclude_defaults=True), seal)


def _sealed(spec: Spec, seal: Seal) -> dict[str, Any]:
    env = spec.get("env")
    return dict(spec) if not env else {**spec, "env": {name: seal(value) for name, value in env.items()}}


def _hash(spec: EngineSpec) -> str:
    written = spec.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(msgspec.json.encode(written, order="sorted")).hexdigest()


def _alive(name: str) -> Any:
    return (table.c.name == name) & table.c.deleted_at.is_(None)


def _record(row: Row[Any]) -> EngineRecord:
    state = None if row.state is None else msgspec.convert(row.state, Condition)
    return EngineRecord(
        row.name,
        row.spec,
        row.origin,
        row.edited,
        row.wish,
        row.turn,
        row.called_at,
        state,
        row.state_at,
        row.created_at,
        row.updated_at,
    )
