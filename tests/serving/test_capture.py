"""Captures: in a file at once, in the database soon, each once, bounded, without what is not to be kept."""

import asyncio
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, select

from gateway.database import appending, connect, reading
from inference.serving import capture
from inference.serving.capture import Capture, Captured, Terms, abandoned, read
from inference.serving.capture_store import between, forget, store
from inference.serving.export import write_days
from inference.tables import metadata, predictions

X = {"x": np.array([1.0, np.nan]), "name": np.array(["ann", "bob"], object)}
Y = {"y": np.array([1, 2])}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = connect(empty_database_url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def facts(number: int, model: str = "m") -> Captured:
    return Captured(
        f"req_{number:04}", 1000.0 + number, model, 1, "champion", None, "key_1", None, None, None, True, 0.001, 7, 2
    )


def rows(engine: Engine) -> list[dict[str, object]]:
    with reading(engine) as tx:
        return [dict(row) for row in tx.execute(select(predictions).order_by(predictions.c.id)).mappings()]


async def test_a_capture_is_on_file_at_once_and_in_the_database_after(tmp_path: Path, engine: Engine) -> None:
    """Inputs and outputs by column, as JSON; the file is gone then."""
    made = Capture(tmp_path / "captures", Terms(), partial(store, partial(appending, engine)), lambda: 0.5)
    for number in range(3):
        made.take(facts(number), X, Y)
    await asyncio.sleep(0)
    (file,) = (tmp_path / "captures").iterdir()
    assert [one.id for one in read(file)] == ["req_0000", "req_0001", "req_0002"]
    await made.close()
    assert list((tmp_path / "captures").iterdir()) == []
    found = rows(engine)
    assert len(found) == 3
    assert json.loads(str(found[0]["inputs"])) == {"x": [1.0, None], "name": ["ann", "bob"]}
    assert json.loads(str(found[0]["outputs"])) == {"y": [1, 2]}
    assert (found[0]["cost_nanousd"], found[0]["rows"], found[0]["valid"]) == (7, 2, True)


async def test_columns_are_redacted_and_calls_are_sampled(tmp_path: Path) -> None:
    """By model; `*` hides every value."""
    draws = iter([0.05, 0.5, 0.05])
    terms = Terms(samples={"few": 0.1}, redact={"few": frozenset({"name"}), "none": frozenset({"*"})})
    made = Capture(tmp_path / "captures", terms, lambda _: None, lambda: next(draws))
    for number in range(3):
        made.take(facts(number, "few"), X, Y)
    made.take(facts(9, "none"), X, Y)
    await asyncio.sleep(0)
    (file,) = (tmp_path / "captures").iterdir()
    first, second, third = read(file)
    assert (first.id, second.id, third.id) == ("req_0000", "req_0002", "req_0009")
    assert first.inputs == b'{"x":[1.0,null],"name":"[redacted]"}'
    assert (third.inputs, third.outputs) == (b'{"x":"[redacted]","name":"[redacted]"}', b'{"y":"[redacted]"}')
    await made.close()


async def test_files_of_a_dead_process_are_brought_and_a_torn_end_is_left_out(tmp_path: Path, engine: Engine) -> None:
    """As `kill -9` in the middle of a write leaves them; what the database has already is not doubled."""
    dead = Capture(tmp_path / "captures", Terms(), lambda _: None, lambda: 0.5)
    for number in range(4):
        dead.take(facts(number), X, Y)
    await asyncio.sleep(0)
    (file,) = (tmp_path / "captures").iterdir()
    assert abandoned(tmp_path / "captures") == []  # it lives
    os.close(dead._file)
    with file.open("r+b") as torn:
        torn.truncate(file.stat().st_size - 3)
    writing = partial(store, partial(appending, engine))
    writing([facts(0)])
    heir = Capture(tmp_path / "captures", Terms(), writing, lambda: 0.5)
    work = asyncio.ensure_future(heir.run())
    while list((tmp_path / "captures").iterdir()):  # noqa: ASYNC110 — a folder has no event
        await asyncio.sleep(0.01)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert [row["id"] for row in rows(engine)] == ["req_0000", "req_0001", "req_0002"]
    await heir.close()


async def test_a_database_that_is_away_loses_nothing_until_the_room_is_used_up(tmp_path: Path) -> None:
    """Then the newest are dropped, and counted; what was kept comes when it is back."""
    away, brought = True, list[Captured]()

    def database(rows: list[Captured]) -> None:
        if away:
            raise ConnectionError
        brought.extend(rows)

    made = Capture(tmp_path / "captures", Terms(file_bytes=2000), database, lambda: 0.5)
    for number in range(40):
        made.take(facts(number), X, Y)
        await asyncio.sleep(0)
    await made.ship()
    assert made.kept + made.dropped == 40
    assert made.dropped > 0
    away = False
    await made.ship()
    assert [one.id for one in brought] == [facts(number).id for number in range(made.kept)]
    made.take(facts(99), X, Y)
    await made.close()
    assert brought[-1].id == "req_0099"


async def test_what_is_too_large_is_kept_without_its_values(tmp_path: Path) -> None:
    """The facts still count."""
    made = Capture(tmp_path / "captures", Terms(call_bytes=1000), lambda _: None, lambda: 0.5)
    made.take(facts(1), {"x": np.zeros(5000)}, Y)
    await asyncio.sleep(0)
    (file,) = (tmp_path / "captures").iterdir()
    (one,) = read(file)
    assert (one.inputs, one.outputs, made.cut) == (None, None, 1)
    await made.close()


def test_the_table_is_bounded_by_age_and_by_rows(engine: Engine) -> None:
    """The oldest go first."""
    writing = partial(appending, engine)
    store(writing, [facts(number) for number in range(10)])
    assert forget(writing, 1003.0, 5) == 5
    with reading(engine) as tx:
        assert [row["id"] for row in between(tx, 0, 2000, "m")] == [f"req_{number:04}" for number in range(5, 10)]


def test_captures_are_exported_as_parquet_by_day(engine: Engine, tmp_path: Path) -> None:
    """Of a span and a model; values as JSON, since models differ."""
    rows = [
        facts(number)._replace(at=86_400.0 * number + 5, inputs=b'{"x":[1.0]}', outputs=b'{"y":[2.0]}')
        for number in range(4)
    ]
    store(partial(appending, engine), [*rows, facts(9, "other")])
    with reading(engine) as tx:
        paths = write_days(tx, tmp_path / "out", 86_400.0, 3 * 86_400.0, "m")
    assert [path.name for path in paths] == ["predictions-1970-01-02.parquet", "predictions-1970-01-03.parquet"]
    (row,) = pq.read_table(paths[0]).to_pylist()
    assert (row["id"], row["version"], row["inputs"], row["cost_nanousd"]) == ("req_0001", 1, '{"x":[1.0]}', 7)
    assert row["at"].isoformat() == "1970-01-02T00:00:05+00:00"


def test_a_captures_facts_come_first() -> None:
    """`take` replaces what stands behind them."""
    assert Captured._fields.index("inputs") == capture.FACTS
