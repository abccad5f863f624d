"""Holding, borrowing and settling on one process and on several that share a store."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway import errors
from gateway.leases.accounts import SHARE_TTL_S, Account, Borrow, Grant, Report, State
from gateway.leases.memory import MemoryLeases
from gateway.leases.ports import LeaseStore
from gateway.leases.redis import RedisLeases
from gateway.need import Need, counted_by
from gateway.scopes import Bound, Budget, Limits, Scope, bind
from gateway.shares import Hold, Shares, amounts_of, charges
from gateway.till import BEAT_S, Till
from tests.fixtures.redis import RedisServer

USD = 1_000_000_000


class Session:
    """One serving process without the rest of it."""

    def __init__(self, store: LeaseStore, name: str) -> None:
        self.shares = Shares()
        self.till = Till(store, name, self.shares, unix=time.time, now=time.monotonic, spent=lambda *_: None)

    def needs(self, *bound: Bound, need: Need) -> Hold:
        return tuple((self.shares.of(one, time.time()), amounts_of(need)[counted_by(one.rule)]) for one in bound)

    async def hold(self, *bound: Bound, need: Need) -> Hold:
        needs = self.needs(*bound, need=need)
        if self.shares.missing(needs):
            await self.till.fetch(needs)
        else:
            self.shares.hold(needs)
        return needs


def budget(usd: float, id_: str = "b1") -> Bound:
    return bind(Budget(id_, Scope("key", "k"), int(usd * USD), "total"), "k")


def limits(**numbers: Any) -> tuple[Bound, ...]:
    return tuple(bind(limit, "k") for limit in Limits("l1", Scope("key", "k"), **numbers).each())


async def test_a_call_that_fits_is_held_and_settled_to_what_it_cost() -> None:
    """What is held is not free, what is settled is spent, and the rest is free again."""
    session = Session(MemoryLeases(), "s1")
    one = budget(1)

    hold = await session.hold(one, need=Need(USD // 10, 0, 0))
    share = hold[0][0]
    assert share.held == USD // 10

    session.shares.settle(hold, Need(USD // 100, 0, 0))

    assert charges(hold, Need(USD // 100, 0, 0)) == ((share.account.id, USD // 100),)
    assert (share.held, share.settled) == (0, USD // 100)
    assert share.free == share.lent


async def test_a_call_that_does_not_fit_names_scope_remaining_and_worst_case() -> None:
    """The message says which budget, what is left, and what the call may cost; a retry is pointless and told so."""
    session = Session(MemoryLeases(), "s1")
    await session.hold(budget(1), need=Need(USD * 6 // 10, 0, 0))

    with pytest.raises(errors.BudgetExceeded) as denied:
        await session.hold(budget(1), need=Need(USD // 2, 0, 0))

    assert "key 'k'" in denied.value.message
    assert "0.4 USD left" in denied.value.message
    assert "0.5 USD" in denied.value.message
    assert denied.value.headers == (("x-should-retry", "false"),)


async def test_all_accounts_or_none() -> None:
    """A call that one budget refuses leaves nothing held in the other."""
    session = Session(MemoryLeases(), "s1")
    rich, poor = budget(100, "rich"), budget(0.01, "poor")

    with pytest.raises(errors.BudgetExceeded):
        await session.hold(rich, poor, need=Need(USD, 0, 0))

    assert session.shares.of(rich, time.time()).held == 0
    assert session.shares.of(poor, time.time()).held == 0


async def test_an_unsent_call_owes_nothing() -> None:
    """Released holds are free again, in every kind of account."""
    session = Session(MemoryLeases(), "s1")
    bound = (budget(1), *limits(rpm=10, tpm=1000, parallel=2))

    hold = await session.hold(*bound, need=Need(USD // 10, 100, 100))
    session.shares.settle(hold, None)

    assert all(share.held == 0 and share.settled == 0 for share, _ in hold)


async def test_a_bill_above_the_worst_case_is_charged_whole() -> None:
    """An upstream that ignores max_tokens has billed it: the budget must know."""
    store = MemoryLeases()
    session = Session(store, "s1")
    one = budget(1)

    hold = await session.hold(one, need=Need(USD // 10, 0, 0))
    session.shares.settle(hold, Need(USD // 2, 0, 0))
    await session.till.sync()

    (state,) = await store.state([hold[0][0].account])
    assert state.used == USD // 2
    assert hold[0][0].free >= 0


async def test_parallel_calls_are_counted_while_they_run() -> None:
    """The third of two is refused, and fits when one has ended."""
    session = Session(MemoryLeases(), "s1")
    (slots,) = limits(parallel=2)
    need = Need(0, 0, 0)

    first = await session.hold(slots, need=need)
    await session.hold(slots, need=need)
    with pytest.raises(errors.RateLimited):
        await session.hold(slots, need=need)
    session.shares.settle(first, need)

    await session.hold(slots, need=need)


async def test_a_call_from_under_which_others_take_what_it_waits_for_asks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the store is asked, another call uses what was free: there is enough for both, so none is told that there is not."""
    store = MemoryLeases()
    asked, answer, borrow = asyncio.Event(), asyncio.Event(), store.borrow

    async def slow(name: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        asked.set()
        await answer.wait()
        return await borrow(name, requests)

    session, one = Session(store, "s1"), budget(1)
    session.shares.settle(await session.hold(one, need=Need(USD // 20, 0, 0)), None)
    share = session.shares.of(one, time.time())
    share.recent = 0.0  # so that no more is borrowed than is asked for

    monkeypatch.setattr(store, "borrow", slow)
    async with asyncio.TaskGroup() as calls:
        calls.create_task(session.hold(one, need=Need(USD // 10, 0, 0)))
        await asked.wait()
        await session.hold(one, need=Need(USD // 20, 0, 0))
        answer.set()

    assert share.held == USD // 10 + USD // 20
    with pytest.raises(errors.BudgetExceeded):
        await session.hold(one, need=Need(USD, 0, 0))


async def test_what_one_session_does_not_need_another_can_borrow() -> None:
    """An idle session gives back at its next report; then the whole budget is the other's."""
    store = MemoryLeases()
    idle, busy = Session(store, "s1"), Session(store, "s2")
    one = budget(1)

    hold = await idle.hold(one, need=Need(USD * 9 // 10, 0, 0))
    idle.shares.settle(hold, None)
    with pytest.raises(errors.BudgetExceeded):
        await busy.hold(one, need=Need(USD * 9 // 10, 0, 0))
    for _ in range(40):
        await idle.till.sync()

    await busy.hold(one, need=Need(USD * 9 // 10, 0, 0))


@pytest.mark.parametrize("seed", range(5))
async def test_four_sessions_under_load_never_pass_the_limit_and_leave_little(seed: int) -> None:
    """64 clients over 4 sessions spend between 97 % and 100 % of a budget before everybody is refused."""
    chance = random.Random(seed)
    store = MemoryLeases()
    sessions = [Session(store, f"s{number}") for number in range(4)]
    one = budget(1)
    worst = USD // 200
    spent = 0
    peak = 0

    async def client(session: Session) -> None:
        nonlocal spent, peak
        denied = 0
        while denied < 3:
            try:
                hold = await session.hold(one, need=Need(worst, 0, 0))
            except errors.BudgetExceeded:
                denied += 1
                await asyncio.sleep(0.02)
                continue
            await asyncio.sleep(chance.random() * 0.002)
            cost = chance.randrange(worst // 10, worst + 1)
            session.shares.settle(hold, Need(cost, 0, 0))
            spent += cost
            held = sum(each.shares.of(one, time.time()).held for each in sessions)
            peak = max(peak, spent + held)

    async def reports(session: Session) -> None:
        while True:
            await asyncio.sleep(0.01)
            await session.till.sync()

    tasks = [asyncio.ensure_future(reports(session)) for session in sessions]
    await asyncio.gather(*(client(sessions[number % 4]) for number in range(64)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert peak <= USD
    assert spent >= 0.97 * USD


async def test_accounts_of_a_window_that_is_over_are_given_up() -> None:
    """A minute later the minute's share is reported for the last time and forgotten; the new minute starts at nothing."""
    clock = [1_000_000_020.0]
    store = MemoryLeases()
    shares = Shares()
    till = Till(store, "s1", shares, unix=lambda: clock[0], now=time.monotonic, spent=lambda *_: None)
    one = bind(Budget("m", Scope("key", "k"), USD, "minute"), "k")

    first = shares.of(one, clock[0])
    await till.fetch(((first, USD),))
    shares.settle(((first, USD),), Need(USD, 0, 0))
    clock[0] += 60
    second = shares.of(one, clock[0])
    await till.sync()

    assert second is not first
    assert set(shares.every) == {second.account.id}
    (state,) = await store.state([Account(first.account.id, USD)])
    assert state.used == USD


async def test_a_call_that_waited_past_the_end_of_its_window_is_reported() -> None:
    """A report that forgets ended windows may come while the call waits for the store; what it costs is told at the next one."""
    session = Session(MemoryLeases(), "s1")
    one = bind(Budget("b1", Scope("key", "k"), USD, "minute"), "k")
    needs = session.needs(one, need=Need(USD // 10, 0, 0))
    share = needs[0][0]

    assert session.shares.forget(time.time() + 120) == [share]
    await session.till.fetch(needs)
    session.shares.settle(needs, Need(USD // 20, 0, 0))
    await session.till.sync()

    assert share.reported[0] == USD // 20


async def test_a_store_is_left_alone_while_there_is_nothing_to_report() -> None:
    """It hears often enough that the session lives, and of what was settled at once."""
    asked: list[int] = []
    leases = MemoryLeases()

    class Counting:
        """The store, which notes how much it was told."""

        def __getattr__(self, name: str) -> Any:
            return getattr(leases, name)

        async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
            asked.append(len(reports))
            return await leases.sync(session, reports)

    clock = [100.0]
    shares = Shares()
    store: Any = Counting()
    till = Till(store, "s1", shares, unix=time.time, now=lambda: clock[0], spent=lambda *_: None)
    await till.sync(BEAT_S)
    assert asked == []

    share = shares.of(budget(1), time.time())
    await till.fetch(((share, USD // 10),))
    shares.settle(((share, USD // 10),), Need(USD // 100, 0, 0))
    await till.sync(BEAT_S)
    assert asked == [1]
    for _ in range(20):  # what is leased and not used goes back, and then there is nothing to tell any more
        await till.sync(BEAT_S)
    told = len(asked)
    await till.sync(BEAT_S)
    assert len(asked) == told

    clock[0] += BEAT_S
    await till.sync(BEAT_S)
    assert len(asked) == told + 1
    assert BEAT_S * 3 < SHARE_TTL_S, "two answers may get lost"


async def test_a_store_that_forgot_is_told_everything_again(new_redis: Callable[[], RedisServer]) -> None:
    """Also what has not changed since it was reported: otherwise it would be lent a second time."""
    redis = new_redis()
    store = RedisLeases(redis.url, quarantine_s=0, deadline_s=1.0)
    session = Session(store, "s1")
    await session.hold(budget(1), need=Need(USD // 2, 0, 0))
    await session.till.sync()
    redis.kill()
    redis.lose_data()
    redis.start()
    deadline = time.monotonic() + 20
    await session.till.sync()
    while not session.till.healthy and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        await session.till.sync()
    (state,) = await store.state([session.shares.of(budget(1), time.time()).account])
    assert state.used == USD // 2
    await store.disconnect()
