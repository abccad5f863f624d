"""Filters: what they admit, told by a second and slower reading of them, and what they refuse."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from admin.api.vector_store_wire import FileBody
from retrieval.access import Caller, may_read
from retrieval.document_store import Described
from retrieval.errors import BadFilter
from retrieval.filters import MAX_DEPTH, Value, parse
from retrieval.index.columns import Columns

ALL = Caller("key_all", labels=frozenset("*"))

values = st.one_of(
    st.booleans(), st.integers(-3, 3).map(float), st.sampled_from(["", "a", "ab", "b", "2024-01-31", "2024-02-01", "ä"])
)
keys = st.sampled_from(["x", "y"])
comparisons = st.one_of(
    st.builds(lambda t, k, v: {"type": t, "key": k, "value": v}, st.sampled_from(["eq", "ne"]), keys, values),
    st.builds(
        lambda t, k, v: {"type": t, "key": k, "value": v},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        keys,
        values.filter(lambda value: not isinstance(value, bool)),
    ),
    st.builds(
        lambda t, k, v: {"type": t, "key": k, "value": v},
        st.sampled_from(["in", "nin"]),
        keys,
        st.lists(values, max_size=3),
    ),
    st.builds(lambda k: {"type": "exists", "key": k}, keys),
    st.builds(lambda k, v: {"type": "prefix", "key": k, "value": v}, keys, st.sampled_from(["", "a", "2024-0"])),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(
            lambda t, fs: {"type": t, "filters": fs},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda f: {"type": "not", "filter": f}, inner),
    ),
    max_leaves=6,
)


def same(one: Value, other: Value) -> bool:
    return (
        isinstance(one, bool) is isinstance(other, bool)
        and isinstance(one, str) is isinstance(other, str)
        and one == other
    )


def admits(wanted: Any, attributes: dict[str, Value]) -> bool:  # noqa: PLR0911 — a table of cases
    """One document at a time."""
    kind = wanted["type"]
    if kind in ("and", "or"):
        return (all if kind == "and" else any)(admits(part, attributes) for part in wanted["filters"])
    if kind == "not":
        return not admits(wanted["filter"], attributes)
    have = attributes.get(wanted["key"])
    if kind == "exists":
        return have is not None
    value = wanted["value"]
    match kind:
        case "eq" | "ne":
            return (have is not None and same(have, value)) is (kind == "eq")
        case "in" | "nin":
            return any(have is not None and same(have, each) for each in value) is (kind == "in")
        case "prefix":
            return isinstance(have, str) and have.startswith(value)
    if have is None or isinstance(have, bool) or isinstance(have, str) is not isinstance(value, str):
        return False
    ordered: dict[str, bool] = {"gt": have > value, "gte": have >= value, "lt": have < value, "lte": have <= value}
    return ordered[kind]


@given(filters, st.lists(st.dictionaries(keys, values, max_size=2), max_size=8))
def test_a_filter_admits_what_it_says(wanted: Any, documents: list[dict[str, Value]]) -> None:
    columns = Columns({number: Described(number, each, frozenset()) for number, each in enumerate(documents)})
    mask = columns.mask(ALL, parse(wanted), labelled=False)
    assert mask is not None
    assert mask.tolist() == [admits(wanted, each) for each in documents]


labels = st.frozensets(st.sampled_from(["a", "b", "key:key_1", "team:t", "*"]), max_size=2)


@given(labels, st.lists(labels, max_size=6), st.booleans(), st.booleans())
def test_the_index_opens_what_the_rule_opens(
    held: frozenset[str], documents: list[frozenset[str]], labelled: bool, changed: bool
) -> None:
    """For every caller, every document, both kinds of collection, also after documents have changed."""
    caller = Caller("key_1", "t", None, held)
    columns = Columns({number: Described(number, {}, each) for number, each in enumerate(documents)})
    if changed:
        documents = [each | {"a"} for each in documents]
        columns = columns.changed([Described(number, {}, each) for number, each in enumerate(documents)])
    mask = columns.mask(caller, None, labelled=labelled)
    opened = [True] * len(documents) if mask is None else mask.tolist()
    assert opened == [may_read(caller, each, labelled=labelled) for each in documents]


def test_an_attribute_of_that_name_opens_nothing() -> None:
    """Who somebody is does not come from what somebody wrote."""
    columns = Columns(
        {1: Described(1, {"access_labels": "*", "team_id": "t", "labels": "key:key_1"}, frozenset({"secret"}))}
    )
    mask = columns.mask(Caller("key_1", "t"), parse({"type": "eq", "key": "team_id", "value": "t"}), labelled=False)
    assert mask is not None
    assert not mask.any()


deep: Any = {"type": "exists", "key": "x"}
for _ in range(MAX_DEPTH):
    deep = {"type": "not", "filter": deep}


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ("text", "filters"),
        ({}, "filters.type"),
        ({"type": "like", "key": "x", "value": "a"}, "filters.type"),
        ({"type": ["eq"], "key": "x", "value": "a"}, "filters.type"),
        ({"type": "eq", "value": "a"}, "filters.key"),
        ({"type": "eq", "key": "", "value": "a"}, "filters.key"),
        ({"type": "eq", "key": "x"}, "filters.value"),
        ({"type": "eq", "key": "x", "value": None}, "filters.value"),
        ({"type": "eq", "key": "x", "value": {"a": 1}}, "filters.value"),
        ({"type": "eq", "key": "x", "value": math.nan}, "filters.value"),
        ({"type": "eq", "key": "x", "value": "a" * 513}, "filters.value"),
        ({"type": "gt", "key": "x", "value": 10**400}, "filters.value"),
        ({"type": "in", "key": "x", "value": [1, -(10**400)]}, "filters.value.1"),
        ({"type": "gt", "key": "x", "value": True}, "filters.value"),
        ({"type": "in", "key": "x", "value": "abc"}, "filters.value"),
        ({"type": "in", "key": "x", "value": [None]}, "filters.value.0"),
        ({"type": "in", "key": "x", "value": ["a"] * 1001}, "filters.value"),
        ({"type": "prefix", "key": "x", "value": 1}, "filters.value"),
        ({"type": "eq", "key": "x", "value": "a", "boost": 2}, "filters.boost"),
        ({"type": "and", "filters": []}, "filters.filters"),
        ({"type": "and", "filters": {}}, "filters.filters"),
        ({"type": "or", "filters": [{"type": "exists", "key": "x"}, {"type": "eq"}]}, "filters.filters.1.key"),
        ({"type": "and", "filters": [{"type": "exists", "key": "x"}] * 300}, "filters.filters.255"),
        (deep, "filters" + ".filter" * MAX_DEPTH),
    ],
)
def test_what_is_no_filter_is_refused_by_its_place(wanted: Any, param: str) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(BadFilter) as raised:
        parse(wanted)
    assert raised.value.param == param
    assert raised.value.code == "invalid_filter"


def test_an_attribute_is_a_number_that_an_index_can_hold() -> None:
    """One that is not would fail every search that looks at it."""
    with pytest.raises(ValidationError, match="less than or equal"):
        FileBody.model_validate({"file_id": "file-1", "attributes": {"x": 10**400}})
    asked = FileBody.model_validate({"file_id": "file-1", "attributes": {"x": 2**53, "y": True, "z": 0.5}})
    assert asked.wanted().attributes == {"x": 2**53, "y": True, "z": 0.5}
