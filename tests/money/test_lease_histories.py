"""Random histories of borrowing, spending, crashes, recoveries, edits and clocks, over every store, checked at every step."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.fixtures.leases import Stores
from tests.money.lease_history import STEP_BYTES, History

STEPS_PER_RULE = 50
RULES = 30


def run_histories(new_stores: Callable[[], Stores], examples: int, *, shrink: bool) -> int:
    """Returns the number of steps that were made. A server's history takes seconds: too long to shrink."""
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
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    run_state_machine_as_test(Histories, settings=limits)
    return made


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "examples", "steps"),
    [("memory", 75, 94_000), ("sqlite", 2, 2000), ("postgres", 2, 2000), ("redis", 2, 2000)],
)
def test_no_history_breaks_a_limit(new_stores: Callable[[str], Stores], kind: str, examples: int, steps: int) -> None:
    """10^5 steps over all stores: each grant and each sum is what a plain model says, and no limit is passed."""
    made = run_histories(lambda: new_stores(kind), examples, shrink=kind == "memory")
    print(f"{kind}: {made} steps")
    assert made >= steps


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "examples", "steps"),
    [("memory", 700, 940_000), ("sqlite", 20, 20_000), ("postgres", 20, 20_000), ("redis", 20, 20_000)],
)
def test_no_long_history_breaks_a_limit(
    new_stores: Callable[[str], Stores], kind: str, examples: int, steps: int
) -> None:
    """The same for 10^6 steps."""
    assert run_histories(lambda: new_stores(kind), examples, shrink=kind == "memory") >= steps
