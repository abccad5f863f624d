"""Four processes, one budget, sixty-four clients, and an upstream that bills: nobody spends what is not there, whoever dies."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.crowd import Crowd
from tests.fixtures.fleet import INPUT, OUTPUT, USD, Fleet, Line, Places, ask, fleet, known_new, price
from tests.fixtures.ledger import open_calls
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

CLIENTS = 64
TOTAL = {"limit_usd": 1, "period": "total"}
HANG_S = 10.0  # whatever the machine is busy with

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def redis(new_redis: Callable[..., RedisServer]) -> RedisServer:
    return new_redis("--appendonly", "no")


@pytest.fixture(params=["redis", "postgres"])
async def places(request: pytest.FixtureRequest, new_postgres: Callable[[str], str], migrated_postgres: str) -> Places:
    """The database is PostgreSQL; money is lent by Redis, or by PostgreSQL too."""
    database = new_postgres(migrated_postgres)
    if request.param == "postgres":
        return Places(database, None)
    redis: RedisServer = request.getfixturevalue("redis")
    await known_new(redis)
    return Places(database, redis.url)


async def test_four_processes_spend_a_budget_to_its_end_and_no_further(
    places: Places, upstream: Upstream, tmp_path: Path
) -> None:
    """The upstream's bill is between 97 and 100 % of the budget, and the ledger says the same to the nano-dollar."""
    async with fleet(4, places, upstream, tmp_path, *answers(350, 650, 100, 300)) as four:
        key, made = four.new_key(budget=TOTAL)
        crowd = Crowd(four.servers, key, ask(max_tokens=300), CLIENTS)

        await crowd.run(Crowd.exhausted)

        seen = four.seen()
        bill = billed(seen)
        show("four processes", bill, crowd)
        assert 0.97 * USD <= bill <= USD
        refused_as_promised(crowd)
        lines = await four.shipped(lambda lines: len(lines) == len(seen))
        assert costs(lines) == {id_: price(entry) for id_, entry in seen.items()}
        assert {line.source for line in lines} == {"provider"}
        owed = four.script.bill()
        assert owed.calls == len(seen) == crowd.served
        assert owed.prompt_tokens * INPUT + owed.completion_tokens * OUTPUT == bill
        await nothing_held(four, made["budget"]["id"], bill)


async def test_servers_that_are_killed_cost_no_more_than_their_calls_in_flight(
    places: Places, upstream: Upstream, tmp_path: Path
) -> None:
    """Two die at random moments and come back on their data: what was in flight there costs its worst case, the rest the bill."""
    chance = random.Random()
    async with fleet(4, places, upstream, tmp_path, *answers(600, 650, 15, 20, after_s=0.02)) as four:
        key, made = four.new_key(budget=TOTAL)
        crowd = Crowd(four.servers, key, ask(max_tokens=20, padding=40), CLIENTS)
        came_back_s: list[float] = []

        async def dying(victim: Server, served: int) -> None:
            await crowd.reaches(served)
            await killed_at_work(victim)
            await asyncio.sleep(chance.random() * 0.3)
            await asyncio.to_thread(victim.start, with_key=False)
            came_back_s.append(victim.started_in_s)

        async with asyncio.TaskGroup() as group:
            deaths = [
                group.create_task(dying(victim, 150 + 400 * number + chance.randrange(200)))
                for number, victim in enumerate(chance.sample(four.servers, 2))
            ]
            group.create_task(crowd.run(lambda crowd: all(death.done() for death in deaths) and crowd.exhausted()))

        seen = four.seen()
        bill = billed(seen)
        show("two killed", bill, crowd, f"back in {', '.join(f'{took:.1f} s' for took in came_back_s)}")
        assert 0.97 * USD <= bill <= USD
        refused_as_promised(crowd)
        lines = await four.shipped(lambda lines: {line.id for line in lines} >= set(seen))
        crashed = as_billed_but_for_crashes(lines, seen)
        print(f"{crashed} calls in flight at the kills")
        spent = sum(line.cost_nanousd for line in lines)
        assert spent <= USD
        await nothing_held(four, made["budget"]["id"], spent)


async def test_a_redis_that_hangs_for_seconds_hangs_nobody(
    redis: RedisServer,
    new_postgres: Callable[[str], str],
    migrated_postgres: str,
    upstream: Upstream,
    tmp_path: Path,
) -> None:
    """Calls go on from what is leased or are told at once to come again; the budget's end is where it was."""
    await known_new(redis)
    places = Places(new_postgres(migrated_postgres), redis.url)
    async with fleet(4, places, upstream, tmp_path, *answers(350, 650, 100, 300)) as four:
        key, made = four.new_key(budget=TOTAL)
        crowd = Crowd(four.servers, key, ask(max_tokens=300), CLIENTS)
        paused_at, resumed_at = 0.0, 0.0

        async def hanging() -> None:
            nonlocal paused_at, resumed_at
            await crowd.reaches(200)
            paused_at = time.monotonic()
            redis.pause()
            while not everybody_answered(crowd, paused_at):
                assert time.monotonic() < paused_at + 2 * HANG_S, "they wait for Redis"
                await asyncio.sleep(0.05)
            redis.resume()
            resumed_at = time.monotonic()

        async with asyncio.TaskGroup() as group:
            pause = group.create_task(hanging())
            group.create_task(crowd.run(lambda crowd: pause.done() and crowd.exhausted()))

        seen = four.seen()
        bill = billed(seen)
        during = [answer for answer in crowd.answers if paused_at < answer.began < resumed_at]
        show("Redis stopped", bill, crowd, f"meanwhile {Counter(answer.status for answer in during)}")
        assert 0.97 * USD <= bill <= USD
        assert {answer.status for answer in during} <= {200, 429, 503}
        assert any(answer.status == 503 for answer in during)
        assert {answer.code for answer in during if answer.status == 503} == {"limits_unavailable"}
        lines = await four.shipped(lambda lines: len(lines) == len(seen))
        assert costs(lines) == {id_: price(entry) for id_, entry in seen.items()}
        await nothing_held(four, made["budget"]["id"], bill)
        assert max(answer.took_s for answer in crowd.answers) < HANG_S


def everybody_answered(crowd: Crowd, since: float) -> bool:
    """Whether each client has heard three answers to calls that began after a moment, and somebody that limits cannot be checked."""
    calls = [answer for answer in crowd.answers if answer.began > since]
    told = Counter(answer.client for answer in calls)
    return len(told) == CLIENTS and min(told.values()) >= 3 and any(answer.status == 503 for answer in calls)


async def killed_at_work(victim: Server) -> None:
    """With calls in flight. It is stopped to be looked at; after the end of the budget there are none to wait for."""
    deadline = time.monotonic() + 2
    while True:
        victim.freeze()
        if open_calls(victim.data) or time.monotonic() > deadline:
            victim.kill()
            return
        victim.thaw()
        await asyncio.sleep(0.005)


def answers(
    least_input: int, most_input: int, least_output: int, most_output: int, *, after_s: float = 0.002
) -> tuple[Behaviour, ...]:
    """Of many sizes; the last one goes on for ever."""
    chance = random.Random(7)
    return tuple(
        Behaviour(
            headers_after_s=after_s,
            prompt_tokens=chance.randint(least_input, most_input),
            completion_tokens=chance.randint(least_output, most_output),
        )
        for _ in range(400)
    )


def billed(seen: Mapping[str, Entry]) -> int:
    return sum(map(price, seen.values()))


def costs(lines: Sequence[Line]) -> Mapping[str, int]:
    """By call. None is there twice."""
    found = {line.id: line.cost_nanousd for line in lines}
    assert len(found) == len(lines)
    return found


def as_billed_but_for_crashes(lines: Sequence[Line], seen: Mapping[str, Entry]) -> int:
    """Every call that the upstream saw has one entry: its bill, or, if it was in flight at a kill, its worst case. How many were."""
    assert costs(lines).keys() >= seen.keys()
    crashed = [line for line in lines if line.reason == "crash"]
    assert crashed, "nothing was in flight at the kills"
    for line in lines:
        entry = seen.get(line.id)
        if line in crashed:
            assert line.source == "estimated"
            assert entry is None or line.cost_nanousd >= price(entry)
        else:
            assert entry is not None
            assert (line.source, line.cost_nanousd) == ("provider", price(entry))
    return len(crashed)


def refused_as_promised(crowd: Crowd) -> None:
    """Nothing but answers and denials that say that a retry is no use; 0 is a connection that a kill broke."""
    denials = [answer for answer in crowd.answers if answer.status == 429]
    assert {(answer.code, answer.may_retry) for answer in denials} == {("budget_exceeded", "false")}
    assert {answer.status for answer in crowd.answers} <= {200, 429, 0}


async def nothing_held(four: Fleet, budget: str, spent: int) -> None:
    """Within the time of a few reports every server has given back what it does not use."""
    deadline = time.monotonic() + 20
    while (state := four.budget(budget))["held_usd"] != 0:
        assert time.monotonic() < deadline, f"held for nobody: {state}"
        await asyncio.sleep(0.1)
    assert round(state["settled_usd"] * USD) == spent
    assert round(state["remaining_usd"] * USD) == USD - spent


def show(name: str, bill: int, crowd: Crowd, *more: Any) -> None:
    statuses = Counter(answer.status for answer in crowd.answers)
    longest = max(answer.took_s for answer in crowd.answers)
    print(f"\n{name}: bill {bill / USD:.6f} USD, answers {dict(statuses)}, longest {longest:.2f} s", *more)
