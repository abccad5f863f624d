"""Ray Data itself: a table scored by its actors comes out as from one process, byte for byte, also when that is killed in between."""

import csv
import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.scoring import Desk, chunks, until
from tests.fixtures.server import ROOT

PYTHON = ROOT / ".tools" / "ray" / "bin" / "python"

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not PYTHON.exists(), reason="Ray is not installed: make test-integrations"),
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.register(2.0)
    yield made
    made.close()


def table(path: Path, rows: int) -> None:
    """Some rows are none that the model takes, and some keys come twice: within a block, and far apart."""
    chance = random.Random(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "a", "b", "c"))
        for number in range(rows):
            key = {501: 500, rows - 5: 7}.get(number, number)
            values = [round(chance.uniform(-5, 5), 3) for _ in range(3)]
            writer.writerow((f"k{key}", *("none" if number % 400 == 9 else value for value in values)))


def on_ray(desk: Desk, *arguments: str) -> subprocess.Popen[str]:
    command = [str(PYTHON), "-m", "admin", "models", "score", *arguments, "--on", "ray"]
    where = ["--config", str(desk.config), "--data-dir", str(desk.data)]
    return subprocess.Popen([*command, *where], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


def test_ray_gives_what_one_process_gives(desk: Desk, tmp_path: Path) -> None:
    """Killed once in the middle, the same command goes on; each row is there once, and the refused ones are the same."""
    source, calm, spread = tmp_path / "rows.csv", tmp_path / "calm.csv", tmp_path / "spread.csv"
    table(source, 3000)
    words = ("sums", str(source), "--key", "id", "--chunk-rows", "5")
    told = desk.score(*words, "--output", str(calm))
    assert told.returncode == 0, told.stderr

    with on_ray(desk, *words, "--output", str(spread)) as first:
        until(lambda: any(chunks(desk.data, one.name) > 3 for one in (desk.data / "scoring").glob("score_*")), 300)
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert not spread.exists()
    with on_ray(desk, *words, "--output", str(spread)) as second:
        _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err

    assert spread.read_bytes() == calm.read_bytes()
    refused = [Path(f"{path}.refused.jsonl").read_text() for path in (calm, spread)]
    assert refused[0] == refused[1]
    codes = [json.loads(line)["code"] for line in refused[0].splitlines()]
    assert (codes.count("duplicate_key"), len(codes)) == (2, 10)
