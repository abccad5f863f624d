"""Feast's HTTP contract, as feast 0.6x speaks it: the same shapes for whoever asks and whoever answers. Pure.

An answer is by column: one element of `results` for each name in `metadata.feature_names`, with a value, a status and a time for each
entity. Entities come first. What has no time has that of 1970.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from inference.errors import NotFound
from inference.features.view import MICRO, FeatureView, Row, Status, status
from inference.features.writing import moment
from inference.serving.errors import BadInput

NEVER: Final = "1970-01-01T00:00:00Z"
MOST_FEATURES: Final = 2_000


class Wanted(NamedTuple):
    """Features of one view."""

    view: FeatureView
    features: tuple[str, ...]


class Asked(NamedTuple):
    """`wanted`: views in the order in which they are first named. `entities` by column, all of one length."""

    wanted: tuple[Wanted, ...]
    entities: Mapping[str, Sequence[Any]]
    rows: int
    full_names: bool


def read(body: Mapping[str, Any], find: Callable[[str], FeatureView | None], most_rows: int) -> Asked:
    """`{"features": ["view:feature", …] or "feature_service": "view", "entities": {"driver_id": [1001, …]}, "full_feature_names"?}`.

    A service is a view's name here: all of its features. Raises BadInput, NotFound.
    """
    entities = body.get("entities")
    if not isinstance(entities, Mapping) or not entities:
        raise BadInput("Invalid 'entities': expected an object with a list for each entity", param="entities")
    lists = {name: _list(name, given) for name, given in entities.items()}
    first = next(iter(lists))
    rows = len(lists[first])
    odd = next((name for name, values in lists.items() if len(values) != rows), None)
    if odd is not None:
        why = f"{len(lists[odd])} values, but '{first}' has {rows}"
        raise BadInput(f"Invalid 'entities.{odd}': {why}", param=f"entities.{odd}", code="row_count_mismatch")
    if not 1 <= rows <= most_rows:
        raise BadInput(f"Invalid 'entities': {rows} rows, and 1 to {most_rows} are taken", param="entities")
    full = body.get("full_feature_names", False)
    if not isinstance(full, bool):
        raise BadInput("Invalid 'full_feature_names': expected true or false", param="full_feature_names")
    features = wanted(body, find)
    return Asked(features, lists, rows, full)


def wanted(body: Mapping[str, Any], find: Callable[[str], FeatureView | None]) -> tuple[Wanted, ...]:
    """Of a body's `features` or `feature_service`. Raises BadInput, NotFound."""
    service, given = body.get("feature_service"), body.get("features") or []
    if service is not None:
        if not isinstance(service, str):
            raise BadInput("Invalid 'feature_service': expected a text", param="feature_service")
        view = _found(find, service, "feature_service")
        return (Wanted(view, tuple(each.name for each in view.features)),)
    if not isinstance(given, list) or not given or len(given) > MOST_FEATURES:
        why = f"expected 1 to {MOST_FEATURES} texts as view:feature"
        raise BadInput(f"Invalid 'features': {why}", param="features")
    made: dict[str, tuple[FeatureView, dict[str, None]]] = {}
    for number, reference in enumerate(given):
        place = f"features[{number}]"
        name, colon, feature = reference.partition(":") if isinstance(reference, str) else ("", "", "")
        if not colon or not feature:
            raise BadInput(f"Invalid '{place}': expected view:feature", param=place)
        name = name.partition("@")[0]  # `view@v2:feature`: a view here is never narrower than any of its versions was
        view = made[name][0] if name in made else _found(find, name, place)
        if view.feature(feature) is None:
            raise NotFound(
                f"The feature view '{name}' has no feature '{feature[:200]}'", param=place, code="feature_not_found"
            )
        made.setdefault(name, (view, {}))[1][feature] = None
    return tuple(Wanted(view, tuple(features)) for view, features in made.values())


def answer(asked: Asked, found: Sequence[Sequence[Row | None]], at_us: int) -> dict[str, Any]:
    """`found`: for each of the views, the row of each entity. What is too old is told as such, and its value is not."""
    names: list[str] = list(asked.entities)
    results: list[dict[str, Any]] = [
        {"values": list(values), "statuses": ["PRESENT"] * asked.rows, "event_timestamps": [NEVER] * asked.rows}
        for values in asked.entities.values()
    ]
    for (view, features), rows in zip(asked.wanted, found, strict=True):
        for feature in features:
            names.append(f"{view.name}__{feature}" if asked.full_names else feature)
            said: list[Status] = [status(view, row, feature, at_us) for row in rows]
            results.append(
                {
                    "values": [
                        row.values[feature] if row is not None and one == "PRESENT" else None
                        for row, one in zip(rows, said, strict=True)
                    ],
                    "statuses": said,
                    "event_timestamps": [
                        NEVER if row is None or one == "NOT_FOUND" else timestamp(row.event_us)
                        for row, one in zip(rows, said, strict=True)
                    ],
                }
            )
    return {"metadata": {"feature_names": names}, "results": results}


def question(view: FeatureView, there: str, entities: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What a feature server of Feast is asked for. `there`: the view's name at Feast."""
    return {
        "features": [f"{there}:{each.name}" for each in view.features],
        "entities": {name: list(values) for name, values in entities.items()},
        "full_feature_names": False,
    }


def rows_of(said: Any, view: FeatureView, rows: int) -> list[Row | None]:
    """A server's answer, row by row. Raises ValueError for what is none."""
    try:
        names = said["metadata"]["feature_names"]
        columns = dict(zip(names, said["results"], strict=True))
        lists = {each.name: columns[each.name] for each in view.features}
        return [_row(lists, number) for number in range(rows)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not an answer to /get-online-features: {type(error).__name__} {error}") from error


def timestamp(event_us: int) -> str:
    """RFC 3339 as Protocol Buffers write it: no more digits than there are."""
    seconds, micros = divmod(event_us, MICRO)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not micros:
        return f"{text}Z"
    return f"{text}.{micros // 1000:03d}Z" if micros % 1000 == 0 else f"{text}.{micros:06d}Z"


def _row(lists: Mapping[str, Any], number: int) -> Row | None:
    """Features that are there; as old as the oldest of them."""
    values, times = {}, []
    for name, column in lists.items():
        if column["statuses"][number] in {"PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE"}:
            values[name] = column["values"][number]
            told = column.get("event_timestamps")
            times.append(moment(told[number]) if told else 0)
    return Row(min(times), values) if times else None


def _found(find: Callable[[str], FeatureView | None], name: str, place: str) -> FeatureView:
    view = find(name)
    if view is None:
        raise NotFound(f"There is no feature view '{name[:200]}'", param=place, code="feature_view_not_found")
    return view


def _list(name: str, given: Any) -> Sequence[Any]:
    """Feast's older clients wrap it in `{"val": […]}`."""
    if isinstance(given, Mapping) and set(given) == {"val"}:
        given = given["val"]
    if not isinstance(given, list):
        raise BadInput(f"Invalid 'entities.{name}': expected a list", param=f"entities.{name}")
    return given
