"""Spend by key, team, model and so on: read from the sums by month and day, and from what was shipped since they were made.

Whole months come from the months' rows, what is left of a range from the days'. Days are those of UTC.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection, text

from gateway.errors import BadRequest
from gateway.spend_sums import OWNER, SUMS, month_start, next_month

GroupBy = Literal["org", "team", "user", "key", "customer", "model", "provider", "tag", "day", "month"]

_COLUMNS: Final[Mapping[str, str]] = {
    "org": "org_id",
    "team": "team_id",
    "user": "user_id",
    "key": "key_id",
    "model": "model",
    "provider": "provider",
    "customer": "label",
    "tag": "label",
    "day": "day",
    "month": "day",
}
_FACETS: Final = frozenset({"customer", "tag"})
_TOTALS: Final = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
_FAR: Final = 3_000_000  # a day in the year 10183


class Range(msgspec.Struct, frozen=True):
    """Days since 1970, `until` exclusive."""

    since: int = 0
    until: int = _FAR


class Spend(msgspec.Struct, frozen=True):
    """`group` is the key's id, the model's name and so on, None where calls had none; for day and month days since 1970."""

    group: str | int | None
    cost_nanousd: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


EVER: Final = Range()


def spend(
    tx: Connection,
    by: GroupBy,
    days: Range = EVER,
    only: Mapping[str, str] | None = None,
    limit: int = 1000,
    skipped: int = 0,
) -> Sequence[Spend]:
    """The `limit` groups that cost most behind the `skipped` first, or days or months in order. `only` names ids by what one can
    group by, but days.

    A call with several tags counts in each of them; one without does not show by tag. Raises BadRequest.
    """
    filters = dict(only or {})
    facets = {name for name in (by, *filters) if name in _FACETS}
    if len(facets) > 1:
        raise BadRequest("Spend is not summed up by tag and customer together: ask for one of them.", param="tag")
    parts = [_sums(by, where, filters) for where in _rollup_ranges(by, days)]
    parts.append(_partial_sums(by, filters))
    first, end = _whole_months(days)
    owned = any(_COLUMNS[name] in OWNER for name in (by, *filters))
    bound = {
        "by_day": "od" if owned else "d",
        "by_month": "om" if owned else "m",
        "facet": next(iter(facets), ""),
        "since": days.since,
        "until": days.until,
        "first": first,
        "end": end,
        "limit": _FAR if by == "month" else limit,
        "skipped": 0 if by == "month" else skipped,
    }
    order = "grouped" if by in {"day", "month"} else "cost_nanousd DESC, grouped"
    sums = " UNION ALL ".join(parts)
    query = f"SELECT grouped, {_TOTALS} FROM ({sums}) AS parts GROUP BY grouped ORDER BY {order} LIMIT :limit OFFSET :skipped"  # noqa: S608 — constants
    rows = tx.execute(text(query), bound | {f"only_{name}": value for name, value in filters.items()})
    found = [Spend(None if row[0] == "" else row[0], *(int(value) for value in row[1:])) for row in rows]
    return _by_month(found)[skipped : skipped + limit] if by == "month" else found


def _partial_sums(by: GroupBy, filters: Mapping[str, str]) -> str:
    only = "".join(f" AND {_COLUMNS[name]} = :only_{name}" for name in filters)
    days = "facet = :facet AND day >= :since AND day < :until"
    return f"SELECT {_COLUMNS[by]} AS grouped, {_TOTALS} FROM spend_partials WHERE {days}{only} GROUP BY {_COLUMNS[by]}"  # noqa: S608 — constants


def _sums(by: GroupBy, where: str, filters: Mapping[str, str]) -> str:
    """From the rollup. Owners are numbers there: they are chosen first and named last."""
    column = _COLUMNS[by]
    owners = [name for name in filters if _COLUMNS[name] in OWNER]
    rows = f"facet = :facet AND {where}" + "".join(f" AND label = :only_{name}" for name in filters if name in _FACETS)
    if owners:
        chosen = " AND ".join(f"{_COLUMNS[name]} = :only_{name}" for name in owners)
        rows += f" AND owner IN (SELECT id FROM spend_owners WHERE {chosen})"  # noqa: S608 — constants
    if column not in OWNER:
        return f"SELECT {column} AS grouped, {_TOTALS} FROM spend_rollup WHERE {rows} GROUP BY {column}"  # noqa: S608 — constants
    inner = f"SELECT owner, {_TOTALS} FROM spend_rollup WHERE {rows} GROUP BY owner"  # noqa: S608 — constants
    return f"SELECT {column} AS grouped, {_TOTALS} FROM ({inner}) AS owned JOIN spend_owners ON id = owner GROUP BY {column}"  # noqa: S608 — constants


def _by_month(found: Sequence[Spend]) -> list[Spend]:
    """The days at the ends of a range, added up; whole months come as their first day already."""
    months: dict[int, Spend] = {}
    for one in found:
        assert isinstance(one.group, int)
        month = month_start(one.group)
        known = months.get(month)
        sums = {name: getattr(one, name) + (0 if known is None else getattr(known, name)) for name in SUMS}
        months[month] = Spend(month, **sums)
    return list(months.values())


def _rollup_ranges(by: GroupBy, days: Range) -> Sequence[str]:
    """Conditions that no two rows of the rollup meet for the same entry."""
    first, end = _whole_months(days)
    if by == "day" or first >= end:
        return ["grain = :by_day AND day >= :since AND day < :until"]
    return [
        "grain = :by_month AND day >= :first AND day < :end",
        *(["grain = :by_day AND day >= :since AND day < :first"] if days.since < first else []),
        *(["grain = :by_day AND day >= :end AND day < :until"] if end < days.until else []),
    ]


def _whole_months(days: Range) -> tuple[int, int]:
    """The first day of the first month that is wholly in the range, and that of the first after it that is not."""
    first = days.since if month_start(days.since) == days.since else next_month(days.since)
    return first, days.until if days.until == _FAR else month_start(days.until)
