"""The size of slices: a table, and a simulation of four sessions that spend one budget to its end."""

import heapq
import random
from collections.abc import Callable
from functools import partial

import pytest

from gateway.leases.accounts import Account, Borrow, Report
from gateway.leases.memory import MemoryLeases
from gateway.leases.policy import kept, slice_of

CLIENTS = (40, 16, 6, 2)  # of each session: the load is uneven
HEARTBEAT_S = 1.0


@pytest.mark.parametrize(
    ("missing", "use_per_s", "remaining", "sharers", "expected"),
    [
        (10, 0.0, 1000, 1, 10),  # nothing is known of the session yet: what the call needs
        (10, 50.0, 1000, 1, 100),  # two seconds of use
        (10, 50.0, 1000, 10, 50),  # but no more than half a fair part of what is left
        (10, 50.0, 100, 10, 10),  # near the end: the need
        (10, 50.0, 0, 1, 10),
        (10, 50.0, -500, 1, 10),  # after an overrun
        (10, 0.1, 1000, 0, 10),
        (1, 0.2, 1000, 1, 1),
    ],
)
def test_a_slice_is_what_is_used_soon_within_a_fair_part(
    missing: int, use_per_s: float, remaining: int, sharers: int, expected: int
) -> None:
    """Never less than the call needs: the store decides whether that is there."""
    assert slice_of(missing, use_per_s, remaining, sharers) == expected


@pytest.mark.parametrize(
    ("idle", "use_per_s", "remaining", "sharers", "expected"),
    [
        (100, 0.0, 1000, 1, 0),  # an idle session gives everything back
        (100, 20.0, 1000, 1, 40),
        (100, 500.0, 1000, 1, 100),
        (100, 500.0, 0, 2, 25),  # near the end: others may need it
        (3, 500.0, 0, 4, 0),
        (0, 500.0, 1000, 1, 0),
        (100, 500.0, -500, 1, 0),
    ],
)
def test_what_is_kept_is_what_is_used_soon_within_a_fair_part(
    idle: int, use_per_s: float, remaining: int, sharers: int, expected: int
) -> None:
    """The rest goes back with the next report."""
    assert kept(idle, use_per_s, remaining, sharers) == expected


class Simulated:
    """One session as the gateway keeps it: holds from what it has, borrows what is missing, reports once a second."""

    def __init__(self, name: str, store: MemoryLeases, account: Account) -> None:
        self._name = name
        self._store = store
        self._account = account
        self._settled = self._idle = self._held = self._used = 0
        self._use_per_s = 0.0
        self._remaining, self._sharers = account.limit, 1
        self.messages = 0

    async def hold(self, worst: int) -> bool:
        missing = worst - self._idle
        if missing > 0:
            want = slice_of(missing, self._use_per_s, self._remaining, self._sharers)
            self.messages += 1
            (grant,) = await self._store.borrow(self._name, [Borrow(self._account, want, missing)])
            self._idle += grant.amount
            self._remaining, self._sharers = grant.remaining, grant.sharers
            if not grant.amount:
                return False
        self._idle -= worst
        self._held += worst
        self._used += worst
        return True

    def settle(self, worst: int, cost: int) -> None:
        self._held -= worst
        self._settled += cost
        self._idle += worst - cost

    async def report(self) -> None:
        self._use_per_s += 0.5 * (self._used / HEARTBEAT_S - self._use_per_s)
        self._used = 0
        self._idle = kept(self._idle, self._use_per_s, self._remaining, self._sharers)
        self.messages += 1
        (state,) = await self._store.sync(self._name, [Report(self._account, self._settled, self._idle + self._held)])
        self._remaining, self._sharers = state.remaining, state.sharers


@pytest.mark.parametrize(("calls", "messages_per_call"), [(300, 1.5), (3000, 0.25), (30_000, 0.1)])
@pytest.mark.parametrize("seed", range(5))
async def test_a_budget_is_spent_to_its_end_by_four_uneven_sessions(
    calls: int, messages_per_call: float, seed: int
) -> None:
    """At least 97 % of it, for calls of 0.2 to 0.5 % and smaller. Messages, refused ones too, get rare as calls get small."""
    spent, made, messages, seconds = await spend(limit=1_000_000_000, worst=1_000_000_000 // calls, seed=seed)
    print(
        f"{calls:6} calls would fit: {spent:.2%} spent in {seconds:.0f} s, {messages / made * 1000:.0f} messages per 1,000 calls"
    )
    assert 0.97 <= spent <= 1.0
    assert messages / made < messages_per_call


async def spend(limit: int, worst: int, seed: int) -> tuple[float, int, int, float]:
    """Until every client was refused in a row and nothing is in flight: part of the limit spent, calls, messages, seconds."""
    dice = random.Random(seed)
    now = 0.0
    account = Account("b:budget:0", limit)
    store = MemoryLeases(clock=lambda: now)
    sessions = [Simulated(f"ses_{each}", store, account) for each in range(len(CLIENTS))]
    events: list[tuple[float, int, Callable[[], object]]] = []
    spent = made = in_flight = order = 0
    refused: set[int] = set()

    def at(seconds: float, what: Callable[[], object]) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (now + seconds, order, what))

    async def call(session: Simulated, client: int) -> None:
        nonlocal in_flight, made
        amount = dice.randint(worst * 3 // 5, worst * 3 // 2)
        if not await session.hold(amount):
            refused.add(client)
            at(dice.uniform(0.3, 0.7), lambda: call(session, client))
            return
        refused.clear()
        in_flight += 1
        made += 1
        at(dice.uniform(0.1, 1.0), lambda: end(session, client, amount, dice.randint(amount // 3, amount)))

    def end(session: Simulated, client: int, amount: int, cost: int) -> None:
        nonlocal in_flight, spent
        in_flight -= 1
        spent += cost
        session.settle(amount, cost)
        at(0.0, lambda: call(session, client))

    async def beat(session: Simulated) -> None:
        await session.report()
        at(HEARTBEAT_S, lambda: beat(session))

    for number, session in enumerate(sessions):
        at(dice.random(), partial(beat, session))
        for each in range(CLIENTS[number]):
            at(dice.random(), partial(call, session, number * 100 + each))
    while len(refused) < sum(CLIENTS) or in_flight:
        now, _, what = heapq.heappop(events)
        done = what()
        if done is not None:
            await done  # type: ignore[misc] # events are coroutines, or plain functions that return None
    return spent / limit, made, sum(each.messages for each in sessions), now
