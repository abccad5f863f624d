"""SQL of aliases and of the approvals that one may ask for. Every function takes its transaction."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from inference.errors import BadRequest, Conflict, Forbidden, NotFound
from inference.registry import version_store
from inference.registry.names import CHAMPION
from inference.registry.records import Alias, Approval
from inference.tables import classic_aliases as aliases
from inference.tables import classic_approvals as approvals


def listed(tx: Connection, model: str) -> Sequence[Alias]:
    """By name."""
    rows = tx.execute(select(aliases).where(aliases.c.model == model).order_by(aliases.c.alias))
    return [Alias(**row._mapping) for row in rows]  # noqa: SLF001 — SQLAlchemy's public name for it


def find(tx: Connection, model: str, alias: str) -> Alias:
    """Raises ModelNotFound, NotFound."""
    row = tx.execute(select(aliases).where(aliases.c.model == model, aliases.c.alias == alias)).one_or_none()
    if row is None:
        version_store.find_model(tx, model)
        raise NotFound(f"The model {model!r} has no alias {alias!r}.", param="alias", code="alias_not_found")
    return Alias(**row._mapping)  # noqa: SLF001 — as above


def move(
    tx: Connection, model: str, alias: str, version: int, actor: str, revision: int, *, by_rollout: bool = False
) -> Alias:
    """In one statement: no reader finds the alias nowhere.

    Raises ModelNotFound, NotFound; BadRequest for an archived version; Conflict while approvals are missing, or a rollout decides.
    """
    if alias == CHAMPION and not by_rollout:
        version_store.refuse_while_rolled_out(tx, model, None)
    if version_store.find_version(tx, model, version).archived_at is not None:
        raise BadRequest(
            f"Version {version} of {model!r} is archived: restore it first.", param="version", code="version_archived"
        )
    require_approvals(tx, model, alias, version)
    values = {"version": version, "set_by": actor, "set_at": time.time()}
    mine = (aliases.c.model == model) & (aliases.c.alias == alias)
    if tx.execute(update(aliases).where(mine).values(**values)).rowcount == 0:
        tx.execute(insert(aliases).values(model=model, alias=alias, **values))
    version_store.ensure_model(tx, model, revision)
    return find(tx, model, alias)


def remove(tx: Connection, model: str, alias: str, revision: int) -> None:
    """Raises ModelNotFound, NotFound, Conflict."""
    find(tx, model, alias)
    if alias == CHAMPION:
        version_store.refuse_while_rolled_out(tx, model, None)
    tx.execute(delete(aliases).where(aliases.c.model == model, aliases.c.alias == alias))
    version_store.ensure_model(tx, model, revision)


def approve(
    tx: Connection, id_: str, model: str, version: int, alias: str, actor: str, role: str, comment: str | None
) -> Approval:
    """Once per person and version; a second time is the same approval. Raises ModelNotFound, NotFound, BadRequest, Forbidden."""
    found = version_store.find_version(tx, model, version)
    gate = version_store.find_model(tx, model).gates.get(alias)
    if gate is None:
        raise BadRequest(f"The alias {alias!r} of {model!r} needs no approval.", param="alias", code="no_gate")
    if role not in gate.roles:
        raise Forbidden(f"Approvals for {alias!r} are given by: {', '.join(gate.roles)}.", param="alias")
    if actor == found.created_by and gate.approvals > 1:
        raise Forbidden("Who registered a version does not approve it where more than one approval is needed.")
    mine = (approvals.c.model == model) & (approvals.c.version == version)
    mine &= (approvals.c.alias == alias) & (approvals.c.actor == actor)
    if tx.execute(select(approvals.c.id).where(mine)).first() is None:
        values: dict[str, Any] = {"model": model, "version": version, "alias": alias, "actor": actor, "role": role}
        tx.execute(insert(approvals).values(id=id_, **values, comment=comment, at=time.time()))
    return _approval(tx.execute(select(approvals).where(mine)).one())


def withdraw(tx: Connection, model: str, version: int, alias: str, actor: str) -> None:
    """Raises NotFound where this one has approved nothing."""
    mine = (approvals.c.model == model) & (approvals.c.version == version)
    mine &= (approvals.c.alias == alias) & (approvals.c.actor == actor)
    if tx.execute(delete(approvals).where(mine)).rowcount == 0:
        raise NotFound("You have not approved this.", param="alias", code="approval_not_found")


def approvals_of(tx: Connection, model: str, version: int) -> Sequence[Approval]:
    """Oldest first."""
    mine = (approvals.c.model == model) & (approvals.c.version == version)
    return [
        _approval(row) for row in tx.execute(select(approvals).where(mine).order_by(approvals.c.at, approvals.c.id))
    ]


def require_approvals(tx: Connection, model: str, alias: str, version: int) -> None:
    """Approvals by roles that count no more, as the gate was changed since, do not count. Raises ModelNotFound, Conflict."""
    gate = version_store.find_model(tx, model).gates.get(alias)
    if gate is None:
        return
    given = [each.actor for each in approvals_of(tx, model, version) if each.alias == alias and each.role in gate.roles]
    if len(given) < gate.approvals:
        raise Conflict(
            f"{alias!r} of {model!r} needs {gate.approvals} approvals of version {version} by {' or '.join(gate.roles)}; "
            f"there are {len(given)}{''.join(f', {who}' for who in given)}. "
            f'POST …/versions/{version}/approvals {{"alias": "{alias}"}} gives one.',
            param="alias",
            code="approval_required",
        )


def _approval(row: Any) -> Approval:
    return Approval(**row._mapping)  # noqa: SLF001 — as above
