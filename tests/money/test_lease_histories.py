"""Random histories of borrowing, spending, crashes, recoveries, edits and clocks, over every store, checked at every step."""

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.fixtures.leases import Stores
from tests.money.lease_history import STEP_BYTES, History

STEPS_PER_RULE = 50
RULES = 30
SERVERS = ("sqlite", "postgres", "redis")


async def run_history(stores: Stores, seed: int, steps: int) -> None:
    """A server's history takes seconds: too long to look for it and to shrink it."""
    try:
        await History(stores).run(random.Random(seed).randbytes(STEP_BYTES * steps))
    finally:
        await stores.disconnect()


def run_histories(new_stores: Callable[[], Stores], examples: int) -> int:
    """Returns the number of steps that were made."""
    made = 0

    class Histories(RuleBasedStateMachine):
        """Each rule is a program: bytes are drawn, shrunk and replayed much faster than a choice at a time."""

        def __init__(self) -> None:
            super().__init__()
            self._runner = asyncio.Runner()
            self._stores = new_stores()
            self._history = History(self._stores)

        @rule(program=st.binary(min_size=STEP_BYTES * STEPS_PER_RULE, max_size=STEP_BYTES * STEPS_PER_RULE))
        def run(self, program: bytes) -> None:
            nonlocal made
            made += self._runner.run(self._history.run(program))

        def teardown(self) -> None:
            self._runner.run(self._stores.disconnect())
            self._runner.close()

    limits = settings(
        max_examples=examples,
        stateful_step_count=RULES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(Histories, settings=limits)
    return made


@pytest.mark.timeout(300)
def test_no_history_breaks_a_limit(new_stores: Callable[[str], Stores]) -> None:
    """10^5 steps in memory, where a history that breaks one is shrunk to the few steps that do it."""
    assert run_histories(lambda: new_stores("memory"), 75) >= 94_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", SERVERS)
async def test_no_history_breaks_a_limit_elsewhere(new_stores: Callable[[str], Stores], kind: str, seed: int) -> None:
    """Each grant and each sum is what a plain model says, and no limit is passed. The same histories every time."""
    await run_history(new_stores(kind), seed, 1000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", SERVERS)
async def test_no_new_history_breaks_a_limit_elsewhere(new_stores: Callable[[str], Stores], kind: str) -> None:
    """20,000 steps that nobody has tried before; the seed of what fails is printed."""
    for _ in range(20):
        seed = random.SystemRandom().getrandbits(32)
        print(f"{kind}: seed {seed}")
        await run_history(new_stores(kind), seed, 1000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_long_history_breaks_a_limit(new_stores: Callable[[str], Stores]) -> None:
    """10^6 steps in memory."""
    assert run_histories(lambda: new_stores("memory"), 700) >= 940_000
