"""The table of virtual keys. Every function takes its transaction: `gateway.database.changing` or `reading`."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, delete, insert, select, update

from gateway import budget_store, org_store
from gateway import keys as virtual
from gateway.admission.classes import standing
from gateway.database import record_revision
from gateway.errors import Conflict, NotFound
from gateway.ids import new_id
from gateway.mcp.rights import rights
from gateway.paging import Page, page
from gateway.reach import EVERYTHING, Reach
from gateway.tables import keys, orgs, retired_secrets, teams, users

FORGOTTEN_AFTER_S = 30 * 86_400  # digests of secrets that do not work any more: no process is that far behind


class NewKey(msgspec.Struct, frozen=True):
    """What a key is made from. `models` and `routes` None admit everything; `expires_at` is Unix seconds.

    The organisation follows from the team or the user; a key may also be of an organisation alone, or of nobody.
    """

    name: str
    team_id: str | None = None
    models: tuple[str, ...] | None = None
    expires_at: float | None = None
    metadata: Mapping[str, Any] | None = None
    org_id: str | None = None
    user_id: str | None = None
    routes: tuple[str, ...] | None = None
    mcp: Mapping[str, Any] | None = None


class KeyChange(msgspec.Struct, frozen=True):
    """What to change: UNSET leaves a value as it is, None clears it. No key moves to another organisation."""

    name: str | UnsetType = UNSET
    team_id: str | UnsetType | None = UNSET
    user_id: str | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    routes: tuple[str, ...] | UnsetType | None = UNSET
    blocked: bool | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET
    metadata: Mapping[str, Any] | UnsetType | None = UNSET
    mcp: Mapping[str, Any] | UnsetType | None = UNSET


class KeyRecord(msgspec.Struct, frozen=True):
    """A key as it is kept: everything but the secret, of which `hint` shows the last four characters."""

    id: str
    hint: str
    name: str
    org_id: str | None
    team_id: str | None
    user_id: str | None
    models: tuple[str, ...] | None
    routes: tuple[str, ...] | None
    blocked: bool
    expires_at: float | None
    revoked_at: float | None
    metadata: Mapping[str, Any] | None
    mcp: Mapping[str, Any] | None
    created_at: float
    updated_at: float


def create(tx: Connection, new: NewKey) -> tuple[KeyRecord, str]:
    """The new key and its secret, which is not kept and cannot be shown again.

    Raises BadRequest for a team, user or organisation that is not there or does not fit the others.
    """
    secret, id_, now = virtual.new_secret(), new_id("key"), time.time()
    values = msgspec.structs.asdict(new)
    values["org_id"] = org_store.owners(tx, new.org_id, new.team_id, new.user_id)
    tx.execute(
        insert(keys).values(
            **values,
            id=id_,
            digest=virtual.digest(secret.encode()),
            hint=virtual.hint(secret),
            created_at=now,
            updated_at=now,
            revision=record_revision(tx, f"key {id_} created"),
        )
    )
    return get(tx, id_), secret


def get(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> KeyRecord:
    """Raises NotFound, also for one that is out of reach."""
    row = tx.execute(select(keys).where(keys.c.id == id_, reach.rows(keys))).one_or_none()
    if row is None:
        raise NotFound(f"There is no key {id_!r}.", param="id", code="key_not_found")
    return _record(row)


def listed(
    tx: Connection,
    limit: int,
    after: str | None = None,
    reach: Reach = EVERYTHING,
    only: Reach = EVERYTHING,
    user_id: str | None = None,
) -> Page[KeyRecord]:
    """Oldest first, of one organisation, team or user if named; revoked keys are among them."""
    query = select(keys).where(reach.rows(keys), only.rows(keys)).order_by(keys.c.id).limit(limit + 1)
    if user_id is not None:
        query = query.where(keys.c.user_id == user_id)
    if after is not None:
        query = query.where(keys.c.id > after)
    found = [_record(row) for row in tx.execute(query)]
    return page(found, limit, [key.id for key in found])


def change(tx: Connection, id_: str, changes: KeyChange, reach: Reach = EVERYTHING) -> KeyRecord:
    """Raises NotFound; BadRequest for a team or user that is not there or of another organisation."""
    known = get(tx, id_, reach)
    values = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
    if not values:
        return known
    if values.keys() & {"team_id", "user_id"}:
        values["org_id"] = org_store.owners(
            tx, known.org_id, values.get("team_id", known.team_id), values.get("user_id", known.user_id)
        )
        budget_store.move(tx, "key", id_, values["org_id"], values.get("team_id", known.team_id))
    revision = record_revision(tx, f"key {id_} changed")
    tx.execute(update(keys).where(keys.c.id == id_).values(**values, updated_at=time.time(), revision=revision))
    return get(tx, id_)


def rotate(tx: Connection, id_: str, grace_s: float, reach: Reach = EVERYTHING) -> tuple[KeyRecord, str]:
    """A new secret; every earlier one works for `grace_s` more at most, 0 for not at all. Raises NotFound, Conflict if revoked."""
    if get(tx, id_, reach).revoked_at is not None:
        raise Conflict(f"The key {id_!r} is revoked: make a new one.", code="key_revoked")
    now, secret = time.time(), virtual.new_secret()
    tx.execute(delete(retired_secrets).where(retired_secrets.c.expires_at < now - FORGOTTEN_AFTER_S))
    of_key = (retired_secrets.c.key_id == id_) & (retired_secrets.c.expires_at > now + grace_s)
    tx.execute(update(retired_secrets).where(of_key).values(expires_at=now + grace_s))
    digest = tx.execute(select(keys.c.digest).where(keys.c.id == id_)).scalar_one()
    tx.execute(insert(retired_secrets).values(digest=digest, key_id=id_, expires_at=now + grace_s))
    tx.execute(
        update(keys)
        .where(keys.c.id == id_)
        .values(
            digest=virtual.digest(secret.encode()),
            hint=virtual.hint(secret),
            updated_at=now,
            revision=record_revision(tx, f"key {id_} rotated"),
        )
    )
    return get(tx, id_), secret


def revoke(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> KeyRecord:
    """For good, with every secret it ever had. The row stays, for the records that name it, and so do its budgets.

    Raises NotFound; revoking again changes nothing.
    """
    if get(tx, id_, reach).revoked_at is None:
        now, revision = time.time(), record_revision(tx, f"key {id_} revoked")
        tx.execute(update(keys).where(keys.c.id == id_).values(revoked_at=now, updated_at=now, revision=revision))
    return get(tx, id_)


def changed_since(tx: Connection, revision: int) -> list[tuple[bytes, virtual.Key | None]]:
    """What a snapshot of `revision` has to learn: digests with their key, None for one that does not work any more."""
    above = keys.outerjoin(orgs, keys.c.org_id == orgs.c.id).outerjoin(teams, keys.c.team_id == teams.c.id)
    query = select(
        keys,
        *(
            table.c[name].label(f"{kind}_{name}")
            for kind, table in _ABOVE
            for name in ("models", "blocked", "metadata")
        ),
        teams.c.mcp.label("team_mcp"),
    ).select_from(above.outerjoin(users, keys.c.user_id == users.c.id))
    changed = {row.id: row for row in tx.execute(query.where(keys.c.revision > revision))}
    found: list[tuple[bytes, virtual.Key | None]] = []
    active: dict[str, virtual.Key] = {}
    for row in changed.values():
        if row.revoked_at is None:
            active[row.id] = _active(row)
        found.append((bytes(row.digest), active.get(row.id)))
    retired = select(retired_secrets).join(keys, keys.c.id == retired_secrets.c.key_id)
    now = time.time()
    for row in tx.execute(retired.where(keys.c.revision > revision)):
        key = active.get(row.key_id) if row.expires_at > now else None
        found.append((bytes(row.digest), None if key is None else _until(key, row.expires_at)))
    return found


_ABOVE = (("org", orgs), ("team", teams), ("user", users))


def _active(row: Row[Any]) -> virtual.Key:
    above = [models for models in (row.user_models, row.team_models, row.org_models) if models is not None]
    blocked = [
        f"{kind} {id_}"
        for kind, id_, is_blocked in (
            ("key", row.id, row.blocked),
            ("user", row.user_id, row.user_blocked),
            ("team", row.team_id, row.team_blocked),
            ("org", row.org_id, row.org_blocked),
        )
        if is_blocked
    ]
    return virtual.Key(
        id=row.id,
        name=row.name,
        team_id=row.team_id,
        models=None if row.models is None else frozenset(row.models),
        expires_at=row.expires_at,
        metadata=row.metadata or {},
        org_id=row.org_id,
        user_id=row.user_id,
        routes=None if row.routes is None else tuple(row.routes),
        models_above=tuple(frozenset(models) for models in above),
        regions=_regions(row.metadata, row.user_metadata, row.team_metadata, row.org_metadata),
        standing=standing(row.metadata, row.user_metadata, row.team_metadata, row.org_metadata),
        tools=tuple(each for each in (rights(row.mcp), rights(row.team_mcp)) if each is not None),
        blocked=blocked[0] if blocked else None,
    )


def _regions(*metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Every one that is named, so that none undoes another."""
    named = [one["region"] for one in metadata if one is not None and isinstance(one.get("region"), str)]
    return tuple(dict.fromkeys(named))


def _until(key: virtual.Key, unix: float) -> virtual.Key:
    """A key by a secret that it had before: it works no longer than that secret."""
    return msgspec.structs.replace(key, expires_at=unix if key.expires_at is None else min(unix, key.expires_at))


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        hint=row.hint,
        name=row.name,
        org_id=row.org_id,
        team_id=row.team_id,
        user_id=row.user_id,
        models=None if row.models is None else tuple(row.models),
        routes=None if row.routes is None else tuple(row.routes),
        blocked=row.blocked,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        metadata=row.metadata,
        mcp=row.mcp,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
