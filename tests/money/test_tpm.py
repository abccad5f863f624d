"""Tokens and requests per minute and calls at once, over two processes and sixty-four clients: never more than the limit says."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fixtures.crowd import Crowd
from tests.fixtures.fleet import Fleet, Places, ask, fleet, known_new
from tests.fixtures.redis import RedisServer
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

CLIENTS = 64
TPM = 10_000
SLACK = 2  # of an account kept in whole tokens, one per process

pytestmark = pytest.mark.timeout(150)


class Served(NamedTuple):
    """An amount, when the upstream was asked for it (its own monotonic clock)."""

    at: float
    amount: int


@pytest.fixture
async def places(
    new_redis: Callable[..., RedisServer], new_postgres: Callable[[str], str], migrated_postgres: str
) -> Places:
    redis = new_redis("--appendonly", "no")
    await known_new(redis)
    return Places(new_postgres(migrated_postgres), redis.url)


@pytest.mark.parametrize("seconds", [8, pytest.param(75, marks=pytest.mark.soak)])
async def test_no_stretch_of_time_serves_more_tokens_than_burst_and_refill(
    seconds: float, places: Places, upstream: Upstream, tmp_path: Path
) -> None:
    """Of 10,000 tokens a minute with a burst of a minute, T seconds serve at most 10,000 + T × 10,000 / 60; and nearly that."""
    behaviour = Behaviour(headers_after_s=0.005, prompt_tokens=40, completion_tokens=60)
    async with fleet(2, places, upstream, tmp_path, behaviour) as two:
        key, _ = two.new_key(limits={"tpm": TPM})
        await crowded(two, key, seconds)

        served = [Served(one.arrived_at, one.prompt_tokens + one.completion_tokens) for one in arrivals(two)]
        most_at_once(served, burst=TPM, rate_per_s=TPM / 60)
        total, lasted = sum(one.amount for one in served), served[-1].at - served[0].at
        print(f"\n{total} tokens in {lasted:.1f} s, at most {TPM + lasted * TPM / 60:.0f}")
        assert total > 0.85 * (TPM + lasted * TPM / 60)


async def test_requests_per_minute_are_served_to_the_last_and_not_one_more(
    places: Places, upstream: Upstream, tmp_path: Path
) -> None:
    """Of 120 a minute: 120 at once, then two a second, from two processes together."""
    async with fleet(2, places, upstream, tmp_path, Behaviour(headers_after_s=0.005)) as two:
        key, _ = two.new_key(limits={"rpm": 120})
        await crowded(two, key, 5)

        served = [Served(one.arrived_at, 1) for one in arrivals(two)]
        most_at_once(served, burst=120, rate_per_s=2)
        lasted = served[-1].at - served[0].at
        print(f"\n{len(served)} requests in {lasted:.1f} s")
        assert len(served) >= 120 + int(2 * lasted) - 4


async def test_no_more_calls_run_at_once_than_the_limit_says(
    places: Places, upstream: Upstream, tmp_path: Path
) -> None:
    """Four, as the upstream counts them, whichever of two processes they come from; and four do run."""
    async with fleet(2, places, upstream, tmp_path, Behaviour(headers_after_s=0.05)) as two:
        key, _ = two.new_key(limits={"parallel": 4})
        await crowded(two, key, 3)

        moments = [(one.arrived_at, 1) for one in arrivals(two)] + [(one.ended_at or 0.0, -1) for one in arrivals(two)]
        running, most = 0, 0
        for _, change in sorted(moments):
            running += change
            most = max(most, running)
        print(f"\n{len(moments) // 2} calls, at most {most} at once")
        assert most == 4


async def crowded(two: Fleet, key: str, seconds: float) -> None:
    """Everybody calls all the time; nothing but answers and 429 comes back."""
    end = time.monotonic() + seconds
    crowd = Crowd(two.servers, key, ask(max_tokens=60), CLIENTS)
    await crowd.run(lambda _: time.monotonic() > end)
    assert {answer.status for answer in crowd.answers} == {200, 429}
    denials = {(answer.code, answer.may_retry) for answer in crowd.answers if answer.status == 429}
    assert denials == {("rate_limit_exceeded", "")}


def arrivals(two: Fleet) -> Sequence[Entry]:
    return sorted(two.seen().values(), key=lambda entry: entry.arrived_at)


def most_at_once(served: Sequence[Served], *, burst: int, rate_per_s: float) -> None:
    """No window from any call to any later one may serve more than a bucket that was full and refilled meanwhile.

    Over all windows at once: the level of that bucket, replayed call by call, never falls below zero.
    """
    level, at = float(burst), served[0].at
    for one in served:
        level = min(burst, level + (one.at - at) * rate_per_s) - one.amount
        at = one.at
        assert level >= -SLACK, f"{-level:.0f} too many after {one.at - served[0].at:.2f} s"
