"""A job that is killed again and again ends with the output of one that was left alone."""

import csv
import random
import signal
import time
from pathlib import Path

import pytest

from inference.scoring import job_store
from inference.scoring.job import Job
from tests.fixtures.scoring import Desk, chunks, until

CHUNK = ("--chunk-rows", "3")  # many checkpoints for few rows


def table(path: Path, rows: int) -> None:
    """Every 500th row is none that the model takes, and the key of row 1000 comes twice."""
    chance = random.Random(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "a", "b", "c", "label"))
        for number in range(rows):
            values = [round(chance.uniform(-5, 5), 3) for _ in range(3)]
            broken = number % 500 == 7
            key = 1000 if number == 1500 else number
            writer.writerow((f"k{key}", *("none" if broken else value for value in values), "x"))


def newest(desk: Desk) -> Job | None:
    with desk.engine.connect() as tx:
        found = job_store.listed(tx, 1)
    return found[0] if found else None


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("kills", "rows", "most_s", "suffix"),
    [
        (3, 1800, 0.05, "csv"),
        pytest.param(10, 6000, 0.1, "parquet", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)
def test_a_killed_job_ends_with_the_same_bytes(
    tmp_path: Path, kills: int, rows: int, most_s: float, suffix: str
) -> None:
    """By SIGKILL and SIGTERM in turns, at random moments, while the alias moves to another version."""
    desk = Desk(tmp_path)
    desk.register(2.0)
    desk.register(3.0)
    source = tmp_path / "rows.csv"
    table(source, rows)
    calm, rough = tmp_path / f"calm.{suffix}", tmp_path / f"rough.{suffix}"
    told = desk.score("sums", str(source), "--output", str(calm), "--key", "id", *CHUNK)
    assert told.returncode == 0, told.stderr
    first = newest(desk)
    assert first is not None
    assert (first.state, first.count.done, first.count.refused) == ("completed", rows, -(-(rows - 7) // 500) + 1)
    chance, done, job = random.Random(kills), 0, first
    for number in range(kills):
        process = desk.start("sums", str(source), "--output", str(rough), "--key", "id", *CHUNK)
        job = until(lambda: (found := newest(desk)) and found.id != first.id and found)
        until(lambda job=job, done=done: chunks(desk.data, job.id) > done)  # type: ignore[misc]
        time.sleep(chance.uniform(0, most_s))
        sent = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
        process.send_signal(sent)
        _, err = process.communicate(timeout=100)
        assert process.returncode == (-sent if sent is signal.SIGKILL else 128 + sent), err
        done = chunks(desk.data, job.id)
        assert not rough.exists()
        desk.point(2)
    told = desk.score("sums", str(source), "--output", str(rough), "--key", "id", *CHUNK)
    assert told.returncode == 0, told.stderr
    assert rough.read_bytes() == calm.read_bytes()
    assert Path(f"{rough}.refused.jsonl").read_bytes() == Path(f"{calm}.refused.jsonl").read_bytes()
    last = newest(desk)
    assert last is not None
    assert (last.id, last.version, last.count) == (job.id, 1, first.count)
    assert sorted(each.name for each in (desk.data / "scoring").iterdir()) == ["files", "home"]
    desk.close()
