"""The store by itself, on SQLite and PostgreSQL: the newest stays the newest, whatever comes when; a training set knows no future."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from gateway.database import appending, changing, connect, reading, record_revision
from inference.errors import BadRequest
from inference.features import row_store, training, view_store
from inference.features.rest import keep
from inference.features.training import as_of
from inference.features.view import EVENT_TIME, MICRO, FeatureView, Native, Row, entity
from inference.features.wire import Wanted
from inference.features.writing import Columns, Written, moment, written
from inference.serving.errors import BadInput
from inference.signature import Column

NOW = 1_800_000_000 * MICRO


def view(name: str = "stats", number: int = 1, ttl_s: float | None = None) -> FeatureView:
    return FeatureView(
        name=name,
        number=number,
        entities=(Column("driver_id", "INT64"), Column("city", "BYTES")),
        features=(Column("x", "FP64", nullable=True), Column("v", "FP32", (-1, 2), nullable=True)),
        source=Native(),
        ttl_s=ttl_s,
        missing="null",
        defaults={},
        version=1,
        revision=number,
        description=None,
        tags={},
        created_by="test",
        created_at=0.0,
        updated_at=0.0,
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    yield made
    made.dispose()


def add(engine: Engine, **fields: Any) -> FeatureView:
    with changing(engine) as tx:
        return view_store.add(tx, view(number=record_revision(tx, "test"), **fields))


def latest(engine: Engine, of: FeatureView, *keys: str) -> dict[str, Row]:
    with reading(engine) as tx:
        return dict(row_store.latest(tx, of.number, keys))


def test_rows_in_any_order_and_twice_leave_the_same_state(engine: Engine) -> None:
    """Five writers' worth of shuffled, repeated, overlapping pieces: the newest of each entity is what a sorted pass would leave."""
    made = add(engine)
    keys = [entity([number, "Bern"]) for number in range(20)]
    rows = [
        Written(key, NOW + at * MICRO, f'{{"x": {at}.5, "v": [1.0, {number}.0]}}')
        for number, key in enumerate(keys)
        for at in range(12)
    ]
    order = random.Random(7)
    shuffled = rows * 2
    order.shuffle(shuffled)
    while shuffled:
        size = order.randint(1, 60)
        some, shuffled = shuffled[:size], shuffled[size:]
        with appending(engine) as tx:
            row_store.write(tx, made.number, some, NOW)
    found = latest(engine, made, *keys, '[99,"nobody"]')
    assert found == {key: Row(NOW + 11 * MICRO, {"x": 11.5, "v": [1.0, float(n)]}) for n, key in enumerate(keys)}
    with reading(engine) as tx:
        history = row_store.history(tx, made.number, keys, None, NOW + 5 * MICRO)
        assert row_store.counted(tx, made.number) == (20, NOW + 11 * MICRO)
    assert all([row.event_us for row in rows] == [NOW + at * MICRO for at in range(6)] for rows in history.values())


def test_of_two_rows_of_one_moment_the_last_counts(engine: Engine) -> None:
    made = add(engine)
    for x in (1.0, 2.0):
        with appending(engine) as tx:
            row_store.write(tx, made.number, [Written("[1]", NOW, f'{{"x": {x}}}')], NOW)
    assert latest(engine, made, "[1]") == {"[1]": Row(NOW, {"x": 2.0})}
    with reading(engine) as tx:
        assert row_store.history(tx, made.number, ["[1]"], None, NOW) == {"[1]": [Row(NOW, {"x": 2.0})]}


def test_reading_is_one_look_into_the_index(engine: Engine) -> None:
    """One statement for many entities, and none that goes through a table."""
    made = add(engine)
    said: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *call: said.append((call[2], call[3])))
    latest(engine, made, *(f"[{number}]" for number in range(100)))
    [(statement, parameters)] = [one for one in said if "feature_latest" in one[0]]
    with reading(engine) as tx:
        if engine.dialect.name == "postgresql":
            tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        plan = " ".join(str(row) for row in tx.exec_driver_sql(explain + statement, parameters))
    assert "Seq Scan" not in plan
    assert "SCAN" not in plan
    assert "PRIMARY KEY (view=? AND entity=?)" in plan or "pk_feature_latest" in plan


def test_rows_of_a_view_that_is_gone_go_and_are_never_anothers(engine: Engine) -> None:
    first, other = add(engine), add(engine, name="other")
    for each in (first, other):
        with appending(engine) as tx:
            row_store.write(tx, each.number, [Written(f"[{n}]", NOW, '{"x": 1.0}') for n in range(30)], NOW)
    with changing(engine) as tx:
        view_store.remove(tx, "stats")
        record_revision(tx, "test")
    again = add(engine)
    assert latest(engine, again, "[1]") == {}
    gone = 0
    while True:
        with appending(engine) as tx:
            some = view_store.sweep(tx)
        gone += some
        if not some:
            break
    assert gone == 60
    assert latest(engine, other, "[1]") == {"[1]": Row(NOW, {"x": 1.0})}
    assert latest(engine, first, "[1]") == {}


def test_a_write_is_whole_or_nothing(engine: Engine) -> None:
    made = add(engine)
    columns: Columns = {"driver_id": [1, 2], "city": ["Bern", "Basel"], "x": [1.0, "much"]}
    with pytest.raises(BadInput) as refused:
        keep(partial(appending, engine), made, columns, 2, lambda name, row: f"rows[{row}].{name}")
    assert (refused.value.param, refused.value.code) == ("rows[1].x", "invalid_type")
    assert latest(engine, made, entity([1, "Bern"])) == {}


@pytest.mark.parametrize(
    ("columns", "code", "param"),
    [
        ({"driver_id": [1], "x": [1.0]}, "missing_feature", "city"),
        ({"driver_id": [1], "city": ["a"]}, "missing_feature", None),
        ({"driver_id": [1], "city": ["a"], "x": [1.0], "y": [1]}, "unknown_feature", "y"),
        ({"driver_id": [None], "city": ["a"], "x": [1.0]}, "null_not_allowed", "driver_id[0]"),
        ({"driver_id": [1], "city": ["a"], "v": [[1.0]]}, "invalid_shape", "v[0]"),
        ({"driver_id": [1], "city": ["a"], "x": [float("inf")]}, "not_finite", "x[0]"),
        ({"driver_id": [1], "city": ["a"], "x": [1.0], EVENT_TIME: ["soon"]}, "invalid_type", "event_timestamp[0]"),
        ({"driver_id": [1], "city": ["a"], "x": [1.0], EVENT_TIME: [1.8e12]}, "out_of_range", "event_timestamp[0]"),
        ({"driver_id": [1], "city": ["a"], "x": [1.0], EVENT_TIME: [True]}, "invalid_type", "event_timestamp[0]"),
        ({"driver_id": [], "city": [], "x": []}, "no_rows", None),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_place(columns: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        written(view(), columns, len(columns["driver_id"]), lambda name, row: f"{name}[{row}]", NOW)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-01-02T03:04:05Z", 1767323045 * MICRO),
        ("2026-01-02 03:04:05.000250", 1767323045 * MICRO + 250),
        ("2026-01-02T04:04:05+01:00", 1767323045 * MICRO),
        (1767323045.5, 1767323045 * MICRO + 500_000),
    ],
)
def test_times_are_read_to_the_microsecond(text: Any, us: int) -> None:
    assert moment(text) == us


def brute(rows: Sequence[tuple[int, float]], at: int, ttl: int | None) -> float | None:
    """The definition: of all rows that were there at the time and not too old then, the newest."""
    there = [(event, x) for event, x in rows if event <= at and (ttl is None or event >= at - ttl)]
    return max(there)[1] if there else None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 40), unique=True, max_size=12),
    st.lists(st.integers(-2, 45), min_size=1, max_size=8),
    st.none() | st.integers(0, 20),
)
def test_as_of_is_what_the_definition_says(events: list[int], moments: list[int], ttl: int | None) -> None:
    rows = [(event, float(event)) for event in sorted(events)]
    history = [Row(event, {"x": x}) for event, x in rows]
    for at in moments:
        found = as_of(history, at, ttl)
        assert (None if found is None else found.values["x"]) == brute(rows, at, ttl)
        assert found is None or found.event_us <= at


def test_a_training_set_knows_nothing_of_what_came_later(engine: Engine) -> None:
    """Random histories of two views, rows written in random order, against the definition; the other columns come through."""
    chance = random.Random(11)
    views = [add(engine, name="short", ttl_s=6.0), add(engine, name="long")]
    keys = [(number, city) for number in range(8) for city in ("Bern", "Zürich")]
    known: dict[tuple[str, tuple[int, str]], list[tuple[int, float]]] = {}
    for each in views:
        rows = []
        for key in keys:
            for second in chance.sample(range(40), chance.randint(0, 9)):
                at = NOW + second * MICRO
                known.setdefault((each.name, key), []).append((at, float(second)))
                rows.append(Written(entity(key), at, f'{{"x": {float(second)}}}'))
        chance.shuffle(rows)
        with appending(engine) as tx:
            row_store.write(tx, each.number, rows, NOW)
    asked = [(chance.choice(keys), NOW + chance.randint(-5, 45) * MICRO) for _ in range(400)]
    columns: Columns = {
        "driver_id": [number for (number, _), _ in asked],
        "city": [city for (_, city), _ in asked],
        "label": list(range(400)),
        EVENT_TIME: [at / MICRO for _, at in asked],
    }
    wanted = tuple(Wanted(each, ("x",)) for each in views)
    place = lambda name, row: f"{name}[{row}]"  # noqa: E731 — a name for it would say no more
    made = training.joined(partial(reading, engine), wanted, columns, place, full_names=True)
    assert list(made) == ["driver_id", "city", "label", EVENT_TIME, "short__x", "long__x"]
    assert made["label"] == list(range(400))
    for each in views:
        ttl = None if each.ttl_s is None else int(each.ttl_s * MICRO)
        expected = [brute(known.get((each.name, key), []), at, ttl) for key, at in asked]
        assert made[f"{each.name}__x"] == expected
    assert sum(value is not None for value in made["long__x"]) > 100
    with pytest.raises(BadInput, match="twice"):
        training.joined(partial(reading, engine), wanted, columns, place)
