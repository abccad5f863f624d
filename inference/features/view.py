"""What a feature view is: the entities that it is about, its features, how old they may be, and where they are kept. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from inference.errors import BadRequest
from inference.signature import Column

Missing: TypeAlias = Literal["error", "null", "default"]
Status: TypeAlias = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]

MICRO: Final = 1_000_000
MOST_COLUMNS: Final = 2_000
ENTITY_TYPES: Final = frozenset(
    {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL", "BYTES"}
)
EVENT_TIME: Final = "event_timestamp"
# Names of columns that say when: those of Feast's own examples and clients, too.
CREATED: Final = frozenset({"created", "created_timestamp"})
RESERVED: Final = frozenset({EVENT_TIME, *CREATED})


class Native(msgspec.Struct, frozen=True, tag="native", tag_field="kind"):
    """In this database. `push`: what a push by Feast's protocol may call the view, beside its name."""

    push: str | None = None


class Feast(msgspec.Struct, frozen=True, tag="feast", tag_field="kind"):
    """At a feature server of Feast that the configuration names. `view`: its name there, if that is another one."""

    server: str
    view: str | None = None


Source: TypeAlias = Native | Feast


class FeatureView(msgspec.Struct, frozen=True):
    """Never narrower than it was: features are added, none is taken away or retyped, so that an old bundle finds what it had.

    `number` is the place of its rows: a view that is made again under an old name does not find them. `ttl_s`: how old a value may be;
    None: as old as it likes. `missing`: what a prediction gets instead of a value that is not there, or too old.
    """

    name: str
    number: int
    entities: tuple[Column, ...]
    features: tuple[Column, ...]
    source: Source
    ttl_s: float | None
    missing: Missing
    defaults: Mapping[str, Any]
    version: int
    revision: int
    description: str | None
    tags: Mapping[str, str]
    created_by: str
    created_at: float
    updated_at: float

    def feature(self, name: str) -> Column | None:
        return next((each for each in self.features if each.name == name), None)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its entities' columns, in order."""
        return tuple(each.name for each in self.entities)

    def fresh(self, event_us: int, at_us: int) -> bool:
        """Whether a value of that moment may be used at another. One from the future may: clocks differ."""
        return self.ttl_s is None or event_us >= at_us - int(self.ttl_s * MICRO)


class Row(msgspec.Struct, frozen=True):
    """What is known of one entity. `values` by feature; a feature that is not in it is not there, null is."""

    event_us: int
    values: Mapping[str, Any]


def entity(values: Sequence[Any]) -> str:
    """The key of an entity, from the values of its columns in the view's order: one text for one entity."""
    return msgspec.json.encode(list(values)).decode()


def status(view: FeatureView, row: Row | None, feature: str, at_us: int) -> Status:
    if row is None or feature not in row.values:
        return "NOT_FOUND"
    if not view.fresh(row.event_us, at_us):
        return "OUTSIDE_MAX_AGE"
    return "NULL_VALUE" if row.values[feature] is None else "PRESENT"


def require_columns(entities: Sequence[Column], features: Sequence[Column]) -> None:
    """Raises BadRequest."""
    if not entities or not features:
        raise BadRequest("A feature view has at least one entity and one feature", param="features")
    if len(entities) + len(features) > MOST_COLUMNS:
        raise BadRequest(f"A feature view has at most {MOST_COLUMNS} columns", param="features")
    seen: set[str] = set()
    for place, columns in (("entities", entities), ("features", features)):
        for column in columns:
            if column.name in seen:
                raise BadRequest(f"{place}: the name '{column.name}' comes twice", param=place)
            if column.name in RESERVED:
                raise BadRequest(f"{place}: '{column.name}' is the name of a time", param=place)
            seen.add(column.name)
    for column in entities:
        if column.datatype not in ENTITY_TYPES or len(column.shape) > 1:
            raise BadRequest(
                f"entities: '{column.name}' is a whole number, a truth value or a text (BYTES), not {column.datatype}",
                param="entities",
            )
