"""A store that hangs, dies or comes back with less than it knew: declared answers, in time, and never a second lending."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TypeVar

import psycopg
import pytest
import uvloop

from gateway.leases.accounts import Account, Borrow, Report
from gateway.leases.errors import Forgotten, Quarantined, StoreUnavailable
from gateway.leases.guard import Guard
from gateway.leases.ports import LeaseStore
from gateway.leases.postgres import PostgresLeases
from gateway.leases.redis import RedisLeases
from gateway.leases.sqlite import SqliteLeases
from tests.fixtures.leases import DEADLINE_S as PATIENCE_S
from tests.fixtures.leases import Clock
from tests.fixtures.patience import TRIES
from tests.fixtures.redis import RedisServer

A, B = "ses_a", "ses_b"
BUDGET = Account("b:budget:0", 1000)
BUCKET = Account("l:tpm", 100, rate_per_s=10.0)
DEADLINE_S = 0.25
BUSY_S = 2.0  # what a busy machine may add
QUARANTINE_S = 0.5
STALL_S = 0.4  # a disk with much to do; longer than a store in memory is waited for
T = TypeVar("T")


class Breakable:
    """A store whose server can be made to hang."""

    def __init__(self, store: LeaseStore, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.store = store
        self._pause = pause
        self._resume = resume

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self._pause()
        try:
            yield
        finally:
            self._resume()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
async def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Breakable]:
    """Paused by SIGSTOP; SQLite by a neighbour that holds the lock and does nothing."""
    match request.param:
        case "sqlite":
            file = tmp_path / "leases.db"
            breakable = _locking(SqliteLeases(file, deadline_s=DEADLINE_S), file)
        case "postgres":
            new: Callable[[str], str] = request.getfixturevalue("new_postgres")
            url = new(request.getfixturevalue("migrated_postgres"))
            breakable = _stopping(PostgresLeases(url, deadline_s=DEADLINE_S), url)
        case _:
            server: RedisServer = request.getfixturevalue("new_redis")()
            store = RedisLeases(server.url, quarantine_s=0, deadline_s=DEADLINE_S)
            breakable = Breakable(store, server.pause, server.resume)
    yield breakable
    await breakable.store.disconnect()


async def test_a_store_that_hangs_costs_one_deadline_and_then_nothing(breakable: Breakable) -> None:
    """The first call is told within twice the deadline, the next at once; within 2 s of its return all is well."""
    store = breakable.store
    await retried(lambda: store.borrow(A, [Borrow(BUDGET, 300)]))
    with breakable.hanging():
        assert await refused(store) < DEADLINE_S + BUSY_S
        assert median([await refused(store) for _ in range(20)]) < DEADLINE_S / 2
    assert await well_again(store) < 2.0 + BUSY_S
    await retried(lambda: store.sync(B, [Report(BUDGET, 0, 0)]))
    assert (await retried(lambda: store.sync(A, [Report(BUDGET, 100, 50)])))[0].used == 150


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_store_that_waits_for_a_busy_disk_refuses_nobody(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A stall of less than half a second is waited for. One of a few is enough, as a busy machine makes it longer."""
    if kind == "sqlite":
        file = tmp_path / "leases.db"
        slow = _locking(SqliteLeases(file), file)
    else:
        new: Callable[[str], str] = request.getfixturevalue("new_postgres")
        url = new(request.getfixturevalue("migrated_postgres"))
        slow = _stopping(PostgresLeases(url), url)
    granted = 0
    for _ in range(TRIES):
        await retried(lambda: slow.store.sync(A, []))
        with slow.hanging():
            borrow = asyncio.ensure_future(slow.store.borrow(A, [Borrow(BUDGET, 1)]))
            await asyncio.sleep(STALL_S)
        with suppress(StoreUnavailable):
            granted = (await borrow)[0].amount
            break
    await slow.store.disconnect()
    assert granted == 1


async def test_what_was_asked_of_a_hanging_store_is_healed_by_the_next_report(breakable: Breakable) -> None:
    """The borrow that nobody waited for may have been granted when the server went on."""
    store = breakable.store
    await retried(lambda: store.sync(A, [Report(BUDGET, 0, 300)]))
    with breakable.hanging(), pytest.raises(StoreUnavailable):
        await store.borrow(A, [Borrow(BUDGET, 200)])
    await well_again(store)
    assert (await retried(lambda: store.state([BUDGET])))[0].used in {300, 500}
    await retried(lambda: store.sync(A, [Report(BUDGET, 0, 300)]))
    assert (await retried(lambda: store.state([BUDGET])))[0].used == 300


async def test_many_callers_of_a_hanging_store_wait_no_longer_than_one(breakable: Breakable) -> None:
    """They stand in line behind the one that waits, and leave with it."""
    store = breakable.store
    await retried(lambda: store.sync(A, []))
    with breakable.hanging():
        began = time.monotonic()
        answers = await asyncio.gather(*(refused(store) for _ in range(64)))
        assert max(answers) < DEADLINE_S + BUSY_S
        assert time.monotonic() - began < DEADLINE_S + BUSY_S
    await well_again(store)


async def test_a_server_that_was_never_there_is_unavailable(tmp_path: Path) -> None:
    """No hang, and no exception of a driver."""
    stores: list[LeaseStore] = [
        RedisLeases(f"unix://{tmp_path}/none.sock"),
        PostgresLeases(f"postgresql:///none?host={tmp_path}"),
        SqliteLeases(tmp_path / "none" / "leases.db"),
    ]
    for store in stores:
        assert await refused(store) < DEADLINE_S + BUSY_S
        await store.disconnect()


async def test_one_call_a_second_probes_a_store_that_is_away() -> None:
    """A store that comes back under load is not met by all who were waiting."""
    asked = 0

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    guard = Guard("test", (), deadline_s=0.01, probe_s=0.1)
    began, refused = time.monotonic(), 0
    while (lasted := time.monotonic() - began) < 0.55 or asked < 3:
        with pytest.raises(StoreUnavailable):
            await guard.call(hang)
        refused += 1
        await asyncio.sleep(0.001)
    assert asked <= lasted / 0.1 + 2
    assert refused > asked


async def test_a_line_that_is_too_long_is_not_a_store_that_is_away() -> None:
    """Who waited for its turn until the deadline is refused; the store goes on answering."""

    async def work() -> int:
        await asyncio.sleep(0.15)
        return 1

    guard = Guard("test", (), deadline_s=0.6)
    answers = await asyncio.gather(*(guard.call(work) for _ in range(8)), return_exceptions=True)
    assert 1 <= answers.count(1) < 8
    assert await guard.call(work) == 1


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_process_that_was_late_itself_does_not_blame_the_store(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The answer came in time, while this process did something else for longer than the deadline."""
    guard = Guard("test", (), deadline_s=0.1)

    async def ask() -> int:
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.5)
        return await guard.call(lambda: asyncio.to_thread(answer))

    def answer() -> int:
        time.sleep(0.05)
        return 1

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(ask()) == 1


async def test_a_redis_that_was_killed_is_refused_and_found_again(new_redis: Callable[[], RedisServer]) -> None:
    """With its data: the sums are as they were, after the time in which sessions say what they hold."""
    server = new_redis()
    clock = Clock()
    store = RedisLeases(server.url, quarantine_s=QUARANTINE_S, deadline_s=PATIENCE_S, clock=clock)
    await lend_again(store, clock, A, 300)
    await store.sync(A, [Report(BUDGET, 100, 200)])
    server.kill()
    assert await refused(store) < DEADLINE_S + BUSY_S
    server.start()
    assert await well_again(store) < 2.0 + BUSY_S
    with pytest.raises(Quarantined):  # what was written last may not have reached the disk
        await store.borrow(A, [Borrow(BUDGET, 1)])
    assert (await store.state([BUDGET]))[0].used == 300
    assert await lend_again(store, clock, B, 1000) == 700
    await store.disconnect()


async def test_a_redis_that_was_restarted_meanwhile_asks_for_everything(new_redis: Callable[[], RedisServer]) -> None:
    """It may have lost what it was told last: every session hears so once, before anything is lent to it."""
    server = new_redis()
    one, two = (RedisLeases(server.url, quarantine_s=0, deadline_s=PATIENCE_S) for _ in range(2))
    await one.borrow(A, [Borrow(BUDGET, 300)])
    await two.borrow(B, [Borrow(BUDGET, 100)])
    server.kill()
    server.lose_data()
    server.start()
    with pytest.raises(Forgotten):
        await one.sync(A, [])
    with pytest.raises(Forgotten):
        await two.borrow(B, [Borrow(BUDGET, 1000)])
    assert (await one.sync(A, [Report(BUDGET, 100, 200)]))[0].used == 300
    assert (await two.sync(B, [Report(BUDGET, 0, 100)]))[0].used == 400
    assert (await two.borrow(B, [Borrow(BUDGET, 1000)]))[0].amount == 600
    for store in (one, two):
        await store.disconnect()


async def test_a_redis_that_lost_everything_lends_nothing_twice(new_redis: Callable[[], RedisServer]) -> None:
    """Two sessions live on, one ended long ago: the ledger knows its spending, the living tell theirs."""
    server = new_redis()
    ledger = Ledger({BUDGET.id: {"ses_old": 200, A: 50}})
    clock = Clock()
    one, two = (
        RedisLeases(server.url, ledger_sums=ledger.sums, quarantine_s=QUARANTINE_S, deadline_s=PATIENCE_S, clock=clock)
        for _ in range(2)
    )
    assert await lend_again(one, clock, A, 300) == 300
    assert await lend_again(two, clock, B, 400) == 400
    server.kill()
    server.lose_data()
    server.start()
    with pytest.raises(Quarantined) as refusal:
        await retried(lambda: two.borrow(B, [Borrow(BUDGET, 1)]))
    assert 0 < refusal.value.retry_after_s <= QUARANTINE_S
    await retried(lambda: one.sync(A, [Report(BUDGET, 120, 180)]))  # of which the ledger has seen 50
    await two.sync(B, [Report(BUDGET, 0, 400)])
    assert await lend_again(two, clock, B, 1000) == 100  # 1000 less 200 of old, 300 of A, 400 of B
    states = await one.state([BUDGET])
    assert [each.used for each in states] == [1000]
    for store in (one, two):
        await store.disconnect()


async def test_a_bucket_that_was_lost_begins_empty(new_redis: Callable[[], RedisServer]) -> None:
    """It may have been emptied just before, so it fills from the time of the loss."""
    server = new_redis()
    clock = Clock()
    store = RedisLeases(server.url, quarantine_s=QUARANTINE_S, deadline_s=PATIENCE_S, clock=clock)
    (state,) = await retried(lambda: store.sync(A, [Report(BUCKET, 0, 0)]))
    assert state.used == 0
    assert 0 < await lend_again(store, clock, A, 100, BUCKET) <= 10 * QUARANTINE_S + 1
    await store.disconnect()


async def test_data_that_vanish_under_a_connection_are_noticed(new_redis: Callable[[], RedisServer]) -> None:
    """Somebody flushed the database."""
    server = new_redis()
    clock = Clock()
    store = RedisLeases(server.url, quarantine_s=QUARANTINE_S, deadline_s=PATIENCE_S, clock=clock)
    await lend_again(store, clock, A, 300)
    server.cli("FLUSHALL")
    with pytest.raises(Forgotten):
        await store.borrow(B, [Borrow(BUDGET, 1000)])
    with pytest.raises(Quarantined):
        await store.borrow(B, [Borrow(BUDGET, 1000)])
    await store.sync(A, [Report(BUDGET, 0, 300)])
    assert await lend_again(store, clock, B, 1000) == 700
    await store.disconnect()


class Ledger:
    """What the database has of each session."""

    def __init__(self, known: Mapping[str, Mapping[str, int]]) -> None:
        self._known = known
        self.asked = 0

    async def sums(self, accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        self.asked += 1
        return {account: self._known[account] for account in accounts if account in self._known}


async def refused(store: LeaseStore) -> float:
    """Seconds until the store said that it is away."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.borrow(B, [Borrow(BUDGET, 1, 1)])
    return time.monotonic() - began


async def well_again(store: LeaseStore) -> float:
    """Seconds until it answers a heartbeat."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            await store.sync(A, [])
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            break
    return time.monotonic() - began


async def retried(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until the store is there; a quarantine is an answer."""
    for _ in range(100):
        try:
            return await ask()
        except Quarantined:
            raise
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the store did not come back")


async def lend_again(store: LeaseStore, clock: Clock, session: str, want: int, account: Account = BUDGET) -> int:
    """A borrow, at the end of a quarantine."""
    while True:
        try:
            (grant,) = await store.borrow(session, [Borrow(account, want)])
        except Quarantined as refusal:
            clock.now += refusal.retry_after_s + 0.01
        else:
            return grant.amount


def _locking(store: SqliteLeases, path: Path) -> Breakable:
    neighbour = sqlite3.connect(path, isolation_level=None)
    neighbour.execute("PRAGMA journal_mode = WAL")

    def lock() -> None:
        neighbour.execute("BEGIN IMMEDIATE")

    def unlock() -> None:
        neighbour.execute("ROLLBACK")

    return Breakable(store, lock, unlock)


def _stopping(store: PostgresLeases, url: str) -> Breakable:
    """All processes of the server, or it would take connections and refuse them."""
    with psycopg.connect(url) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    postmaster = int((Path(data) / "postmaster.pid").read_text().splitlines()[0])

    def send(number: signal.Signals) -> None:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            os.kill(pid, number)

    return Breakable(store, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
