"""Where a batch is worked on: what is written stays, what is torn goes, and an owner that slept adds nothing."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batches.results import Done, Usage, answered, result_id, unanswered
from gateway.batches.worksheet import ERRORS, OUTPUT, Claim, Worksheet, abandoned, newest
from gateway.files.shelf import Shelf, StorageFailed

BODY = b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def result(number: int, *, ok: bool = True) -> tuple[Done, bytes]:
    id_ = result_id("batch_01", number)
    if ok:
        return Done(number, ok=True, usage=Usage(3, 0, 2, 0)), answered(id_, f"c{number}", 200, "req_1", BODY)
    return Done(number, ok=False, usage=Usage()), unanswered(id_, f"c{number}", "x", "y")


def opened(folder: Path, epoch: int, numbers: int = 50) -> Worksheet:
    folder.mkdir(exist_ok=True)
    return Worksheet.open(folder, epoch, numbers)


@given(
    appended=st.lists(st.tuples(st.integers(1, 50), st.booleans()), unique_by=lambda each: each[0]),
    torn=st.binary(max_size=40).filter(lambda data: b"\n" not in data),
)
def test_the_next_owner_finds_every_result_and_no_half_one(
    tmp_path_factory: pytest.TempPathFactory, appended: list[tuple[int, bool]], torn: bytes
) -> None:
    """Whatever was in the middle of being written when the one before died."""
    folder = tmp_path_factory.mktemp("sheet")
    first = opened(folder, 1)
    for number, ok in appended:
        first.append(*result(number, ok=ok))
    first.close()
    left = newest(folder)
    assert left is not None
    for name in (OUTPUT, ERRORS):
        with (left / name).open("ab") as file:
            file.write(torn)
    second = opened(folder, 2)
    assert {number for number, done in enumerate(second.done) if done} == {number for number, _ in appended}
    completed = sum(ok for _, ok in appended)
    assert (second.counts.completed, second.counts.failed) == (completed, len(appended) - completed)
    assert second.counts.usage == Usage(3 * completed, 0, 2 * completed, 0)
    for name in (OUTPUT, ERRORS):
        assert second.size(name) == (second.folder / name).stat().st_size
        assert (second.folder / name).read_bytes()[-1:] in (b"", b"\n")
    second.close()


def test_an_owner_that_slept_adds_nothing(tmp_path: Path) -> None:
    """It writes where nobody looks any more."""
    first = opened(tmp_path / "b", 1)
    first.append(*result(1))
    second = opened(tmp_path / "b", 2)
    first.append(*result(2))
    second.append(*result(3))
    first.close()
    second.close()
    third = opened(tmp_path / "b", 3)
    assert [number for number, done in enumerate(third.done) if done] == [1, 3]
    third.close()


def test_a_takeover_that_died_is_done_again(tmp_path: Path) -> None:
    """A copy that is not whole has no name yet."""
    first = opened(tmp_path / "b", 1)
    first.append(*result(1))
    first.close()
    (tmp_path / "b" / "epoch-2.new").mkdir()
    (tmp_path / "b" / "epoch-2.new" / OUTPUT).write_bytes(b"half of")
    third = opened(tmp_path / "b", 3)
    assert third.done[1]
    assert [path.name for path in (tmp_path / "b").glob("epoch-*")] == ["epoch-3"]
    third.close()


def test_beginnings_are_counted_over_owners(tmp_path: Path) -> None:
    """So that a line which ends every server that serves it is not tried for ever."""
    for epoch in range(1, 5):
        sheet = opened(tmp_path / "b", epoch)
        assert sheet.begin(7) == epoch - 1
        sheet.close()
    last = opened(tmp_path / "b", 5)
    assert (last.begin(6), last.begin(8), last.begin(7)) == (0, 0, 4)
    last.close()


def test_a_claim_is_one_process_s(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path / "b", 1)
    assert claim is not None
    assert Claim.take(tmp_path / "b", 1) is None
    assert not abandoned(tmp_path / "b", 1)
    claim.let_go()
    assert abandoned(tmp_path / "b", 1)


def test_a_full_disk_keeps_no_half_result(tmp_path: Path) -> None:
    """The line is not done, what was done stays, and with room again it can be."""
    sheet = opened(tmp_path / "b", 1)
    sheet.append(*result(1))
    size = sheet.size(OUTPUT)
    with full_at(size + 20), pytest.raises(OSError, match=r"(large|space)"):
        sheet.append(*result(2))
    assert sheet.size(OUTPUT) == size
    assert not sheet.done[2]
    sheet.append(*result(2))
    sheet.close()
    again = opened(tmp_path / "b", 2)
    assert again.done[1]
    assert again.done[2]
    again.close()


def test_a_full_disk_keeps_no_half_file(tmp_path: Path) -> None:
    """The client is told what is wrong, that a retry is no use, and nothing is left over."""
    shelf = Shelf(tmp_path / "files")
    shelf.prepare()
    with full_at(4096), pytest.raises(StorageFailed) as failed:
        put(shelf, b"x" * 4096, b"x")
    assert (failed.value.status, failed.value.code) == (503, "storage_full")
    assert ("x-should-retry", "false") in failed.value.headers
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []
    put(shelf, b"whole")
    assert shelf.path("files", "file-1").read_bytes() == b"whole"


def put(shelf: Shelf, *pieces: bytes) -> None:
    with shelf.incoming("file-1") as incoming:
        for piece in pieces:
            incoming.write(piece)
        incoming.keep("files")


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond: the system's own refusal, as a full disk's is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
