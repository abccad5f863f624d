"""Training sets: entities with times, and what was known of each at its time.

What came later is not in them, or a model would be trained on the future. The join of a row at t takes the newest values with
t - ttl <= time <= t, as Feast's `get_historical_features` does.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection

from inference.errors import BadRequest
from inference.features import row_store
from inference.features.view import EVENT_TIME, MICRO, FeatureView, Native, Row, entity
from inference.features.wire import Wanted
from inference.features.writing import At, Columns, moment, values
from inference.serving.errors import BadInput

AT_ONCE: Final = 500

Reading = Callable[[], AbstractContextManager[Connection]]


def as_of(history: Sequence[Row], at_us: int, ttl_us: int | None) -> Row | None:
    """The newest that was known at a moment and was not too old then. `history`: of one entity, oldest first. Pure."""
    place = bisect_right(history, at_us, key=lambda row: row.event_us)
    if not place:
        return None
    row = history[place - 1]
    return row if ttl_us is None or row.event_us >= at_us - ttl_us else None


def joined(
    reading: Reading,
    wanted: Sequence[Wanted],
    columns: Columns,
    at: At,
    *,
    time_column: str = EVENT_TIME,
    full_names: bool = False,
) -> dict[str, Sequence[Any]]:
    """The columns that came, and a column for each feature: `view__feature` where `full_names`. Blocks. Raises InferenceError."""
    if time_column not in columns:
        raise BadInput(f"Missing '{time_column}': when each row is of", param=time_column, code="missing_feature")
    moments = _moments(columns[time_column], time_column, at)
    made: dict[str, Sequence[Any]] = dict(columns)
    for view, features in wanted:
        if not isinstance(view.source, Native):
            raise BadRequest(f"The history of '{view.name}' is at Feast: ask there", code="no_history")
        rows = _rows(reading, view, _keys(view, columns, at), moments)
        for feature in features:
            name = f"{view.name}__{feature}" if full_names else feature
            if name in made:
                why = "it is there already; full_feature_names tells features of several views apart"
                raise BadInput(f"The column '{name}' would come twice: {why}", param=name, code="duplicate_feature")
            made[name] = [None if row is None else row.values.get(feature) for row in rows]
    made[time_column] = [datetime.fromtimestamp(us / MICRO, UTC) for us in moments]
    return made


def _keys(view: FeatureView, columns: Columns, at: At) -> list[str]:
    lists = []
    for column in view.entities:
        if column.name not in columns:
            raise BadInput(
                f"Missing '{column.name}', an entity of '{view.name}'", param=column.name, code="missing_feature"
            )
        lists.append(values(column, columns[column.name], at, required=True))
    return [entity(row) for row in zip(*lists, strict=True)]


def _rows(reading: Reading, view: FeatureView, keys: Sequence[str], moments: Sequence[int]) -> Sequence[Row | None]:
    """A part of the entities at a time, so that no more than their history is in memory."""
    ttl_us = None if view.ttl_s is None else int(view.ttl_s * MICRO)
    places: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        places.setdefault(key, []).append(number)
    made: list[Row | None] = [None] * len(keys)
    some = list(places)
    for first in range(0, len(some), AT_ONCE):
        part = some[first : first + AT_ONCE]
        asked = [moments[number] for key in part for number in places[key]]
        since = None if ttl_us is None else min(asked) - ttl_us
        for key, history in _history(reading, view, part, since, max(asked)).items():
            for number in places[key]:
                made[number] = as_of(history, moments[number], ttl_us)
    return made


def _history(
    reading: Reading, view: FeatureView, keys: Sequence[str], since_us: int | None, until_us: int
) -> Mapping[str, Sequence[Row]]:
    with reading() as tx:
        return row_store.history(tx, view.number, keys, since_us, until_us)


def _moments(given: Sequence[Any], name: str, at: At) -> list[int]:
    made = []
    for row, value in enumerate(given):
        try:
            made.append(moment(_number(value)))
        except (ValueError, OverflowError):
            place = at(name, row)
            why = f"expected a time, not {str(value)[:40]!r}"
            raise BadInput(f"Invalid '{place}': {why}", param=place, code="invalid_type") from None
    return made


def _number(value: Any) -> Any:
    """CSV has no numbers: Unix seconds are digits there."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
