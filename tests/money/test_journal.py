"""The journal: what append() returned for is there, whenever the process ends and whatever the disk does."""

import os
import random
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Raw, msgpack

from gateway.journal import Journal, JournalFull
from gateway.journal_files import Reader, Run, Session, abandoned, add_segment, segment_path, segments
from gateway.journal_records import Began, Closed, Ended, Opened, Party, Record, Settled
from tests.fixtures.ledger import BEGAN, SMALL, intent, settled, small_journal

RECORD: msgpack.Decoder[Record] = msgpack.Decoder(Record)


def everything(directory: Path, at_once: int = 50) -> list[Record]:
    reader = Reader(directory)
    found: list[Record] = []
    while (run := reader.read(at_once)).payloads:
        assert (run.first, run.end) == (len(found), len(found) + len(run.payloads))
        found += records(run)
    reader.close()
    return found


def records(run: Run) -> list[Record]:
    return [RECORD.decode(payload) for payload in run.payloads]


def end(journal: Journal) -> None:
    journal.close(BEGAN)
    journal.release(remove=False)


def fill(journal: Journal, make: Callable[[int], Record]) -> int:
    """Appends until the journal is full; says how many records went in."""
    for n in range(100_000):
        try:
            journal.append(make(n))
        except JournalFull:
            return n
    raise AssertionError("the journal is never full")


def wait_for_room(journal: Journal) -> None:
    """Until the second thread has the next segment ready."""
    deadline = time.monotonic() + 10
    while journal._spare is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_a_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and says how that ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_records_come_back_in_order_over_many_segments(tmp_path: Path) -> None:
    """What goes in comes out, once, from the first to the last."""
    journal = small_journal(tmp_path)
    calls: list[Record] = [record for n in range(500) for record in (intent(n), settled(n))]
    for record in calls:
        journal.append(record)
    assert journal.appended == 1001
    end(journal)
    assert len(segments(journal.directory)) > 3
    assert everything(journal.directory) == [Opened("ses_a", BEGAN), *calls, Closed(BEGAN)]


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    """The shipper reads while requests append: it sees each record as soon as it is there, and none early."""
    journal = small_journal(tmp_path)
    reader = Reader(journal.directory)
    seen = records(reader.read(10))
    for n in range(700):
        journal.append(settled(n))
        if n % 7 == 0:
            seen += records(reader.read(100))
            assert seen[-1] == settled(n)
    seen += records(reader.read(100))
    assert seen[1:] == [settled(n) for n in range(700)]
    reader.close()
    end(journal)


@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, kills: int) -> None:
    """A child appends as fast as it can and reports what append() returned for; it is killed at random moments."""
    chance = random.Random(9)
    calls = [settled(n) for n in range(1000)]
    for attempt in range(kills):
        session = f"ses_{attempt:04d}"
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                journal = small_journal(tmp_path, session)
                for n in range(1_000_000):
                    journal.append(calls[n % 1000])
                    os.write(into, struct.pack("<I", n + 1))
            finally:
                os._exit(1)
        os.close(into)
        acknowledged = os.read(out, 4)  # the first append has returned: from now on any moment will do
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while piece := os.read(out, 1 << 16):
            acknowledged += piece
        os.close(out)
        count = len(acknowledged) // 4
        found = everything(tmp_path / "journal" / session)[1:]
        assert count <= len(found) <= count + 1, "an append that had not returned yet may be there, no other"
        assert all(record == calls[n % 1000] for n, record in enumerate(found))
    assert [session.id for session in abandoned(tmp_path)] == [f"ses_{n:04d}" for n in range(kills)]


def test_a_frame_that_was_cut_anywhere_ends_the_journal_there(tmp_path: Path) -> None:
    """kill -9 in the middle of the copy: every prefix of the last frame leaves the records before it, and only those."""
    journal = small_journal(tmp_path)
    journal.append(settled(1))
    begin = journal._offset
    journal.append(settled(2))
    finish = journal._offset
    end(journal)
    (path,) = segments(journal.directory)
    whole = path.read_bytes()
    for cut in range(begin, finish):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert everything(journal.directory)[1:] == [settled(1)], cut


def test_a_bit_that_fell_over_ends_the_journal_there(tmp_path: Path) -> None:
    """What a bad disk or a lost page leaves behind is never taken for a record."""
    journal = small_journal(tmp_path)
    for n in range(3):
        journal.append(settled(n))
    size = journal._offset
    end(journal)
    (path,) = segments(journal.directory)
    whole = path.read_bytes()
    chance = random.Random(1)
    before = everything(journal.directory)
    for _ in range(300):
        place = chance.randrange(size)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        found = everything(journal.directory)
        assert found == before[: len(found)]
        assert len(found) < len(before)


def test_a_page_that_power_took_hides_what_came_after_it(tmp_path: Path) -> None:
    """Pages reach the disk in any order. Records behind a lost one are not read, nor is the segment after it, even when
    records are put in the place of what was lost."""
    journal = small_journal(tmp_path)
    while len(segments(journal.directory)) < 3 or journal._current.index < 2:
        journal.append(settled(journal.appended))
    journal.append(settled(0))
    end(journal)
    first, *_ = segments(journal.directory)
    content = bytearray(first.read_bytes())
    content[8192:12288] = bytes(4096)
    first.write_bytes(content)
    reader = Reader(journal.directory)
    found = records(reader.read(10_000))
    assert 0 < len(found) < journal.appended
    add_segment(journal.directory, reader.segment, reader.number, [Closed(BEGAN)])
    reader.close()
    assert everything(journal.directory) == [*found, Closed(BEGAN)]


def test_a_full_journal_refuses_new_calls_and_still_settles_old_ones(tmp_path: Path) -> None:
    """At its bound an Intent is refused, a quarter of a segment is left for settlements, and room that is made is used."""
    journal = small_journal(tmp_path, max_bytes=2 * SMALL)
    opened = fill(journal, intent)
    room = journal.appended
    fitting = fill(journal, settled)
    assert fitting * 400 > SMALL // 5
    assert journal.appended == room + fitting
    assert everything(journal.directory)[1:] == [*map(intent, range(opened)), *map(settled, range(fitting))]
    segments(journal.directory)[0].unlink()
    journal.segment_released()
    wait_for_room(journal)
    journal.append(intent(opened))
    end(journal)


def test_the_short_form_of_a_beginning_takes_no_room_of_settlements_either(tmp_path: Path) -> None:
    """It is what every call begins with: were it let in, calls that are under way would lose their ends."""
    journal = small_journal(tmp_path, max_bytes=SMALL)
    party = Raw(msgpack.encode(Party("chat", "key_1")))
    opened = fill(journal, lambda n: Began(f"req_{n:024x}", BEGAN, party, 10, 1, 1))
    fitting = fill(journal, lambda n: Ended(f"req_{n:024x}", BEGAN, party, 200, "provider", 10))
    assert opened > 0
    assert fitting * 120 > SMALL // 5
    end(journal)


def test_a_segment_that_vanishes_while_sizes_are_added_up_does_not_end_the_second_thread(tmp_path: Path) -> None:
    """The shipper deletes what it has shipped. A link to nowhere is a segment that is listed and gone when it is looked at."""
    journal = small_journal(tmp_path)
    wait_for_room(journal)
    gone = segment_path(journal.directory, 99_999)
    gone.symlink_to(tmp_path / "nowhere")
    before = len(segments(journal.directory))
    for n in range(SMALL // 100):  # more than a segment: a spare one is used, and the next is prepared
        journal.append(settled(n))
    wait_for_room(journal)
    assert journal._preparer.is_alive()
    assert len(segments(journal.directory)) > before
    gone.unlink()
    end(journal)


def test_a_full_disk_refuses_new_calls_and_is_no_crash(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: allocation fails, and nothing ends with SIGBUS or SIGXFSZ."""

    def work() -> None:
        journal = small_journal(tmp_path)
        wait_for_room(journal)
        journal.append(intent(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, resource.RLIM_INFINITY))
        assert fill(journal, intent) > 0
        journal.append(settled(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for_room(journal)
        journal.append(intent(100_000))

    assert in_a_child(work) == 0


def test_a_disk_that_is_full_at_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """The process cannot serve; the error says so at once."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="File too large"):
            small_journal(tmp_path)

    assert in_a_child(work) == 0
    assert segments(tmp_path / "journal" / "ses_a") == []


def test_a_session_is_abandoned_when_its_process_is_gone_and_not_before(tmp_path: Path) -> None:
    """The lock is the process's own: alive, nobody recovers it; dead, exactly one does."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            small_journal(tmp_path, "ses_child")
            os.write(into, b"!")
            time.sleep(60)
        finally:
            os._exit(1)
    os.read(out, 1)
    assert list(abandoned(tmp_path)) == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (taken,) = abandoned(tmp_path)
    assert taken.id == "ses_child"
    assert list(abandoned(tmp_path)) == [], "it is held by us now"
    taken.remove()
    taken.unlock()
    assert list(abandoned(tmp_path)) == []


def test_a_lock_of_a_session_that_was_removed_meanwhile_is_not_taken(tmp_path: Path) -> None:
    """Two starts at once: the second may have opened the lock file before the first removed it."""
    journal = small_journal(tmp_path)
    end(journal)
    (mine,) = abandoned(tmp_path)
    mine.remove()
    assert list(abandoned(tmp_path)) == []
    mine.unlock()
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_closed_journal_that_was_shipped_leaves_no_file(tmp_path: Path) -> None:
    """A graceful end removes the directory."""
    journal = small_journal(tmp_path)
    journal.append(settled(1))
    journal.close(BEGAN)
    journal.release(remove=True)
    assert list((tmp_path / "journal").iterdir()) == []


def test_syncing_in_the_background_changes_nothing_else(tmp_path: Path) -> None:
    """With an interval for power cuts, records are synced every few milliseconds and read back the same."""
    journal = Journal.create(
        tmp_path, "ses_sync", at=BEGAN, segment_bytes=SMALL, max_bytes=100 * SMALL, sync_every_s=0.005
    )
    for n in range(400):
        journal.append(settled(n))
        if n % 40 == 0:
            time.sleep(0.01)
    end(journal)
    assert everything(journal.directory)[1:-1] == [settled(n) for n in range(400)]


def test_a_record_that_no_segment_can_hold_is_refused(tmp_path: Path) -> None:
    """The message says how large it was; the journal goes on."""
    journal = small_journal(tmp_path)
    wait_for_room(journal)
    large = Settled(id="req_x" * SMALL, at=BEGAN, endpoint="chat", status=200, source=None)
    with pytest.raises(ValueError, match="does not fit"):
        journal.append(large)
    journal.append(settled(1))
    assert everything(journal.directory)[1:] == [settled(1)]
    end(journal)


def test_a_session_without_a_record_is_recovered_as_empty(tmp_path: Path) -> None:
    """Killed between the making of the directory and the first record."""
    (tmp_path / "journal" / "ses_bare").mkdir(parents=True)
    (tmp_path / "journal" / "ses_bare" / "lock").touch()
    (found,) = abandoned(tmp_path)
    assert isinstance(found, Session)
    assert everything(found.directory) == []
    found.unlock()
