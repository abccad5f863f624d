"""What comes out of a table: every row once, in order, by its key, or in the file of those that were refused."""

import csv
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from admin.scoring.home import Home
from admin.scoring.order import Order, worker
from gateway.database import appending, connect
from gateway.ids import new_id
from inference.scoring import job_store
from inference.scoring.job import Count, Format, Job, Place, Spec
from inference.scoring.sources import Query, reading_engine
from inference.scoring.worksheet import Position
from tests.fixtures.scoring import FEATURES, Desk

RNG = np.random.default_rng(3)
ROWS = RNG.uniform(-4, 4, (25, 3)).astype(np.float32)
SUMS = 2 * (ROWS[:, 0] + 2 * ROWS[:, 1] - ROWS[:, 2])
TOTALS = ROWS.sum(axis=1)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("tables"))
    made.register(2.0)
    yield made
    made.close()


class Asked:
    """A job in the making: `run` is what a process does with it."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk, self.folder = desk, folder
        self.warehouse = folder / "warehouse.db"
        self.home = Home(desk.data)
        self.stopping = threading.Event()
        self.databases = {"warehouse": f"sqlite:///{self.warehouse}"}

    def job(self, source: Place, target: Place, **more: Any) -> Job:
        spec = Spec(source, target, str(self.folder / "refused.jsonl"), **{"chunk_rows": 10, **more})
        with appending(self.desk.engine) as tx:
            return job_store.add(tx, new_id("score"), self.home.id(), "sums", 1, spec, "test")

    def run(self, job: Job, told: Callable[[Count], None] = lambda _: None) -> Job:
        order = Order(
            database=f"sqlite:///{self.desk.data / 'penstock.db'}",
            registry=str(self.desk.data / "registry"),
            folder=str(self.home.folder),
            databases=self.databases,
            timeout_s=30,
        )
        with worker(order, self.stopping, told) as work:
            work.run(job.id)
        return self.found(job)

    def found(self, job: Job) -> Job:
        with appending(self.desk.engine) as tx:
            return job_store.find(tx, job.id)

    def refused(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "refused.jsonl").read_text().splitlines()]

    def file(self, name: str, format_: Format = "csv") -> Place:
        return Place(format_, path=str(self.folder / name))

    def write(self, name: str, text: str) -> Place:
        (self.folder / name).write_text(text)
        return self.file(name)


@pytest.fixture
def asked(desk: Desk, tmp_path: Path) -> Asked:
    return Asked(desk, tmp_path)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_parquet_in_and_out_has_the_models_numbers(asked: Asked, tmp_path: Path) -> None:
    """Other columns are left alone; row groups need not be chunks."""
    columns = {name: ROWS[:, index] for index, name in enumerate(FEATURES)}
    table = pa.table({"note": ["x"] * 25, **columns, "id": list(range(100, 125))})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    job = asked.run(asked.job(asked.file("in.parquet", "parquet"), asked.file("out.parquet", "parquet"), key="id"))
    assert (job.state, job.count.total, job.count.done, job.count.refused) == ("completed", 25, 25, 0)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.names == ["id", "sum", "scaled_0", "scaled_1"]
    assert found.schema.field("sum").type == pa.float32()
    assert found["id"].to_pylist() == list(range(100, 125))
    np.testing.assert_allclose(found["sum"].to_numpy(), SUMS, rtol=1e-5)
    np.testing.assert_allclose(found["scaled_1"].to_numpy(), 2 * TOTALS, rtol=1e-4, atol=1e-5)
    assert asked.refused() == []


def test_refused_rows_have_a_key_and_a_reason_and_stop_nobody(asked: Asked, tmp_path: Path) -> None:
    rows = [f"k{number},{number},1,1" for number in range(20)]
    rows[3] = "k3,many,1,1"
    rows[5] = "k5,1,,1"
    rows[11] = "k11,1,1"
    rows[12] = ",1,1,1"
    rows[15] = "k2,1,1,1"
    source = asked.write("in.csv", "\n".join(["id,a,b,c", *rows]))
    job = asked.run(asked.job(source, asked.file("out.csv"), key="id", max_refused=0.25))
    assert (job.state, job.count.refused) == ("completed", 5)
    assert [(each["row"], each["key"], each["code"], each["feature"]) for each in asked.refused()] == [
        (4, "k3", "invalid_type", "a"),
        (6, "k5", "null_not_allowed", "b"),
        (12, None, "invalid_shape", None),
        (13, None, "missing_key", None),
        (16, "k2", "duplicate_key", None),
    ]
    found = {row["id"]: float(row["sum"]) for row in lines(tmp_path / "out.csv")}
    assert found == {f"k{number}": 2.0 * (number + 1) for number in range(20) if number not in {3, 5, 11, 12, 15}}


def test_more_refusals_than_were_declared_fail_the_job_and_are_listed(asked: Asked, tmp_path: Path) -> None:
    source = asked.write("in.csv", "a,b,c\n" + "1,1,1\n" * 8 + "x,1,1\n" * 2)
    job = asked.run(asked.job(source, asked.file("out.csv"), max_refused=0.1))
    assert (job.state, job.code) == ("failed", "too_many_refused")
    assert [each["key"] for each in asked.refused()] == [9, 10]
    assert not (tmp_path / "out.csv").exists()
    assert not (asked.home.folder / job.id).exists()


@pytest.mark.parametrize(
    ("content", "more", "code"),
    [
        ("a,b\n1,2\n", {}, "missing_feature"),
        ("a,b,c\n1,2,3\n", {"key": "id"}, "missing_key"),
        ("", {}, "input_invalid"),
        ("a,a,b,c\n1,1,1,1\n", {}, "input_invalid"),
        ('a,b,c\n"1"x,2,3\n', {}, "input_invalid"),
        ("a,b,c\n1,2,3\n", {"features": ("a",)}, "invalid_features"),
    ],
)
def test_a_table_that_cannot_be_scored_fails_at_once(
    asked: Asked, content: str, more: dict[str, Any], code: str
) -> None:
    job = asked.run(asked.job(asked.write("in.csv", content), asked.file("out.csv"), **more))
    assert (job.state, job.code) == ("failed", code), job.message
    assert not (asked.folder / "out.csv").exists()


def test_an_empty_table_has_an_empty_answer(asked: Asked, tmp_path: Path) -> None:
    job = asked.run(asked.job(asked.write("in.csv", "a,b,c\n"), asked.file("out.csv")))
    assert (job.state, (tmp_path / "out.csv").read_text()) == ("completed", "row,sum,scaled_0,scaled_1\n")


def test_an_input_that_changes_meanwhile_is_noticed(asked: Asked) -> None:
    asked.stopping.set()
    job = asked.run(asked.job(asked.write("in.csv", "a,b,c\n" + "1,1,1\n" * 30), asked.file("out.csv")))
    assert job.state == "queued"
    asked.write("in.csv", "a,b,c\n" + "2,2,2\n" * 40)
    asked.stopping.clear()
    job = asked.run(job)
    assert (job.state, job.code) == ("failed", "input_changed")


def test_a_job_that_was_cancelled_leaves_no_output(asked: Asked, tmp_path: Path) -> None:
    job = asked.job(asked.write("in.csv", "a,b,c\n1,1,1\n"), asked.file("out.csv"))
    with appending(asked.desk.engine) as tx:
        job_store.cancel(tx, job.id)
    assert asked.run(job).state == "cancelled"
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture
def warehouse(asked: Asked) -> Path:
    with closing(sqlite3.connect(asked.warehouse)) as db, db:
        db.execute("CREATE TABLE loans (id INTEGER, a REAL, b REAL, c REAL, day TEXT)")
        rows = [(number, *map(float, ROWS[number]), "12:30") for number in range(25)]
        db.executemany("INSERT INTO loans VALUES (?, ?, ?, ?, ?)", rows[::-1])
    return asked.warehouse


def test_a_query_in_and_a_table_out_each_row_once(asked: Asked, warehouse: Path) -> None:
    """Of each job; what another wrote there stays."""
    source = Place("sql", database="warehouse", query="SELECT id, a, b, c FROM loans WHERE day = '12:30';")
    target = Place("sql", database="warehouse", table="scores")
    asked.run(asked.job(source, target, key="id"))
    job = asked.run(asked.job(source, target, key="id"))
    assert job.state == "completed", job.message
    with closing(sqlite3.connect(warehouse)) as db:
        found = db.execute("SELECT id, sum FROM scores WHERE scoring_job = ? ORDER BY id", (job.id,)).fetchall()
        assert db.execute("SELECT count(*) FROM scores").fetchone() == (50,)
    assert [row[0] for row in found] == list(range(25))
    np.testing.assert_allclose([row[1] for row in found], SUMS, rtol=1e-5)


def test_a_query_goes_on_behind_any_row_also_among_equal_keys(warehouse: Path) -> None:
    with closing(sqlite3.connect(warehouse)) as db, db:
        db.execute("UPDATE loans SET id = 7 WHERE id IN (8, 9)")
    query = Query(f"sqlite:///{warehouse}", "SELECT id FROM loans", "id")
    every = [row.values[0] for row in query.rows(Position())]
    assert every == sorted(every)
    last, ties = None, 0
    for behind, key in enumerate(every, 1):
        last, ties = key, ties + 1 if key == last else 1
        after = Position(rows=behind, last=last, ties=ties)
        assert [row.values[0] for row in query.rows(after)] == every[behind:]


def test_postgresql_is_read_and_written_across_an_interruption(
    asked: Asked, new_postgres: Callable[[str], str]
) -> None:
    """With its own types, keys in its own order, and a transaction that cannot write; the rows of a job that was stopped come once."""
    url = new_postgres("template1")
    asked.databases["postgres"] = url
    engine = connect(url)
    with engine.begin() as tx:
        tx.execute(text("CREATE TABLE loans (id TEXT, a NUMERIC(12, 6), b DOUBLE PRECISION, c REAL, day DATE)"))
        rows = [
            {"id": f"Zeile-{number % 5}-{number:03}", "a": round(float(a), 6), "b": float(b), "c": float(c)}
            for number, (a, b, c) in enumerate(ROWS)
        ]
        tx.execute(text("INSERT INTO loans VALUES (:id, :a, :b, :c, '2026-01-02')"), rows[::-1])
    source = Place("sql", database="postgres", query="SELECT id, a, b, c FROM loans WHERE day = '2026-01-02'")
    target = Place("sql", database="postgres", table="scores")
    job = asked.job(source, target, key="id", chunk_rows=4)

    def interrupted(count: Count) -> None:
        if count.done >= 8:
            asked.stopping.set()

    stopped = asked.run(job, interrupted)
    assert (stopped.state, stopped.count.done) == ("queued", 8)
    asked.stopping.clear()
    done = asked.run(job)
    assert (done.state, done.count.done, done.count.refused) == ("completed", 25, 0), done.message
    with engine.begin() as tx:
        found = tx.execute(text("SELECT id, sum FROM scores WHERE scoring_job = :job"), {"job": job.id}).all()
    assert sorted(row.id for row in found) == sorted(str(row["id"]) for row in rows)
    sums = {row["id"]: total for row, total in zip(rows, SUMS, strict=True)}
    np.testing.assert_allclose([row.sum for row in found], [sums[row.id] for row in found], rtol=1e-4, atol=1e-5)
    writes = Place("sql", database="postgres", query="WITH x AS (DELETE FROM loans RETURNING *) SELECT * FROM x")
    refused = asked.run(asked.job(writes, asked.file("out.csv"), key="id"))
    assert (refused.state, refused.code) == ("failed", "input_unreadable")
    with engine.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM loans")).scalar_one() == 25
    engine.dispose()


@pytest.mark.parametrize("query", ["DELETE FROM loans", "WITH x AS (SELECT 1) DELETE FROM loans"])
def test_a_query_cannot_write(asked: Asked, warehouse: Path, query: str) -> None:
    source = Place("sql", database="warehouse", query=query)
    job = asked.run(asked.job(source, asked.file("out.csv"), key="id"))
    assert (job.state, job.code) == ("failed", "input_unreadable")
    engine = reading_engine(f"sqlite:///{warehouse}")
    with engine.connect() as tx, pytest.raises(Exception, match="readonly"):
        tx.exec_driver_sql("DELETE FROM loans")
    engine.dispose()


def test_the_command_says_what_is_wrong_with_its_words(desk: Desk, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b,c\n1,2,3\n")
    score = partial(desk.score, "nobody", str(source))
    assert "nobody" in score("--output", str(tmp_path / "out.csv")).stderr
    assert "three files" in score("--output", str(source)).stderr
