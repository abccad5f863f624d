"""The filters of searches: OpenAI's comparisons and compounds, and beside them exists, prefix and not. Pure.

Types are kept apart: the number 1 is neither the text "1" nor true. Texts compare by code points, so that dates as ISO 8601 have ranges.
`ne`, `nin` and `not` say what `eq`, `in` and their filter do not: they hold for documents without the attribute as well.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final, Literal, get_args

import msgspec

from retrieval.errors import BadFilter

MAX_DEPTH: Final = 16
MAX_PARTS: Final = 256
MAX_VALUES: Final = 1000
MAX_KEY: Final = 64
MAX_TEXT: Final = 512
MAX_INTEGER: Final = 2**63 - 1  # either way: what does not fit a number of the index has no order

Value = str | float | bool
Order = Literal["gt", "gte", "lt", "lte"]

_KNOWN: Final = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "prefix", "and", "or", "not")


class AnyOf(msgspec.Struct, frozen=True):
    """The attribute is one of these."""

    key: str
    values: tuple[Value, ...]


class Compare(msgspec.Struct, frozen=True):
    key: str
    order: Order
    value: str | float


class Exists(msgspec.Struct, frozen=True):
    key: str


class Prefix(msgspec.Struct, frozen=True):
    """The attribute is a text that begins so."""

    key: str
    text: str


class Not(msgspec.Struct, frozen=True):
    part: "Filter"


class Every(msgspec.Struct, frozen=True):
    parts: tuple["Filter", ...]


class Some(msgspec.Struct, frozen=True):
    parts: tuple["Filter", ...]


Filter = AnyOf | Compare | Exists | Prefix | Not | Every | Some


def parse(given: object) -> Filter:
    """What a client sent. Raises BadFilter, whose `param` names the place: `filters.filters.1.value`."""
    return _Parser().read(given, "filters", 0)


class _Parser:
    """Counts the parts of one filter."""

    def __init__(self) -> None:
        self._parts = 0

    def read(self, given: object, place: str, depth: int) -> Filter:
        self._parts += 1
        if depth >= MAX_DEPTH or self._parts > MAX_PARTS:
            raise BadFilter(f"A filter may have {MAX_PARTS} parts, {MAX_DEPTH} deep", param=place)
        if not isinstance(given, Mapping):
            raise BadFilter(f"{place} must be an object with a 'type'", param=place)
        kind = given.get("type")
        match kind:
            case "and" | "or":
                _only(given, place, "type", "filters")
                parts = self._list(given.get("filters"), f"{place}.filters", depth)
                return Every(parts) if kind == "and" else Some(parts)
            case "not":
                _only(given, place, "type", "filter")
                return Not(self.read(given.get("filter"), f"{place}.filter", depth + 1))
            case _ if isinstance(kind, str) and kind in _KNOWN:
                return _comparison(kind, given, place)
        raise BadFilter(f"{place}.type is {kind!r}; there are {', '.join(_KNOWN)}", param=f"{place}.type")

    def _list(self, given: object, place: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise BadFilter(f"{place} must be a list with at least one filter", param=place)
        return tuple(self.read(each, f"{place}.{number}", depth + 1) for number, each in enumerate(given))


def _comparison(kind: str, given: Mapping[str, object], place: str) -> Filter:
    _only(given, place, "type", "key", *(() if kind == "exists" else ("value",)))
    key = given.get("key")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
        raise BadFilter(
            f"{place}.key must be the name of an attribute, of 1 to {MAX_KEY} characters", param=f"{place}.key"
        )
    if kind == "exists":
        return Exists(key)
    where, value = f"{place}.value", given.get("value")
    if kind in ("in", "nin"):
        found = AnyOf(key, _values(value, where))
        return found if kind == "in" else Not(found)
    if kind in ("eq", "ne"):
        found = AnyOf(key, (_value(value, where),))
        return found if kind == "eq" else Not(found)
    if kind == "prefix":
        if not isinstance(value, str):
            raise BadFilter(f"{where} must be a text", param=where)
        return Prefix(key, value)
    single = _value(value, where)
    if isinstance(single, bool):
        raise BadFilter(f"{where} must be a number or a text: true and false have no order", param=where)
    return Compare(key, next(order for order in get_args(Order) if order == kind), single)


def _values(given: object, place: str) -> tuple[Value, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BadFilter(f"{place} must be a list", param=place)
    if len(given) > MAX_VALUES:
        raise BadFilter(f"{place} may have {MAX_VALUES} values", param=place)
    return tuple(_value(each, f"{place}.{number}") for number, each in enumerate(given))


def _value(given: object, place: str) -> Value:
    match given:
        case bool():
            return given
        case int() if abs(given) <= MAX_INTEGER:
            return float(given)
        case float() if isfinite(given):
            return given
        case str() if len(given) <= MAX_TEXT:
            return given
    raise BadFilter(f"{place} must be a text of up to {MAX_TEXT} characters, a number, true or false", param=place)


def _only(given: Mapping[str, object], place: str, *known: str) -> None:
    """A part that is not understood must not be left out of the answer in silence."""
    for name in given:
        if name not in known:
            raise BadFilter(f"{place}.{name} is not known here: {', '.join(known)}", param=f"{place}.{name}")
