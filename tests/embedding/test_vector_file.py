"""Vectors on the disk: bounded, shared by processes, and never a reason to fail, whatever happens to the file."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedding.vector_file import USED_EVERY_S, VectorFile

ROOT = Path(__file__).parents[2]
MEBI = 1024 * 1024


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def value(number: int) -> bytes:
    return number.to_bytes(4, "big") * 400


def entries(*numbers: int) -> dict[bytes, bytes]:
    return {key(number): value(number) for number in numbers}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Open = Callable[..., VectorFile]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the file of the test, as another process would."""
    made: list[VectorFile] = []

    def open_(max_bytes: int = 64 * MEBI) -> VectorFile:
        made.append(VectorFile(tmp_path / "vectors", max_bytes, clock, away_s=0.0))
        return made[-1]

    yield open_
    for each in made:
        each.close()


def path_of(folder: Path) -> Path:
    (path,) = (folder / "vectors").glob("*.sqlite")
    return path


def test_what_was_put_is_there_for_everybody_who_opens_it(opened: Open, tmp_path: Path) -> None:
    """Thousands in one look, whole, and readable by nobody else."""
    first, second = opened(), opened()
    many = entries(*range(1500))
    first.put(many)
    assert second.get([*many, key(5000)]) == many
    assert second.get([key(5000)]) == {}
    second.put({key(7): value(8)})
    assert first.get([key(7)]) == {key(7): value(8)}
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "vectors").iterdir()} == {0}


def test_keys_that_begin_alike_are_told_apart(opened: Open) -> None:
    """The later one is there."""
    file = opened()
    one, other = bytes(8) + bytes(24), bytes(8) + bytes(23) + b"x"
    file.put({one: b"one"})
    assert file.get([other]) == {}
    file.put({other: b"other"})
    assert file.get([one]) == {}
    assert file.get([other]) == {other: b"other"}


def test_the_file_is_no_larger_than_it_may_be_and_keeps_what_was_used_last(
    opened: Open, clock: Clock, tmp_path: Path
) -> None:
    """Eviction is by use, not by age, and a smaller bound takes back its room."""
    file = opened(MEBI)
    file.put(entries(*range(100)))
    for start in range(100, 2000, 100):
        clock.now += 2 * USED_EVERY_S
        assert len(file.get([key(number) for number in range(10)])) == 10
        file.put(entries(*range(start, start + 100)))
        assert path_of(tmp_path).stat().st_size <= MEBI + 100 * 4096
    assert len(file.get([key(number) for number in range(10)])) == 10
    assert len(file.get([key(number) for number in range(10, 100)])) == 0
    assert len(file.get([key(number) for number in range(1900, 2000)])) == 100
    file.close()
    smaller = opened(MEBI // 4)
    smaller.put(entries(3000))
    smaller.close()  # the log goes into the file
    assert path_of(tmp_path).stat().st_size <= MEBI // 4 + 65_536
    assert opened().get([key(3000)]) == entries(3000)


def overwritten(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        for _ in range(8):
            file.seek(chance.randrange(path.stat().st_size))
            file.write(chance.randbytes(4096))


@pytest.mark.parametrize("damage", ["no database", "empty", *range(12)])
def test_a_damaged_file_is_replaced(damage: str | int, opened: Open, tmp_path: Path) -> None:
    """Nothing is raised, and after some tries it takes and gives again; those who have the old one open come along."""
    first, second = opened(), opened()
    first.put(entries(*range(500)))
    assert len(second.get([key(3)])) == 1
    if damage in {"no database", "empty"}:
        first.close()
        second.close()
    path = path_of(tmp_path)
    match damage:
        case "no database":
            path.write_bytes(b"this is no database at all" * 1000)
        case "empty":
            path.write_bytes(b"")
        case seed:
            emptied_log(path)
            overwritten(path, random.Random(seed))
    for file in (first, second, opened()):
        file.get([key(number) for number in range(500)])
        file.put(entries(*range(1000, 1600)))
        file.get([key(number) for number in range(500)])
    for file in (first, second, opened()):
        for _ in range(3):
            file.put(entries(1, 2))
        assert file.get([key(1), key(2)]).keys() == entries(1, 2).keys()


def emptied_log(path: Path) -> None:
    """What stands in the log stands in the file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def test_a_file_that_cannot_be_written_is_read(opened: Open, tmp_path: Path) -> None:
    """What is there is given, what is new is dropped."""
    file = opened()
    file.put(entries(1))
    file.close()
    path = path_of(tmp_path)
    with path.open("r+b") as raw:
        raw.seek(18)
        raw.write(b"\x03")  # "file format write version": one that is not known may only be read
    file = opened()
    file.put(entries(2))
    assert set(file.get([key(1), key(2)])) <= {key(1)}
    assert path_of(tmp_path) == path


def test_without_a_folder_there_is_nothing(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "vectors").write_bytes(b"a file")
    file = VectorFile(tmp_path / "vectors", MEBI, clock, away_s=0.0)
    file.put(entries(1))
    assert file.get([key(1)]) == {}
    file.close()


def test_a_locked_file_is_not_waited_for(opened: Open, tmp_path: Path) -> None:
    """Whoever reads embeds instead, and is given what is there when the lock is gone."""
    file = opened()
    file.put(entries(1))
    file.close()
    locking = sqlite3.connect(path_of(tmp_path), isolation_level=None)
    locking.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    locking.execute("BEGIN EXCLUSIVE")
    file = opened()
    assert file.get([key(1)]) == {}
    locking.execute("ROLLBACK")
    locking.close()
    assert file.get([key(1)]) == entries(1)


FULL = """
import resource, signal, sys
from pathlib import Path
from embedding.vector_file import VectorFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = VectorFile(Path(sys.argv[1]), 1 << 30, lambda: 1_000_000.0, away_s=0.0)
put = lambda number: file.put({number.to_bytes(32, "little"): bytes(1600) for number in range(number, number + 100)})
put(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
for number in range(100, 2000, 100):
    put(number)
assert len(file.get([number.to_bytes(32, "little") for number in range(100)])) == 100
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(5000)
assert len(file.get([number.to_bytes(32, "little") for number in range(5000, 5100)])) == 100
file.close()
"""


def test_a_full_disk_drops_what_is_new(tmp_path: Path) -> None:
    """What is there is given, and when there is room again what is new is kept."""
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "vectors")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


WRITER = """
import random, sys
from pathlib import Path
from embedding.vector_file import VectorFile
file = VectorFile(Path(sys.argv[1]), 1 << 30, lambda: 1_000_000.0, away_s=0.0)
for start in range(0, 1_000_000, 20):
    numbers = range(start, start + 20)
    file.put({random.Random(n).randbytes(32): n.to_bytes(4, "big") * 400 for n in numbers})
    print(start + 20, flush=True)
"""


def test_two_processes_write_and_one_is_killed(opened: Open, tmp_path: Path) -> None:
    """What was written before `kill -9` is there, whole; and what another process wrote meanwhile."""
    file = opened()
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "vectors")], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        mine = range(10_000_000 + 1000 * round_, 10_000_000 + 1000 * round_ + 200)
        for number in mine:
            file.put(entries(number))
        written = 0
        while written < 400:
            written = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        written = max([written, *(int(line) for line in writer.stdout.read().splitlines() if line.endswith("0"))])
        writer.wait()
        writer.stdout.close()
        for reader in (file, opened()):
            found = reader.get([key(number) for number in (*range(400), *mine)])
            assert found == entries(*range(400), *mine)
