"""Limits of deployments over several processes: what they use together never passes a limit, and what one does not need others can have."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Deployment, Limits
from gateway.errors import RateLimited
from gateway.leases.memory import MemoryLeases
from gateway.planner import Planner
from gateway.resilience.health import Health
from gateway.routing.loads import Loads, Ticket
from gateway.shares import Shares
from gateway.till import Till
from tests.fixtures.deployments import Routes
from tests.fixtures.queues import most_at_once
from tests.fixtures.routing import Clock, deployment
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


class Process:
    """One gateway process, as far as limits of deployments go."""

    def __init__(self, name: str, store: MemoryLeases, clock: Clock) -> None:
        self.shares = Shares()
        self.till = Till(store, name, self.shares, unix=clock, now=clock, spent=lambda _share, _amount: None)
        self.loads = Loads(clock, lambda _deployment, _wild: None, self.shares)
        self.till.before_report = self.loads.refresh
        self.planner = Planner(Health(clock, lambda: 0.5), self.loads, lambda: 0.5, self.till.fetch)
        self.tickets: list[Ticket] = []

    async def begin(self, one: Deployment, tokens: int = 0) -> bool:
        await self.planner.borrow(one, tokens)
        if not self.loads.fits(one, tokens, sure=True):
            return False
        self.tickets.append(self.loads.begin(one, tokens))
        return True

    def end(self) -> None:
        if self.tickets:
            self.loads.let_go(self.tickets.pop(0), sent=True)


def processes(count: int, clock: Clock) -> list[Process]:
    store = MemoryLeases(clock, clock)
    return [Process(f"ses_{number}", store, clock) for number in range(count)]


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["begin", "begin", "end", "sync"]), st.floats(0, 3)), max_size=120
)


@settings(max_examples=40)
@given(st.integers(1, 6), STEPS)
async def test_no_more_are_in_flight_than_may_be(parallel: int, steps: Sequence[tuple[int, str, float]]) -> None:
    """Three processes begin, end and report in any order. Whoever is silent for ten seconds has lost its part, so none is."""
    clock, one = Clock(), deployment("a", limits=Limits(parallel=parallel))
    every = processes(3, clock)
    for number, what, wait_s in steps:
        clock.now += wait_s
        for process in every:
            await process.till.sync()
        process = every[number]
        match what:
            case "begin":
                await process.begin(one)
            case "end":
                process.end()
            case _:
                await process.till.sync()
        assert sum(len(process.tickets) for process in every) <= parallel


@settings(max_examples=40)
@given(st.integers(1, 12), STEPS)
async def test_no_minute_has_more_requests_than_the_limit(rpm: int, steps: Sequence[tuple[int, str, float]]) -> None:
    """Over all processes together; and nearly all of them, if they want more."""
    clock, one = Clock(), deployment("a", limits=Limits(rpm=rpm))
    every = processes(3, clock)
    let_in: list[float] = []
    for number, what, wait_s in steps:
        clock.now += wait_s
        for process in every:
            await process.till.sync()
        if what == "begin" and await every[number].begin(one):
            let_in.append(clock.now)
    for at in let_in:
        assert sum(at - 60 < other <= at for other in let_in) <= rpm


async def test_what_one_does_not_need_another_can_have() -> None:
    """All of it, a moment after the first one's calls have ended."""
    clock, one = Clock(), deployment("a", limits=Limits(parallel=4))
    first, second = processes(2, clock)
    assert [await first.begin(one) for _ in range(5)] == [True] * 4 + [False]
    assert not await second.begin(one)
    for _ in range(4):
        first.end()
    for _ in range(12):
        clock.now += 0.5
        await first.till.sync()
        await second.till.sync()
    assert [await second.begin(one) for _ in range(4)] == [True] * 4


async def test_tokens_are_shared_and_corrected() -> None:
    """What a call used less than it asked for is there for others; one that is larger than the minute has all of it."""
    clock, one = Clock(), deployment("a", limits=Limits(tpm=1000))
    first, second = processes(2, clock)
    assert await first.begin(one, 900)
    assert not await second.begin(one, 200)
    first.loads.end(first.tickets.pop(), None, 50, 50, ok=True)
    clock.now += 0.5
    await first.till.sync()
    assert await second.begin(one, 200)
    assert not await second.begin(one, 5000)
    alone = deployment("b", limits=Limits(tpm=1000))
    assert await first.begin(alone, 5000)
    assert not await second.begin(alone, 1)


async def test_most_calls_need_no_round_trip() -> None:
    """What is borrowed at once is what is used in two seconds."""
    clock, one = Clock(), deployment("a", limits=Limits(parallel=1000, rpm=100_000))
    (only,) = processes(1, clock)
    asked = 0
    for number in range(400):
        clock.now += 0.01
        asked += bool(only.loads.lacking(one, 0))
        assert await only.begin(one)
        only.end()
        if number % 50 == 49:
            await only.till.sync()
    assert asked <= 20


async def test_a_changed_limit_is_followed() -> None:
    """Lowered: what was borrowed beyond is given back; raised: there is more to borrow."""
    clock = Clock()
    first, second = processes(2, clock)
    four, two = (deployment("a", limits=Limits(parallel=parallel)) for parallel in (4, 2))
    assert [await first.begin(four) for _ in range(3)] == [True] * 3
    for _ in range(3):
        first.end()
    await first.till.sync()
    begun = [await process.begin(two) for process in (first, first, second, second)]
    assert sum(begun) <= 2
    assert begun[0]


async def test_without_the_store_each_goes_on_with_an_even_part() -> None:
    """Calls do not wait for a store that is away."""
    clock, one = Clock(), deployment("a", limits=Limits(parallel=4))
    process, _ = processes(2, clock)
    process.loads.fits(one, 0)
    process.loads.cut_off(one)
    begun = 0
    while process.loads.fits(one, 0, sure=True):
        process.loads.begin(one, 0)
        begun += 1
    assert begun == 4  # it knows of nobody else


async def test_a_store_that_has_no_more_is_not_asked_by_every_call() -> None:
    """For a fifth of a second after it said so."""
    clock, one = Clock(), deployment("a", limits=Limits(parallel=1))
    first, second = processes(2, clock)
    assert await first.begin(one)
    assert second.loads.fits(one, 0)  # nobody knows yet
    with pytest.raises(RateLimited):
        await second.till.fetch(second.loads.lacking(one, 0))
    assert not await second.begin(one)
    assert not second.loads.fits(one, 0)
    assert second.loads.lacking(one, 0) == ()
    clock.now += 0.25
    assert second.loads.fits(one, 0)


def known_to_all(server: Server) -> None:
    """The key is: a worker hears of what another one has made within a second. New connections are spread over them."""
    headers = {"authorization": f"Bearer {server.key}"}
    in_a_row, until = 0, time.monotonic() + 30
    while in_a_row < 20:
        assert time.monotonic() < until, server.output
        answer = httpx.get(f"{server.base_url}/models", headers=headers, trust_env=False, timeout=30)
        in_a_row = in_a_row + 1 if answer.status_code == 200 else 0


def test_workers_keep_a_limit_together(upstream: Upstream, tmp_path: Path) -> None:
    """Two processes behind one port, three places, sixteen streams: never more than three at once, and everybody is served."""
    script = upstream.script(Behaviour(text="a b c d", chunks=4, gap_s=0.02, prompt_tokens=7, completion_tokens=3))
    places = {"id": "a", "base_url": script.base_url, "model": "m", "limits": {"parallel": 3}}
    config = {"server": {"workers": 2}, "models": [{"name": "m", "queue": {}, "deployments": [places]}]}
    server = Server(config, tmp_path).start()
    try:
        routes = Routes(server, upstream)
        known_to_all(server)

        def ask(_: int) -> int:
            # A connection of its own: the kernel spreads them over the workers.
            headers = {"authorization": f"Bearer {server.key}"}
            with httpx.Client(base_url=server.url, timeout=30, trust_env=False, headers=headers) as http:
                return http.post("/v1/chat/completions", json=server.ask("m", stream=True)).status_code

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(16))) == [200] * 16
        entries = script.wait(lambda found: all(entry.ended_at is not None for entry in found))
        assert len(entries) == 16
        assert 2 <= most_at_once(entries) <= 3
        assert routes.settled(16)
    finally:
        server.stop()
