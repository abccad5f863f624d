"""How budgets and limits look on the wire, on a scope of their own or made with a key."""

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Self
from zoneinfo import ZoneInfo

import msgspec
from pydantic import AfterValidator, BaseModel, Field, model_validator

from admin.rbac import Principal
from admin.rest.money import ShownUsd, Usd, nanousd, usd
from admin.rest.wire import at
from gateway.budget_store import BudgetRecord, Level, LimitsRecord, NewBudget, Numbers
from gateway.errors import BadRequest
from gateway.reach import Reach
from gateway.scopes import Exceeded, Period, Scope, ScopeKind
from gateway.settings import Name, Section

MAX_NUMBER = 1_000_000_000_000


def _known_zone(name: str) -> str:
    """Also no zone of the machine (`localtime`), which would differ between replicas, and none with leap seconds (`right/…`)."""
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        known = False
    else:
        known = name not in {"localtime", "Factory"} and not name.startswith(("right/", "posix"))
    if not known:
        raise ValueError("must be a time zone of the IANA database, such as `Europe/Berlin`")
    return name


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError("must grow")
    return values


Zone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"), AfterValidator(_known_zone)]
Threshold = Annotated[float, Field(gt=0, le=10)]
Thresholds = Annotated[tuple[Threshold, ...], Field(max_length=10), AfterValidator(_ascending)]
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
Burst = Annotated[float, Field(gt=0, le=1_000)]


class ScopeFields(Section):
    """`*` as the id: each of the kind separately. `within`: only requests of that organisation or team."""

    kind: ScopeKind
    id: Annotated[str, Field(min_length=1, max_length=500)]
    within: Annotated[str, Field(max_length=200)] = ""

    def compile(self) -> Scope:
        return Scope(self.kind, self.id, self.within)


class BudgetFields(Section):
    """USD per calendar period in a time zone, or rolling; `total` for ever. `on_exceeded: fallback` names another model."""

    limit_usd: Usd
    period: Period
    rolling: bool = False
    timezone: Zone = "UTC"
    thresholds: Thresholds = (0.5, 0.8, 1.0)
    on_exceeded: Exceeded = "deny"
    fallback_model: Name | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        reason = _contradiction(self.period, self.on_exceeded, self.fallback_model, rolling=self.rolling)
        if reason is not None:
            raise ValueError(reason[1])
        return self

    def compile(self, scope: Scope) -> NewBudget:
        return NewBudget(
            scope=scope,
            limit_nanousd=nanousd(self.limit_usd),
            period=self.period,
            rolling=self.rolling,
            timezone=self.timezone,
            thresholds=self.thresholds,
            on_exceeded=self.on_exceeded,
            fallback_model=self.fallback_model,
        )


class LimitsFields(Section):
    """Per minute, per day (`rpd`, in a time zone) and at the same time; a burst is what a full bucket holds, in minutes' worth.

    `fair_share`: each active key has its part of the tokens per minute, and what one does not use is the others'.
    """

    rpm: Number | None = None
    tpm: Number | None = None
    input_tpm: Number | None = None
    output_tpm: Number | None = None
    rpd: Number | None = None
    parallel: Number | None = None
    request_burst: Burst = 1.0
    token_burst: Burst = 1.0
    timezone: Zone = "UTC"
    fair_share: bool = False

    def compile(self) -> Numbers:
        """Only what the client gave."""
        return Numbers(**{name: getattr(self, name) for name in self.model_fields_set & set(_NUMBERS)})


class Raised(BaseModel):
    amount_usd: ShownUsd
    until: datetime


class ScopeView(BaseModel):
    kind: ScopeKind
    id: str
    within: str


class BudgetView(BaseModel):
    """`set_by`: an admin of that level or above may change it. `raised` is on top of `limit_usd` until it ends."""

    id: str
    scope: ScopeView
    org_id: str | None
    team_id: str | None
    set_by: Level
    limit_usd: ShownUsd
    period: Period
    rolling: bool
    timezone: str
    thresholds: list[float]
    on_exceeded: Exceeded
    fallback_model: str | None
    raised: Raised | None
    blocked: bool
    created_at: datetime
    updated_at: datetime


class LimitsView(BaseModel):
    """`set_by`: an admin of that level or above may change it."""

    id: str
    scope: ScopeView
    org_id: str | None
    team_id: str | None
    set_by: Level
    rpm: int | None
    tpm: int | None
    input_tpm: int | None
    output_tpm: int | None
    rpd: int | None
    parallel: int | None
    request_burst: float
    token_burst: float
    timezone: str
    fair_share: bool
    created_at: datetime
    updated_at: datetime


_NUMBERS = Numbers.__struct_fields__


def budget_view(record: BudgetRecord) -> BudgetView:
    budget = record.budget
    raised = budget.raised
    return BudgetView(
        id=budget.id,
        scope=_scope_view(budget.scope),
        org_id=record.org_id,
        team_id=record.team_id,
        set_by=record.set_by,
        limit_usd=usd(budget.limit_nanousd),
        period=budget.period,
        rolling=budget.rolling,
        timezone=budget.timezone,
        thresholds=list(budget.thresholds),
        on_exceeded=budget.on_exceeded,
        fallback_model=budget.fallback_model,
        raised=None if raised is None else Raised(amount_usd=usd(raised.amount_nanousd), until=at(raised.until)),
        blocked=budget.blocked,
        created_at=at(record.created_at),
        updated_at=at(record.updated_at),
    )


def limits_view(record: LimitsRecord) -> LimitsView:
    return LimitsView(
        **{name: value for name, value in msgspec.structs.asdict(record.limits).items() if name != "scope"},
        scope=_scope_view(record.limits.scope),
        org_id=record.org_id,
        team_id=record.team_id,
        set_by=record.set_by,
        created_at=at(record.created_at),
        updated_at=at(record.updated_at),
    )


def check_budget(record: BudgetRecord) -> BudgetRecord:
    """What a change has made of it. Raises BadRequest."""
    budget = record.budget
    reason = _contradiction(budget.period, budget.on_exceeded, budget.fallback_model, rolling=budget.rolling)
    if reason is not None:
        raise BadRequest(f"{reason[0]}: {reason[1]}.", param=reason[0], code="invalid_value")
    return record


def check_limits(record: LimitsRecord) -> LimitsRecord:
    """Limits without a number limit nothing. Raises BadRequest."""
    if not record.limits.each():
        raise BadRequest("Name at least one of rpm, tpm, input_tpm, output_tpm, rpd, parallel.", code="invalid_value")
    return record


def require_settable(asker: Principal, reached: Reach, scope: Scope) -> None:
    """Nobody sets budgets and limits on what they administer themselves, nor beyond it. Raises AccessDenied."""
    own = scope.kind == "org" or (scope.kind == "team" and asker.role == "team_admin")
    asker.require_below(reached, own=own)


def _contradiction(
    period: Period, on_exceeded: Exceeded, fallback_model: str | None, *, rolling: bool
) -> tuple[str, str] | None:
    if rolling and period == "total":
        return "rolling", "a total has no window that could roll"
    if on_exceeded == "fallback" and fallback_model is None:
        return "fallback_model", "name the model that a call falls back to"
    return None


def _scope_view(scope: Scope) -> ScopeView:
    return ScopeView(kind=scope.kind, id=scope.id, within=scope.within)
