"""Who pays and what binds: scopes, the budgets and limits on them, and which of these one request has to pass.

Values and arithmetic only. A rule is a Budget or a Limit; a rule that stands on the id `*` applies to every id of its kind
separately. Bound to a concrete id, a rule names its accounts, whose numbers the lease store keeps.

What `static_binding` finds for a key, a model and a provider can be kept for as long as the snapshot is the same;
`binding` adds what only the request says: its end customer and its tags.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from gateway.keys import Key

ScopeKind = Literal["org", "team", "user", "key", "customer", "model", "provider", "tag"]
Period = Literal["minute", "hour", "day", "week", "month", "total"]
Exceeded = Literal["deny", "cut", "fallback"]
Measure = Literal["rpm", "tpm", "input_tpm", "output_tpm", "rpd", "parallel"]
AccountKind = Literal["spend", "bucket", "slots"]

T = TypeVar("T")

EACH = "*"

# Seconds of a slot, and how many make the window of a rolling budget.
SLOTS: Mapping[Period, tuple[int, int]] = {
    "minute": (10, 6),
    "hour": (300, 12),
    "day": (3_600, 24),
    "week": (21_600, 28),
    "month": (86_400, 30),
}

_PLAIN = re.compile(r"[A-Za-z0-9@_+-][A-Za-z0-9@._+-]{0,79}")


class Scope(msgspec.Struct, frozen=True):
    """What a rule stands on. `within` is the id of an organisation or a team whose requests alone it binds.

    The customer `alice` of one organisation is not the `alice` of another; without `within` a rule binds both.
    """

    kind: ScopeKind
    id: str
    within: str = ""


class Raise(msgspec.Struct, frozen=True):
    """More money for a while: `until` is Unix seconds."""

    amount_nanousd: int
    until: float


class Budget(msgspec.Struct, frozen=True):
    """USD per period. A total has no period; a rolling window has no zone. Every reset begins a new generation."""

    id: str
    scope: Scope
    limit_nanousd: int
    period: Period
    rolling: bool = False
    timezone: str = "UTC"
    thresholds: tuple[float, ...] = (0.5, 0.8, 1.0)
    on_exceeded: Exceeded = "deny"
    fallback_model: str | None = None
    raised: Raise | None = None
    blocked: bool = False
    generation: int = 0

    @property
    def kind(self) -> AccountKind:
        return "spend"

    def amount(self, unix: float) -> int:
        """Nano-dollars that one window may hold: what is lifted for a while counts until it ends."""
        raised = self.raised
        return (
            self.limit_nanousd if raised is None or unix >= raised.until else self.limit_nanousd + raised.amount_nanousd
        )


class Limit(msgspec.Struct, frozen=True):
    """One number: requests, tokens or calls. `id` is that of the Limits it comes from."""

    id: str
    scope: Scope
    measure: Measure
    limit: int
    burst: int = 0  # buckets alone
    timezone: str = "UTC"  # rpd alone
    fair: bool = False  # the active keys share it; tokens alone

    @property
    def kind(self) -> AccountKind:
        match self.measure:
            case "rpd":
                return "spend"
            case "parallel":
                return "slots"
            case _:
                return "bucket"

    @property
    def rate_per_s(self) -> float:
        """Of a bucket; 0 for others."""
        return self.limit / 60 if self.kind == "bucket" else 0.0

    def amount(self, _unix: float) -> int:
        """What the account may hold: requests of a day, calls at the same time, or a full bucket."""
        return self.burst if self.kind == "bucket" else self.limit


class Limits(msgspec.Struct, frozen=True):
    """Per minute, per day and at the same time. A bucket holds `…_burst` minutes' worth: 1.0 lets a quiet minute be made up.

    `fair_share`: the active keys share the tokens.
    """

    id: str
    scope: Scope
    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    rpd: int | None = None
    parallel: int | None = None
    request_burst: float = 1.0
    token_burst: float = 1.0
    timezone: str = "UTC"
    fair_share: bool = False

    def each(self) -> tuple[Limit, ...]:
        """One Limit for every number that is set."""
        found: list[Limit] = []
        buckets: tuple[tuple[Measure, int | None, float], ...] = (
            ("rpm", self.rpm, self.request_burst),
            ("tpm", self.tpm, self.token_burst),
            ("input_tpm", self.input_tpm, self.token_burst),
            ("output_tpm", self.output_tpm, self.token_burst),
        )
        for measure, limit, burst in buckets:
            if limit is not None:
                fair = self.fair_share and measure != "rpm"
                found.append(Limit(self.id, self.scope, measure, limit, max(1, int(limit * burst)), fair=fair))
        if self.rpd is not None:
            found.append(Limit(self.id, self.scope, "rpd", self.rpd, timezone=self.timezone))
        if self.parallel is not None:
            found.append(Limit(self.id, self.scope, "parallel", self.parallel))
        return tuple(found)


Rule = Budget | Limit


class Bound(msgspec.Struct, frozen=True):
    """A rule on one concrete scope: never `*`. Two Bounds with the same `account` share their numbers."""

    rule: Rule
    scope: Scope
    account: str  # the start of its account ids


class Window(msgspec.Struct, frozen=True):
    """The accounts of a Bound at a moment. What is spent goes to `charged`; all of `counted` together stay below the limit.

    `resets_at` is when they change (Unix seconds): the next calendar window, or the next slot of a rolling one; None: never.
    """

    charged: str
    counted: tuple[str, ...]
    starts_at: int
    resets_at: int | None


class Use(msgspec.Struct, frozen=True):
    """What an account holds, in its unit: `held` is lent to sessions or set aside for calls under way."""

    settled: int
    held: int


def window(bound: Bound, unix: float) -> Window:
    """Pure arithmetic, a few microseconds; keep the result until `resets_at`."""
    rule, account = bound.rule, bound.account
    if isinstance(rule, Limit):
        if rule.measure != "rpd":
            return Window(account, (account,), 0, None)
        starts_at, ends_at = calendar_span("day", rule.timezone, unix)
        return _calendar(account, starts_at, ends_at)
    if rule.period == "total":
        return _calendar(account, 0, None)
    if rule.rolling:
        return _rolling(account, rule.period, unix)
    starts_at, ends_at = calendar_span(rule.period, rule.timezone, unix)
    return _calendar(account, starts_at, ends_at)


def calendar_span(period: Period, timezone: str, unix: float) -> tuple[int, int]:
    """Start and end of the minute, hour, day, ISO week or month that a moment is in; spans meet without gap or overlap.

    Minutes and hours are those of UTC. A day begins with the first midnight of its date, however the clocks are changed:
    one that is left out begins where the clock jumps, one that comes twice does not begin again.
    """
    if period in {"minute", "hour"}:
        length = 60 if period == "minute" else 3_600
        starts_at = int(unix // length) * length
        return starts_at, starts_at + length
    zone = ZoneInfo(timezone)
    first = _first_day(period, datetime.fromtimestamp(unix, zone).date())
    while _midnight(first, zone) > unix:
        first = _first_day(period, first - timedelta(days=1))
    after = _next(period, first)
    while _midnight(after, zone) <= unix:
        first, after = after, _next(period, after)
    return _midnight(first, zone), _midnight(after, zone)


Family = Mapping[str, tuple[Rule, ...]]  # the rules on one kind of scope within one place, by id; `*` is for each id


class Rules(msgspec.Struct, frozen=True):
    """Every budget and limit of one revision. `families` is indexed by kind and `within`."""

    budgets: Mapping[str, Budget] = {}
    limits: Mapping[str, Limits] = {}
    families: Mapping[tuple[ScopeKind, str], Family] = {}


class Static(msgspec.Struct, frozen=True):
    """What binds every request of a key to a model at a provider; and where to look for its customer and its tags."""

    bound: tuple[Bound, ...]
    customer: tuple[tuple[str, Family], ...] = ()
    tag: tuple[tuple[str, Family], ...] = ()


def static_binding(rules: Rules, key: Key, model: str, provider: str) -> Static:
    """The part of a binding that a key, a model's public name and a provider decide. Keep it as long as `rules` is the same."""
    places = tuple(place for place in ("", key.org_id, key.team_id) if place is not None)
    named: tuple[tuple[ScopeKind, str | None], ...] = (
        ("org", key.org_id),
        ("team", key.team_id),
        ("user", key.user_id),
        ("key", key.id),
        ("model", model),
        ("provider", provider),
    )
    found: list[Bound] = []
    for kind, id_ in named:
        if id_ is not None:
            for place in places:
                found += _bind(rules.families.get((kind, place), {}), Scope(kind, id_, place))
    return Static(tuple(found), _families(rules, "customer", places), _families(rules, "tag", places))


def binding(static: Static, customer: str | None, tags: Sequence[str] | None) -> tuple[Bound, ...]:
    """Every rule that a request has to pass, each once: the same tag given twice counts once."""
    if not ((customer is not None and static.customer) or (tags and static.tag)):
        return static.bound
    found = list(static.bound)
    if customer is not None:
        for place, family in static.customer:
            found += _bind(family, Scope("customer", customer, place))
    for tag in dict.fromkeys(tags or ()):
        for place, family in static.tag:
            found += _bind(family, Scope("tag", tag, place))
    return tuple(found)


def bind(rule: Rule, id_: str) -> Bound:
    """A rule on a concrete id: its own, or any where it stands on `*`."""
    scope = rule.scope
    concrete = scope if scope.id != EACH else Scope(scope.kind, id_, scope.within)
    return Bound(rule, concrete, _account(rule, id_))


def deployment_limit(id_: str, name: str, limit: int) -> Bound:
    """A limit of a deployment, which no rule names: an account that is only ever lent from."""
    rule = Limit(f"d.{_plain(id_)}.{name}", Scope("model", id_), "parallel", limit)
    return Bound(rule, rule.scope, _account(rule, id_))


def compile_rules(budgets: Iterable[Budget], limits: Iterable[Limits]) -> Rules:
    """All rules at once."""
    return changed_rules(Rules(), {each.id: each for each in budgets}, {each.id: each for each in limits})


def changed_rules(rules: Rules, budgets: Mapping[str, Budget | None], limits: Mapping[str, Limits | None]) -> Rules:
    """Rules after some changes, None for what is gone. Costs what changed, and a copy of each dict that holds some of it."""
    changed = {**budgets, **limits}
    if not changed:
        return rules
    before = [rules.budgets.get(id_) or rules.limits.get(id_) for id_ in changed]
    standing = {each.scope: list[Rule]() for each in (*before, *changed.values()) if each is not None}
    for scope, ready in standing.items():
        family = rules.families.get((scope.kind, scope.within), {})
        ready += [rule for rule in family.get(scope.id, ()) if rule.id not in changed]
    for each in changed.values():
        match each:
            case Budget():
                standing[each.scope].append(each)
            case Limits():
                standing[each.scope] += each.each()
            case None:
                pass
    return Rules(_merged(rules.budgets, budgets), _merged(rules.limits, limits), _placed(rules.families, standing))


def _calendar(account: str, starts_at: int, ends_at: int | None) -> Window:
    charged = f"{account}:{starts_at}"
    return Window(charged, (charged,), starts_at, ends_at)


def _rolling(account: str, period: Period, unix: float) -> Window:
    """One slot more than the window has, as it begins in the middle of one."""
    length, slots = SLOTS[period]
    last = int(unix // length)
    counted = tuple(f"{account}:r{slot}" for slot in range(last - slots, last + 1))
    return Window(counted[-1], counted, (last - slots) * length, (last + 1) * length)


def _first_day(period: Period, day: date) -> date:
    match period:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case _:
            return day


def _next(period: Period, first: date) -> date:
    match period:
        case "week":
            return first + timedelta(days=7)
        case "month":
            return (first.replace(day=28) + timedelta(days=4)).replace(day=1)
        case _:
            return first + timedelta(days=1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp())  # fold 0: the first of two


def _account(rule: Rule, id_: str) -> str:
    """`b:` money and requests per day, `l:` a bucket, `p:` calls at the same time; `/…` the id that a `*` stands for here."""
    base = rule.id if rule.scope.id != EACH else f"{rule.id}/{_plain(id_)}"
    if isinstance(rule, Budget):
        return f"b:{base}" if not rule.generation else f"b:{base}.{rule.generation}"
    match rule.kind:
        case "spend":
            return f"b:{base}.rpd"
        case "slots":
            return f"p:{base}"
        case "bucket":
            return f"l:{base}:{rule.measure}"


def _plain(id_: str) -> str:
    """Customers and tags are any text; account ids are short and plain, and no two ids share one."""
    if _PLAIN.fullmatch(id_):
        return id_
    return "~" + hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _bind(family: Family, scope: Scope) -> Iterator[Bound]:
    exact = family.get(scope.id, ()) if scope.id != EACH else ()
    for rule in (*exact, *family.get(EACH, ())):
        yield Bound(rule, scope, _account(rule, scope.id))


def _families(rules: Rules, kind: ScopeKind, places: tuple[str, ...]) -> tuple[tuple[str, Family], ...]:
    return tuple((place, rules.families[kind, place]) for place in places if (kind, place) in rules.families)


def _merged(old: Mapping[str, T], new: Mapping[str, T | None]) -> Mapping[str, T]:
    if not new:
        return old
    both = {**old, **new}
    return {id_: each for id_, each in both.items() if each is not None}


def _placed(
    old: Mapping[tuple[ScopeKind, str], Family], standing: Mapping[Scope, list[Rule]]
) -> Mapping[tuple[ScopeKind, str], Family]:
    """Only the families that hold something new are copied."""
    families: dict[tuple[ScopeKind, str], dict[str, tuple[Rule, ...]]] = {}
    for scope, rules in standing.items():
        place = scope.kind, scope.within
        if place not in families:
            families[place] = dict(old.get(place, {}))
        family = families[place]
        if rules:
            family[scope.id] = tuple(sorted(rules, key=lambda rule: rule.id))
        else:
            family.pop(scope.id, None)
    return {place: family for place, family in {**old, **families}.items() if family}
