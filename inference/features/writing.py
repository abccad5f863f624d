"""Rows of features as they come in, by column, as rows that can be kept: exactly, or refused with the place. Pure."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite, isnan
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from inference.features.view import CREATED, EVENT_TIME, MICRO, FeatureView, entity
from inference.serving.errors import BadInput
from inference.signature import Column

Columns: TypeAlias = Mapping[str, Sequence[Any]]
At: TypeAlias = Callable[[str, int], str]
"""The place of a value by its column and its row, as the client wrote it: `rows[3].age`."""

AHEAD_S: Final = (
    86_400  # an event of tomorrow is a clock; one of the year 50,000 are milliseconds that were taken for seconds
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
SHOWN: Final = 40


class Written(NamedTuple):
    """A row of the tables; `features` is JSON."""

    entity: str
    event_us: int
    features: str


def by_row(rows: Sequence[Any], place: str) -> tuple[Columns, int]:
    """Records as columns, null where a record lacks one. Raises BadInput."""
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BadInput(f"Invalid '{place}[{number}]': expected an object", param=f"{place}[{number}]")
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in names}, len(rows)


def by_column(columns: Any, place: str) -> tuple[Columns, int]:
    """As Feast has it: a list for each column. Raises BadInput."""
    if not isinstance(columns, Mapping) or not columns:
        raise BadInput(f"Invalid '{place}': expected an object with a list for each column", param=place)
    sizes = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadInput(f"Invalid '{place}.{name}': expected a list", param=f"{place}.{name}")
        sizes[name] = len(values)
    first = next(iter(sizes))
    odd = next((name for name, size in sizes.items() if size != sizes[first]), None)
    if odd is not None:
        why = f"{sizes[odd]} rows, but '{first}' has {sizes[first]}"
        raise BadInput(f"Invalid '{place}.{odd}': {why}", param=f"{place}.{odd}", code="row_count_mismatch")
    return columns, sizes[first]


def written(
    view: FeatureView, columns: Columns, rows: int, at: At, now_us: int, *, strict: bool = True
) -> list[Written]:
    """What is to be kept; without a time of its own a row is of now. Where `strict`, no other columns than the view's. Raises BadInput."""
    if not rows:
        raise BadInput("There is no row to write", code="no_rows")
    if strict:
        known = {*view.keys, *(each.name for each in view.features), EVENT_TIME, *CREATED}
        more = next((name for name in columns if name not in known), None)
        if more is not None:
            raise BadInput(f"The feature view '{view.name}' has no column '{more}'", param=more, code="unknown_feature")
    keys = entities(view, columns, at)
    given = [each for each in view.features if each.name in columns]
    if not given:
        raise BadInput(f"The rows have none of the features of '{view.name}'", code="missing_feature")
    lists = {each.name: values(each, columns[each.name], at) for each in given}
    moments = _moments(columns.get(EVENT_TIME), rows, at, now_us)
    encode = msgspec.json.encode
    return [
        Written(keys[row], moments[row], encode({name: some[row] for name, some in lists.items()}).decode())
        for row in range(rows)
    ]


def entities(view: FeatureView, columns: Columns, at: At) -> list[str]:
    """The entity of each row. Raises BadInput."""
    lists = []
    for column in view.entities:
        if column.name not in columns:
            raise BadInput(
                f"Missing '{column.name}', an entity of the feature view '{view.name}'",
                param=column.name,
                code="missing_feature",
            )
        lists.append(values(column, columns[column.name], at, required=True))
    return [entity(row) for row in zip(*lists, strict=True)]


def values(column: Column, given: Sequence[Any], at: At, *, required: bool = False) -> list[Any]:
    """Exactly in the column's type; null stays null where it may be. Raises BadInput."""
    there = [row for row, value in enumerate(given) if not _none(value)]
    if len(there) < len(given) and (required or not column.nullable):
        row = next(row for row, value in enumerate(given) if _none(value))
        place = at(column.name, row)
        raise BadInput(f"Invalid '{place}': it must not be null", param=place, code="null_not_allowed")
    from inference.serving.values import tensor  # noqa: PLC0415 — NumPy, which the admin plane does without until somebody writes rows

    some = tensor(column, [given[row] for row in there], lambda nth: at(column.name, there[nth])).tolist()
    if len(there) == len(given):
        return list(some)
    made: list[Any] = [None] * len(given)
    for row, value in zip(there, some, strict=True):
        made[row] = value
    return made


def moment(value: Any) -> int:
    """Microseconds since 1970 of RFC 3339 (UTC where no zone is said), Unix seconds, or a datetime. Raises ValueError."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        return ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("expected a time")
    return round(value * MICRO)


def _moments(given: Sequence[Any] | None, rows: int, at: At, now_us: int) -> list[int]:
    if given is None:
        return [now_us] * rows
    made = []
    for row, value in enumerate(given):
        place = at(EVENT_TIME, row)
        try:
            found = moment(value)
        except (ValueError, OverflowError):
            why = f"expected a time, as 2026-11-28T08:00:00Z, not {str(value)[:SHOWN]!r}"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="invalid_type") from None
        if not 0 <= found <= now_us + AHEAD_S * MICRO:
            why = f"{str(value)[:SHOWN]} is more than a day ahead, or before 1970; numbers are seconds"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="out_of_range")
        made.append(found)
    return made


def _none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))
