"""The tables of budgets and limits: rows of their own, on a scope each. Every function takes its transaction.

A rule knows whose its scope is, so that an organisation's admins see theirs alone, and who set it: what the platform has set,
nobody below may loosen. Deleting leaves a mark until every process has seen it.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import AccessDenied, BadRequest, NotFound
from gateway.ids import new_id
from gateway.paging import Page, page
from gateway.reach import EVERYTHING, Reach
from gateway.scopes import EACH, Budget, Exceeded, Limits, Period, Raise, Scope, ScopeKind
from gateway.tables import budgets, keys, limits, orgs, teams, users

Level = Literal["platform", "org", "team"]

FORGOTTEN_AFTER_S = 30 * 86_400  # marks of deleted rules: no process is that far behind
_RANK: Mapping[str, int] = {"platform": 2, "org": 1, "team": 0}


class NewBudget(msgspec.Struct, frozen=True):
    scope: Scope
    limit_nanousd: int
    period: Period
    rolling: bool = False
    timezone: str = "UTC"
    thresholds: tuple[float, ...] = (0.5, 0.8, 1.0)
    on_exceeded: Exceeded = "deny"
    fallback_model: str | None = None


class BudgetChange(msgspec.Struct, frozen=True):
    """UNSET leaves a value as it is. Another period or zone begins with the account of its own window."""

    limit_nanousd: int | UnsetType = UNSET
    period: Period | UnsetType = UNSET
    rolling: bool | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    thresholds: tuple[float, ...] | UnsetType = UNSET
    on_exceeded: Exceeded | UnsetType = UNSET
    fallback_model: str | UnsetType | None = UNSET
    blocked: bool | UnsetType = UNSET


class Numbers(msgspec.Struct, frozen=True):
    """What a Limits row holds besides its scope. As a change, UNSET leaves a value and None takes it away."""

    rpm: int | UnsetType | None = UNSET
    tpm: int | UnsetType | None = UNSET
    input_tpm: int | UnsetType | None = UNSET
    output_tpm: int | UnsetType | None = UNSET
    rpd: int | UnsetType | None = UNSET
    parallel: int | UnsetType | None = UNSET
    request_burst: float | UnsetType = UNSET
    token_burst: float | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    fair_share: bool | UnsetType = UNSET


class BudgetRecord(msgspec.Struct, frozen=True):
    budget: Budget
    org_id: str | None
    team_id: str | None
    set_by: Level
    created_at: float
    updated_at: float

    @property
    def id(self) -> str:
        return self.budget.id


class LimitsRecord(msgspec.Struct, frozen=True):
    limits: Limits
    org_id: str | None
    team_id: str | None
    set_by: Level
    created_at: float
    updated_at: float

    @property
    def id(self) -> str:
        return self.limits.id


def create_budget(tx: Connection, new: NewBudget, level: Level = "platform") -> BudgetRecord:
    """Raises BadRequest for a scope that is not there."""
    values = msgspec.structs.asdict(new)
    values.update(thresholds=list(new.thresholds), blocked=False, generation=0)
    return get_budget(tx, _insert(tx, budgets, "bud", values.pop("scope"), level, values))


def create_limits(tx: Connection, scope: Scope, numbers: Numbers, level: Level = "platform") -> LimitsRecord:
    """Raises BadRequest for a scope that is not there."""
    values = {"request_burst": 1.0, "token_burst": 1.0, "timezone": "UTC", **_given(numbers)}
    return get_limits(tx, _insert(tx, limits, "lim", scope, level, values))


def get_budget(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> BudgetRecord:
    """Raises NotFound, also for one that is out of reach."""
    return _budget_record(_get(tx, budgets, "budget", id_, reach))


def get_limits(tx: Connection, id_: str, reach: Reach = EVERYTHING) -> LimitsRecord:
    """Raises NotFound, also for one that is out of reach."""
    return _limits_record(_get(tx, limits, "limits", id_, reach))


def list_budgets(
    tx: Connection,
    limit: int,
    after: str | None,
    reach: Reach = EVERYTHING,
    kind: ScopeKind | None = None,
    id_: str | None = None,
) -> Page[BudgetRecord]:
    """Oldest first, on one kind of scope or one scope if named."""
    found = [_budget_record(row) for row in _listed(tx, budgets, limit, after, reach, kind, id_)]
    return page(found, limit, [each.id for each in found])


def list_limits(
    tx: Connection,
    limit: int,
    after: str | None,
    reach: Reach = EVERYTHING,
    kind: ScopeKind | None = None,
    id_: str | None = None,
) -> Page[LimitsRecord]:
    """Oldest first, on one kind of scope or one scope if named."""
    found = [_limits_record(row) for row in _listed(tx, limits, limit, after, reach, kind, id_)]
    return page(found, limit, [each.id for each in found])


def first_on_keys(tx: Connection, ids: list[str]) -> tuple[dict[str, BudgetRecord], dict[str, LimitsRecord]]:
    """The oldest budget and the oldest limits of each key: those that were made with it."""
    money, numbers = dict[str, BudgetRecord](), dict[str, LimitsRecord]()
    for row in _on_keys(tx, budgets, ids):
        money.setdefault(row.scope_id, _budget_record(row))
    for row in _on_keys(tx, limits, ids):
        numbers.setdefault(row.scope_id, _limits_record(row))
    return money, numbers


def change_budget(
    tx: Connection, id_: str, change: BudgetChange, reach: Reach = EVERYTHING, level: Level = "platform"
) -> BudgetRecord:
    """Raises NotFound, and AccessDenied for what somebody above has set."""
    _check_level(get_budget(tx, id_, reach).set_by, level)
    values = _given(change)
    if change.thresholds is not UNSET:
        values["thresholds"] = list(change.thresholds)
    _update(tx, budgets, "budget", id_, values)
    return get_budget(tx, id_)


def change_limits(
    tx: Connection, id_: str, change: Numbers, reach: Reach = EVERYTHING, level: Level = "platform"
) -> LimitsRecord:
    """Raises NotFound, and AccessDenied for what somebody above has set."""
    _check_level(get_limits(tx, id_, reach).set_by, level)
    _update(tx, limits, "limits", id_, _given(change))
    return get_limits(tx, id_)


def reset_budget(tx: Connection, id_: str, reach: Reach = EVERYTHING, level: Level = "platform") -> BudgetRecord:
    """Begins a new generation of accounts, which are empty. Calls under way still settle in the old ones."""
    record = get_budget(tx, id_, reach)
    _check_level(record.set_by, level)
    _update(tx, budgets, "budget", id_, {"generation": record.budget.generation + 1})
    return get_budget(tx, id_)


def raise_budget(
    tx: Connection, id_: str, raised: Raise | None, reach: Reach = EVERYTHING, level: Level = "platform"
) -> BudgetRecord:
    """More for a while; None ends it at once."""
    _check_level(get_budget(tx, id_, reach).set_by, level)
    amount, until = (None, None) if raised is None else (raised.amount_nanousd, raised.until)
    values = {"raise_nanousd": amount, "raise_until": until}
    _update(tx, budgets, "budget", id_, values)
    return get_budget(tx, id_)


def delete_budget(tx: Connection, id_: str, reach: Reach = EVERYTHING, level: Level = "platform") -> None:
    """Raises NotFound, and AccessDenied for what somebody above has set."""
    _check_level(get_budget(tx, id_, reach).set_by, level)
    _mark_deleted(tx, budgets, "budget", id_)


def delete_limits(tx: Connection, id_: str, reach: Reach = EVERYTHING, level: Level = "platform") -> None:
    """Raises NotFound, and AccessDenied for what somebody above has set."""
    _check_level(get_limits(tx, id_, reach).set_by, level)
    _mark_deleted(tx, limits, "limits", id_)


def delete_scope(tx: Connection, kind: ScopeKind, id_: str) -> None:
    """Everything on one organisation, team, user or key, and within it."""
    for table, name in ((budgets, "budget"), (limits, "limits")):
        on_it = (table.c.scope_kind == kind) & (table.c.scope_id == id_)
        query = select(table.c.id).where(on_it | (table.c.within == id_), table.c.deleted_at.is_(None))
        for rule in tx.scalars(query).all():
            _mark_deleted(tx, table, name, rule)


def move(tx: Connection, kind: Literal["user", "key"], id_: str, org_id: str | None, team_id: str | None) -> None:
    """The rules on a user or a key are seen by whoever sees the user or the key."""
    for table in (budgets, limits):
        on_it = (table.c.scope_kind == kind) & (table.c.scope_id == id_)
        tx.execute(update(table).where(on_it).values(org_id=org_id, team_id=team_id))


def owner(tx: Connection, scope: Scope) -> Reach:
    """Whose a scope is. Raises BadRequest where the scope, or what it is within, is not there."""
    above = _within(tx, scope.within)
    if scope.id == EACH or scope.kind not in {"org", "team", "user", "key"}:
        return above
    if scope.within:
        raise BadRequest(f"A {scope.kind} has its organisation already: leave `within` out.", param="scope.within")
    table = {"org": orgs, "team": teams, "user": users, "key": keys}[scope.kind]
    row = tx.execute(select(table).where(table.c.id == scope.id)).one_or_none()
    if row is None:
        raise BadRequest(f"There is no {scope.kind} {scope.id!r}.", param="scope.id", code=f"{scope.kind}_not_found")
    match scope.kind:
        case "org":
            return Reach(row.id)
        case "team":
            return Reach(row.org_id, row.id)
        case _:
            return Reach(row.org_id, row.team_id)


def changed_budgets(tx: Connection, revision: int) -> dict[str, Budget | None]:
    """What a snapshot of `revision` has to learn; None for what was deleted."""
    rows = tx.execute(select(budgets).where(budgets.c.revision > revision))
    return {row.id: None if row.deleted_at is not None else _budget(row) for row in rows}


def changed_limits(tx: Connection, revision: int) -> dict[str, Limits | None]:
    """What a snapshot of `revision` has to learn; None for what was deleted."""
    rows = tx.execute(select(limits).where(limits.c.revision > revision))
    return {row.id: None if row.deleted_at is not None else _limits(row) for row in rows}


def _within(tx: Connection, id_: str) -> Reach:
    if not id_:
        return EVERYTHING
    if tx.scalar(select(orgs.c.id).where(orgs.c.id == id_)) is not None:
        return Reach(id_)
    org_id = tx.scalar(select(teams.c.org_id).where(teams.c.id == id_))
    if org_id is None:
        raise BadRequest(f"There is no organisation or team {id_!r}.", param="scope.within", code="owner_not_found")
    return Reach(org_id, id_)


def _check_level(set_by: Level, level: Level) -> None:
    if _RANK[set_by] > _RANK[level]:
        raise AccessDenied(f"An admin of the {set_by} has set this: ask there.", code="permission_denied")


def _given(change: BudgetChange | Numbers) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}


def _insert(tx: Connection, table: Table, prefix: str, scope: Scope, level: Level, values: Mapping[str, Any]) -> str:
    whose, id_, now = owner(tx, scope), new_id(prefix), time.time()
    tx.execute(
        insert(table).values(
            **values,
            id=id_,
            scope_kind=scope.kind,
            scope_id=scope.id,
            within=scope.within,
            org_id=whose.org_id,
            team_id=whose.team_id,
            set_by=level,
            created_at=now,
            updated_at=now,
            revision=record_revision(tx, f"{prefix} {id_} created"),
        )
    )
    return id_


def _get(tx: Connection, table: Table, kind: str, id_: str, reach: Reach) -> Row[Any]:
    query = select(table).where(table.c.id == id_, table.c.deleted_at.is_(None), reach.rows(table))
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no {kind} {id_!r}.", param="id", code=f"{kind}_not_found")
    return row


def _listed(
    tx: Connection,
    table: Table,
    limit: int,
    after: str | None,
    reach: Reach,
    kind: ScopeKind | None,
    id_: str | None,
) -> list[Row[Any]]:
    query = select(table).where(table.c.deleted_at.is_(None), reach.rows(table)).order_by(table.c.id).limit(limit + 1)
    for column, value in (("scope_kind", kind), ("scope_id", id_)):
        if value is not None:
            query = query.where(table.c[column] == value)
    return list(tx.execute(query if after is None else query.where(table.c.id > after)))


def _on_keys(tx: Connection, table: Table, ids: list[str]) -> list[Row[Any]]:
    on_them = (table.c.scope_kind == "key") & table.c.scope_id.in_(ids)
    return list(tx.execute(select(table).where(on_them, table.c.deleted_at.is_(None)).order_by(table.c.id)))


def _update(tx: Connection, table: Table, kind: str, id_: str, values: Mapping[str, Any]) -> None:
    if values:
        revision = record_revision(tx, f"{kind} {id_} changed")
        tx.execute(update(table).where(table.c.id == id_).values(**values, updated_at=time.time(), revision=revision))


def _mark_deleted(tx: Connection, table: Table, kind: str, id_: str) -> None:
    now, revision = time.time(), record_revision(tx, f"{kind} {id_} deleted")
    tx.execute(delete(table).where(table.c.deleted_at < now - FORGOTTEN_AFTER_S))
    tx.execute(update(table).where(table.c.id == id_).values(deleted_at=now, updated_at=now, revision=revision))


def _budget_record(row: Row[Any]) -> BudgetRecord:
    return BudgetRecord(_budget(row), row.org_id, row.team_id, row.set_by, row.created_at, row.updated_at)


def _limits_record(row: Row[Any]) -> LimitsRecord:
    return LimitsRecord(_limits(row), row.org_id, row.team_id, row.set_by, row.created_at, row.updated_at)


def _budget(row: Row[Any]) -> Budget:
    return Budget(
        id=row.id,
        scope=Scope(row.scope_kind, row.scope_id, row.within),
        limit_nanousd=row.limit_nanousd,
        period=row.period,
        rolling=row.rolling,
        timezone=row.timezone,
        thresholds=tuple(row.thresholds),
        on_exceeded=row.on_exceeded,
        fallback_model=row.fallback_model,
        raised=None if row.raise_until is None else Raise(row.raise_nanousd, row.raise_until),
        blocked=row.blocked,
        generation=row.generation,
    )


def _limits(row: Row[Any]) -> Limits:
    return Limits(
        id=row.id,
        scope=Scope(row.scope_kind, row.scope_id, row.within),
        rpm=row.rpm,
        tpm=row.tpm,
        input_tpm=row.input_tpm,
        output_tpm=row.output_tpm,
        rpd=row.rpd,
        parallel=row.parallel,
        request_burst=row.request_burst,
        token_burst=row.token_burst,
        timezone=row.timezone,
        fair_share=row.fair_share is True,
    )
