"""From the journal to the database exactly once: crashes at every step, a database that is away, and what the dead left behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog.testing
from msgspec.structs import replace
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import OperationalError

from gateway import ledger, ledger_store, request_store
from gateway.database import appending, connect, reading
from gateway.journal_files import segments
from gateway.journal_records import Settled
from gateway.ledger_entries import Entry
from gateway.ledger_export import selected
from gateway.ledger_store import charges_of, charges_on
from gateway.recovery import recover
from gateway.shipping import Shipper, deliver
from gateway.spend import spend
from gateway.tables import account_charges, ledger_blocks, ledger_sessions, request_blocks, request_keys, spend_partials
from tests.fixtures.ledger import BEGAN, intent, numbered, settled, small_journal

TABLES = (ledger_blocks, ledger_sessions, account_charges, request_blocks, request_keys, spend_partials)


class Killed(BaseException):
    """Stands for the end of the process at that point."""


def contents(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that a group goes into, in an order of its own."""
    with reading(engine) as tx:
        return {
            table.name: sorted((tuple(row) for row in tx.execute(select(*table.c.values()))), key=repr)
            for table in TABLES
        }


@contextmanager
def killed_at(engine: Engine, step: int) -> Iterator[None]:
    """Ends with Killed before statement `step` reaches the database; the commit counts as one."""
    steps: list[str] = []

    def before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        stop(statement)

    def commit(_connection: object) -> None:
        stop("COMMIT")

    def stop(what: str) -> None:
        steps.append(what)
        if len(steps) == step:
            raise Killed(what)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "commit", commit)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", before)
        event.remove(engine, "commit", commit)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def entries(engine: Engine) -> dict[str, Entry]:
    """By the id of the call; no call has two."""
    with reading(engine) as tx:
        found = [entry for entry, _ in selected(tx, None, None)]
    assert len({(entry.session, entry.id) for entry in found}) == len(found)
    return {entry.id: entry for entry in found}


def entry_count(engine: Engine) -> int:
    with reading(engine) as tx:
        return sum(1 for _ in selected(tx, None, None))


def test_a_group_that_is_delivered_again_changes_nothing(engine: Engine) -> None:
    """Whole, in part, or overlapping: what the database has is left out."""
    calls = [settled(n) for n in range(100)]
    deliver(engine, "ses_a", numbered(*calls))
    once = contents(engine)
    deliver(engine, "ses_a", numbered(*calls))
    deliver(engine, "ses_a", numbered(*calls[20:60], first=20))
    deliver(engine, "ses_a", numbered())
    assert contents(engine) == once
    deliver(engine, "ses_a", numbered(*(settled(n) for n in range(90, 120)), first=90))
    assert entry_count(engine) == 120
    assert ledger.verify(engine).broken == ()


def test_a_crash_at_any_step_of_a_group_leaves_all_of_it_or_nothing(engine: Engine) -> None:
    """The process ends before each statement and before the commit, then the same group comes again."""
    before = numbered(*(settled(n) for n in range(20)))
    deliver(engine, "ses_a", before)
    nothing = contents(engine)
    refused = replace(settled(99), source=None, cost_nanousd=None, charges=())
    group = numbered(intent(20), *(settled(n) for n in range(20, 50)), refused, first=20)
    step = 0
    while True:
        step += 1
        try:
            with killed_at(engine, step):
                deliver(engine, "ses_a", group)
        except Killed:
            left = contents(engine)
        else:
            break
        assert left == nothing, f"killed at step {step}"
    assert step > 5, "there were steps to be killed at"
    everything = contents(engine)
    deliver(engine, "ses_a", group)  # killed after the commit: what is new to the process is old to the database
    assert contents(engine) == everything
    assert ledger.verify(engine).entries == 50


def test_what_is_shipped_is_what_was_settled(engine: Engine, tmp_path: Path) -> None:
    """Rows of requests and ledger, charges, and the chain, of a process that ends well; it leaves no file."""
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01, compact_every_s=0.05)
    shipper.start()
    calls = [settled(n) for n in range(800)]
    for n, call in enumerate(calls):
        journal.append(intent(n))
        journal.append(call)
    refused = Settled(
        id="req_refused", at=BEGAN, endpoint="chat", status=429, source=None, error_code="budget_exceeded"
    )
    journal.append(refused)
    assert shipper.close(BEGAN)
    assert (shipper.lag_records, shipper.lag_s) == (0, 0.0)
    assert list((tmp_path / "journal").iterdir()) == []
    verdict = ledger.verify(engine)
    assert verdict.broken == ()
    assert (verdict.entries, verdict.cost_nanousd) == (800, sum(call.cost_nanousd or 0 for call in calls))
    with reading(engine) as tx:
        rows = {row.id: row for row in request_store.listed(tx, 10_000).data}
        charges = charges_of(tx, "ses_a")
        (total,) = spend(tx, "org")
        assert charges_on(tx, ["b:key1:0", "b:nobody:0"]) == {
            "b:key1:0": {"ses_a": charges["b:key1:0"]},
            "b:nobody:0": {},
        }
    assert len(rows) == 801
    assert (rows["req_refused"].status, rows["req_refused"].cost_nanousd) == (429, None)
    assert total.cost_nanousd == verdict.cost_nanousd
    expected: dict[str, int] = {}
    for call in calls:
        for account, amount in call.charges:
            if account.startswith("b:"):
                expected[account] = expected.get(account, 0) + amount
    assert charges == expected


def test_shipped_segments_are_deleted_and_open_calls_survive_that(engine: Engine, tmp_path: Path) -> None:
    """A call that lasts for hours does not hold a file back: what its intent says is kept in the checkpoint."""
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01)
    shipper.start()
    journal.append(intent(7_777))
    for n in range(2_000):
        journal.append(intent(n))
        journal.append(settled(n))
        if n % 100 == 99:
            wait_for(lambda: shipper.lag_records == 0, "everything is shipped")
    wait_for(lambda: len(segments(journal.directory)) <= 3, "old segments are deleted")
    shipper.close(BEGAN)
    assert journal.directory.is_dir(), "there is an open call: the next start settles it"
    (recovered,) = recover(tmp_path, engine)
    assert recovered.open_intents == 1
    recovered.done()
    row = entries(engine)[intent(7_777).id]
    assert (row.source, row.reason, row.cost_nanousd) == ("estimated", "crash", intent(7_777).worst_nanousd)
    assert entry_count(engine) == 2_001
    assert ledger.verify(engine).broken == ()


def test_a_database_that_is_away_costs_nothing_but_room(tmp_path: Path) -> None:
    """Appends go on, nothing blocks, the lag is told; when it is back, all of it arrives once."""
    from admin.migrate import prepare  # noqa: PLC0415 — the database is made late on purpose

    url = f"sqlite:///{tmp_path / 'late' / 'penstock.db'}"
    engine = connect(url)
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01)
    with structlog.testing.capture_logs() as logs:
        shipper.start()
        for n in range(300):
            journal.append(settled(n))
        wait_for(lambda: any(entry["event"] == "ledger.shipping_failed" for entry in logs), "the failure is logged")
        assert shipper.lag_records == 301
        assert shipper.lag_s > 0
    (tmp_path / "late").mkdir()
    prepare(engine)
    wait_for(lambda: shipper.lag_records == 0, "the journal is shipped")
    assert shipper.close(BEGAN)
    assert entry_count(engine) == 300
    engine.dispose()


def test_a_shipper_that_cannot_ship_at_the_end_leaves_the_session_to_the_next_start(tmp_path: Path) -> None:
    """It gives up in time, and nothing is lost."""
    from admin.migrate import prepare  # noqa: PLC0415 — the database is made late on purpose

    engine = connect(f"sqlite:///{tmp_path / 'late' / 'penstock.db'}")
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01)
    shipper.start()
    journal.append(settled(1))
    began = time.monotonic()
    assert not shipper.close(BEGAN, timeout_s=0.3)
    assert time.monotonic() - began < 5
    with pytest.raises(OperationalError):
        recover(tmp_path, engine)
    (tmp_path / "late").mkdir()
    prepare(engine)
    (recovered,) = recover(tmp_path, engine)
    assert (recovered.session, recovered.open_intents) == ("ses_a", 0)
    assert recovered.charges == {account: amount for account, amount in settled(1).charges if account[0] == "b"}
    recovered.done()
    assert recover(tmp_path, engine) == []
    engine.dispose()


def test_a_shipper_that_is_told_rests_until_there_is_something(engine: Engine, tmp_path: Path) -> None:
    """It lags behind nothing meanwhile, and what comes is shipped when somebody has looked."""
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01, told=True)
    shipper.start()
    wait_for(lambda: shipper._resting and shipper.lag_records == 0, "it does not come to rest")
    rested = shipper._caught_up_at
    shipper.look()
    assert shipper._caught_up_at > rested
    for number in range(3):
        journal.append(settled(number))
        shipper.look()
        wait_for(lambda: shipper.lag_records == 0 and shipper._resting, "it was not woken")
    assert shipper.close(BEGAN)
    assert entry_count(engine) == 3


def test_who_wants_to_see_the_records_need_not_wait_for_the_next_group(engine: Engine, tmp_path: Path) -> None:
    """What was appended by then is shipped at once; and where the database is locked, nobody waits longer than he said."""
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=60)
    shipper.start()
    for number in range(3):
        journal.append(settled(number))
        assert shipper.catch_up(20)
        assert entry_count(engine) == number + 1
    assert shipper.catch_up(0)
    journal.append(settled(4))
    with appending(engine) as tx:
        tx.execute(select(ledger_sessions).with_for_update())
        began = time.monotonic()
        assert not shipper.catch_up(0.2)
        assert time.monotonic() - began < 5
    assert shipper.close(BEGAN)
    assert entry_count(engine) == 4


@pytest.mark.parametrize("interval_s", [0.01, 60])
def test_a_database_that_hangs_does_not_hold_up_the_end(engine: Engine, tmp_path: Path, interval_s: float) -> None:
    """Somebody has locked what the shipper needs, whether it is shipping or asleep: the process ends in time, and the next one ships."""
    journal = small_journal(tmp_path)
    journal.append(settled(1))
    shipper = Shipper(engine, journal, interval_s=interval_s)
    shipper.start()
    while shipper.lag_records:
        time.sleep(0.01)
    with appending(engine) as tx:
        tx.execute(select(ledger_sessions).with_for_update())
        journal.append(settled(2))
        began = time.monotonic()
        assert not shipper.close(BEGAN, timeout_s=0.3)
        assert time.monotonic() - began < 4.5  # both would wait 5 s for the lock
    shipper._thread.join()
    (recovered,) = recover(tmp_path, engine)
    recovered.done()
    assert entry_count(engine) == 2
    assert ledger.verify(engine).broken == ()


def test_a_shipper_that_comes_too_late_leaves_the_journal_to_others(engine: Engine, tmp_path: Path) -> None:
    """Its commit is answered when the session is given up: somebody may be reading the segments that it would delete."""
    deliver(engine, "ses_a", numbered())
    journal = small_journal(tmp_path)
    calls = 500
    for number in range(calls):
        journal.append(settled(number))
    shipper = Shipper(engine, journal, interval_s=0.01)
    with appending(engine) as tx:
        tx.execute(select(ledger_sessions).with_for_update())
        shipper.start()
        assert not shipper.close(BEGAN, timeout_s=0.3)
    left = {path: path.read_bytes() for path in journal.directory.iterdir()}
    assert len(segments(journal.directory)) > 1
    shipper._thread.join()
    assert entry_count(engine) == calls
    assert {path: path.read_bytes() for path in journal.directory.iterdir()} == left
    (recovered,) = recover(tmp_path, engine)
    recovered.done()
    assert entry_count(engine) == calls
    assert ledger.verify(engine).broken == ()


def dead_session(tmp_path: Path, session: str = "ses_dead", calls: int = 60) -> None:
    """A process that was killed with every third call open."""
    child = os.fork()
    if child == 0:
        try:
            journal = small_journal(tmp_path, session)
            for n in range(calls):
                journal.append(intent(n))
                if n % 3:
                    journal.append(settled(n))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def test_open_calls_of_a_dead_process_are_settled_at_their_worst_case(engine: Engine, tmp_path: Path) -> None:
    """They may have cost all that was held for them, so that is what they did cost: marked, and never dropped."""
    dead_session(tmp_path)
    (recovered,) = recover(tmp_path, engine)
    assert recovered.open_intents == 20
    worst = {intent(n).id: intent(n).worst_nanousd for n in range(0, 60, 3)}
    with reading(engine) as tx:
        crashed = {row.id for row in request_store.listed(tx, 10_000).data if row.error_code == "crashed"}
    assert {one.id: one.cost_nanousd for one in entries(engine).values() if one.reason == "crash"} == worst
    assert crashed == set(worst)
    expected: dict[str, int] = {}
    for n in range(60):
        for account, amount in settled(n).charges if n % 3 else intent(n).holds:
            if account.startswith("b:"):
                expected[account] = expected.get(account, 0) + amount
    assert recovered.charges == expected
    recovered.done()
    assert ledger.verify(engine).broken == ()


def test_a_recovery_that_is_killed_anywhere_is_recovered_the_same(engine: Engine, tmp_path: Path) -> None:
    """Before each statement, after the last, and before the lease store was told: the result is that of one recovery."""
    dead_session(tmp_path)
    step = 0
    while True:
        step += 1
        try:
            with killed_at(engine, step):
                (first,) = recover(tmp_path, engine)
        except Killed:
            continue
        break
    assert step > 5
    charges, once = first.charges, contents(engine)
    first.leave()  # killed before the lease store knew
    (second,) = recover(tmp_path, engine)
    assert (second.charges, contents(engine)) == (charges, once)
    second.done()
    assert entry_count(engine) == 60
    assert ledger.verify(engine).broken == ()


def test_two_starts_at_once_recover_each_session_once(engine: Engine, tmp_path: Path) -> None:
    """Several workers of one machine start together; the dead session goes to one of them."""
    for name in ("ses_1", "ses_2", "ses_3"):
        dead_session(tmp_path, name, calls=3)
    mine = recover(tmp_path, engine)
    assert recover(tmp_path, engine) == []
    for recovered in mine:
        recovered.done()
    assert entry_count(engine) == 3 * 3
    assert ledger.verify(engine).broken == ()


def test_a_client_cannot_stop_shipping_by_what_it_calls_itself(engine: Engine, tmp_path: Path) -> None:
    """NUL, texts without end, surrogates' neighbours, numbers beyond every column: they are stored as far as they can be."""
    journal = small_journal(tmp_path)
    shipper = Shipper(engine, journal, interval_s=0.01)
    shipper.start()
    nasty = replace(
        settled(1),
        customer="a\x00b" + "x" * 5_000,
        tags=("t\x00", "\U0010ffff", "'; DROP TABLE ledger; --", "\\N\t\n"),
        model="m" * 4_000,
        cost_nanousd=2**62,
    )
    journal.append(nasty)
    journal.append(replace(nasty, source=None, id="req_refused"))
    journal.append(settled(2))
    assert shipper.close(BEGAN)
    assert ledger.verify(engine).broken == ()
    with reading(engine) as tx:
        (row,) = [one for one in spend(tx, "customer") if str(one.group).startswith("a�b")]
        assert row.cost_nanousd == 2**53
        assert len(request_store.listed(tx, 100).data) == 3


def test_a_request_that_was_recorded_already_does_not_stop_shipping(engine: Engine) -> None:
    """An id that collides stops nothing: both calls are there."""
    deliver(engine, "ses_a", numbered(settled(1)))
    deliver(engine, "ses_b", numbered(settled(1), settled(2)))
    with reading(engine) as tx:
        assert len(request_store.listed(tx, 100).data) == 3
    assert entry_count(engine) == 3


def test_a_database_that_was_set_back_is_told_and_goes_on(engine: Engine) -> None:
    """Restored from a backup, it has not what was shipped since; that cannot be made good from here, but is said."""
    deliver(engine, "ses_a", numbered(settled(1)))
    with structlog.testing.capture_logs() as logs:
        deliver(engine, "ses_a", numbered(settled(5), first=4))
    assert [entry["event"] for entry in logs] == ["ledger.gap"]
    assert entry_count(engine) == 2


def test_reading_while_a_group_commits_sees_all_of_it_or_nothing(engine: Engine) -> None:
    """The sums of a view never show half of a group."""
    deliver(engine, "ses_a", numbered(*(settled(n) for n in range(10))))
    with reading(engine) as before:
        first = spend(before, "org")
        deliver(engine, "ses_a", numbered(*(settled(n) for n in range(10, 20)), first=10))
        assert spend(before, "org") == first
    with reading(engine) as after:
        assert spend(after, "org")[0].requests == 20


def test_old_charges_of_windows_are_forgotten_and_totals_kept(engine: Engine) -> None:
    """A minute's account is of no use a year later; a total budget's is."""
    deliver(engine, "ses_a", numbered(*(settled(n) for n in range(30))))
    with appending(engine) as tx:
        ledger_store.forget_charges(tx, BEGAN + 10 * 86_400)
    with reading(engine) as tx:
        left = charges_of(tx, "ses_a")
    assert left
    assert all(account.endswith(":0") for account in left)


def test_a_frame_from_another_release_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    """It is whole, so it is not thrown away; its session stays for who understands it."""
    journal = small_journal(tmp_path)
    journal._encode = lambda _: b"\x91\xa7unknown"
    journal.append(settled(1))
    journal.release(remove=False)
    with structlog.testing.capture_logs() as logs:
        assert recover(tmp_path, engine) == []
    assert [entry["event"] for entry in logs] == ["journal.unreadable"]
    assert (tmp_path / "journal" / "ses_a").is_dir()
