"""Every strategy under random models, loads and requests: the plan is whole, in order, and follows what it says."""

import random
from collections import Counter
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Deployment, Limits, Model, Strategy
from gateway.routing.asked import Asked
from gateway.routing.loads import Engine, Loads
from gateway.routing.plan import Plan, plan
from gateway.routing.strategies import STRATEGIES
from tests.fixtures.routing import Clock, asked, deployment, loads, model

EVERY: tuple[Strategy, ...] = tuple(STRATEGIES)

places = st.builds(
    lambda number, weight, order, parallel, price: deployment(
        f"d{number}",
        weight=weight,
        order=order,
        limits=None if parallel is None else Limits(parallel=parallel),
        usd=price,
    ),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.integers(1, 3),
    st.sampled_from([None, 1, 5]),
    st.sampled_from([None, (1.0, 2.0), (0.1, 10.0)]),
)
several = st.lists(places, min_size=1, max_size=6, unique_by=lambda one: one.id)


def first(of: Model, view: Loads, request: Asked, seed: int = 0) -> str:
    return plan(of, view, request, random.Random(seed).random).order[0].id


def busy(view: Loads, one: Deployment, calls: int) -> None:
    for _ in range(calls):
        view.begin(one, 0)


def answered(view: Loads, clock: Clock, one: Deployment, seconds: float, tokens: int = 100) -> None:
    ticket = view.begin(one, 0)
    clock.now += seconds
    view.end(ticket, None, 10, tokens, ok=True)


@settings(deadline=None)
@given(
    several,
    st.sampled_from(EVERY),
    st.dictionaries(st.integers(0, 5), st.integers(0, 8), max_size=6),
    st.sampled_from([None, "s1", "s2"]),
    st.integers(0, 2**32),
)
def test_a_plan_has_every_deployment_once_lower_orders_first(
    every: list[Deployment], strategy: Strategy, calls: dict[int, int], session: str | None, seed: int
) -> None:
    """Whatever the strategy, the load and the session; what is full comes in only where all are."""
    view = loads()
    for index, number in calls.items():
        if index < len(every):
            busy(view, every[index], number)
    request = asked(headers={} if session is None else {"x-penstock-session": session})
    made = plan(model(*every, strategy=strategy), view, request, random.Random(seed).random)
    roomy = [one for one in every if one.limits is None or view.fits(one, 300)]
    assert sorted(one.id for one in made.order) == sorted(one.id for one in roomy or every)
    orders = [one.order for one in made.order]
    assert orders == sorted(orders)
    for order in set(orders):
        tier = [one.weight > 0 for one in made.order if one.order == order]
        assert tier == sorted(tier, reverse=True)  # reserves last


@settings(deadline=None)
@given(several, st.sampled_from(EVERY), st.integers(0, 2**32))
def test_the_same_view_request_and_chance_give_the_same_plan(
    every: list[Deployment], strategy: Strategy, seed: int
) -> None:
    """Pure: nothing is read but what is given, and nothing changed by it."""
    view, of, request = loads(), model(*every, strategy=strategy), asked("why")

    def once() -> Plan:
        return plan(of, view, request, random.Random(seed).random)

    assert once() == once()


def test_shares_are_the_weights() -> None:
    """Chi-square of 20,000 draws, with a fixed seed, below the 0.1 % point of 3 degrees of freedom."""
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    of = model(*(deployment(id_, weight=weight) for id_, weight in weights.items()))
    chance, view, request = random.Random(7), loads(), asked()
    counts = Counter(plan(of, view, request, chance.random).order[0].id for _ in range(20_000))
    expected = {id_: 20_000 * weight / 10 for id_, weight in weights.items()}
    assert sum((counts[id_] - want) ** 2 / want for id_, want in expected.items()) < 16.27


def test_order_is_the_order_of_the_list() -> None:
    """Chance has no say."""
    of = model(deployment("b"), deployment("a"), deployment("c", order=0), strategy="order")
    for seed in range(20):
        order = plan(of, loads(), asked(), random.Random(seed).random).order
        assert [one.id for one in order] == ["c", "b", "a"]


def test_the_least_busy_for_its_weight_is_first() -> None:
    """Four calls at one of weight 4 are fewer than two at one of weight 1."""
    heavy, light = deployment("heavy", weight=4.0), deployment("light", weight=1.0)
    of, view = model(light, heavy, strategy="least_busy"), loads()
    busy(view, heavy, 4)
    busy(view, light, 2)
    assert first(of, view, asked()) == "heavy"
    made = plan(of, view, asked(), random.random)
    assert made.reason == "least_busy: heavy 1.25 < light 3"


def test_equally_busy_ones_share() -> None:
    """Ties are drawn, or an idle fleet would use its first machine alone."""
    of, view = model(deployment("a"), deployment("b"), strategy="least_busy"), loads()
    assert {first(of, view, asked(), seed) for seed in range(20)} == {"a", "b"}


def test_the_queue_of_an_engine_counts() -> None:
    """Other gateways fill it, too; and an engine whose cache is full is to be left alone."""
    a, b = deployment("a"), deployment("b")
    of, view = model(a, b, strategy="least_busy"), loads()
    busy(view, b, 2)
    view.of(a).observe(Engine(running=8, waiting=3, cache_share=0.5))
    assert first(of, view, asked()) == "b"
    view.of(a).observe(Engine(cache_share=0.97))
    busy(view, a, 1)
    assert first(of, view, asked()) == "b"
    view.of(a).observe(None)
    assert first(of, view, asked()) == "a"


def test_the_faster_one_is_first_until_it_is_full() -> None:
    """Time times calls in flight: an idle slow one beats a fast one with a queue."""
    clock = Clock()
    slow, fast = deployment("slow"), deployment("fast")
    of, view = model(slow, fast, strategy="latency"), loads(clock)
    answered(view, clock, slow, 3.0)
    answered(view, clock, fast, 1.0)
    assert first(of, view, asked()) == "fast"
    reason = plan(of, view, asked(), random.random).reason
    assert reason is not None
    assert reason.startswith("latency: fast ")
    busy(view, fast, 5)
    assert first(of, view, asked()) == "slow"


def test_a_peak_counts_at_once_and_fades() -> None:
    """One slow answer is enough to go elsewhere, for a while."""
    clock = Clock()
    a, b = deployment("a"), deployment("b")
    of, view = model(a, b, strategy="latency"), loads(clock)
    for _ in range(20):
        answered(view, clock, a, 0.1)
        answered(view, clock, b, 0.5)
    assert first(of, view, asked()) == "a"
    answered(view, clock, a, 10.0)
    answered(view, clock, b, 0.5)
    assert first(of, view, asked()) == "b"
    clock.now += 1
    for _ in range(60):
        answered(view, clock, b, 0.5)
    assert first(of, view, asked()) == "a"


def test_a_timeout_makes_slow_and_a_quick_failure_does_not_make_fast() -> None:
    """An upstream that refuses in a millisecond is not the fastest."""
    clock = Clock()
    a, b = deployment("a"), deployment("b")
    of, view = model(a, b, strategy="latency"), loads(clock)
    answered(view, clock, a, 1.0)
    answered(view, clock, b, 0.9)
    ticket = view.begin(a, 0)
    view.end(ticket, None, None, 0, ok=False)
    assert first(of, view, asked()) == "b"
    ticket = view.begin(b, 0)
    clock.now += 30
    view.end(ticket, None, None, 0, ok=False)
    assert first(of, view, asked()) == "a"


def test_streams_are_compared_by_first_token_and_tokens() -> None:
    """A quick start with slow tokens loses on long answers and wins on short ones."""
    clock = Clock()
    starts, runs = deployment("starts"), deployment("runs")
    of, view = model(starts, runs, strategy="latency"), loads(clock)
    for one, start_s, each_s in ((starts, 0.1, 0.1), (runs, 1.0, 0.001)):
        ticket = view.begin(one, 0)
        clock.now += start_s
        at = clock.now
        clock.now += 99 * each_s
        view.end(ticket, at, 10, 100, ok=True)
    clock.now = 1020.0
    assert first(of, view, asked(stream=True)) == "runs"
    assert first(of, view, asked(stream=True, max_tokens=2)) == "starts"


def test_two_choices_leave_the_third_alone() -> None:
    """Power of two: the best of all gets two thirds of the draws of three, not every call."""
    clock = Clock()
    every = [deployment(name) for name in "abc"]
    view = loads(clock)
    for one, seconds in zip(every, (0.1, 0.2, 0.3), strict=True):
        answered(view, clock, one, seconds)
    of, chance = model(*every, strategy="latency"), random.Random(3)
    counts = Counter(plan(of, view, asked(), chance.random).order[0].id for _ in range(6000))
    assert isclose(counts["a"] / 6000, 2 / 3, abs_tol=0.03)
    assert isclose(counts["b"] / 6000, 1 / 3, abs_tol=0.03)
    assert counts["c"] == 0


def test_the_cheapest_depends_on_the_call() -> None:
    """A long prompt with a short answer, and the other way round; what has no price is last."""
    reads, writes, dark = (
        deployment("reads", usd=(0.1, 10.0)),
        deployment("writes", usd=(1.0, 1.0)),
        deployment("dark"),
    )
    of, view = model(dark, reads, writes, strategy="cost"), loads()
    long = plan(of, view, asked("x" * 40_000, max_tokens=10), random.random)
    short = plan(of, view, asked("x", max_tokens=4000), random.random)
    assert [one.id for one in long.order] == ["reads", "writes", "dark"]
    assert [one.id for one in short.order] == ["writes", "reads", "dark"]
    assert short.reason is not None
    assert short.reason.startswith("cost: writes $0.00")


def test_the_emptiest_quota_is_first() -> None:
    """By whichever of its limits is nearest to its end."""
    a = deployment("a", limits=Limits(rpm=100, tpm=10_000))
    b = deployment("b", limits=Limits(rpm=10))
    of, view = model(a, b, strategy="usage"), loads()
    view.begin(b, 300)
    assert first(of, view, asked()) == "a"
    view.begin(a, 5_000)
    assert plan(of, view, asked(), random.random).reason == "usage: b 10% < a 50%"


def test_what_is_full_or_unwell_is_left_out_and_said_so() -> None:
    """The reason counts them."""
    full, ill, good = deployment("full", limits=Limits(parallel=1)), deployment("ill"), deployment("good")
    other = deployment("other")
    of, view = model(full, ill, good, other), loads()
    view.begin(full, 0)
    made = plan(of, view, asked(), lambda: 0.0, lambda every: [one for one in every if one is not ill])
    assert made.reason == "weighted: good of 2; 1 unwell; 1 at a limit"
    assert {one.id for one in made.order} == {"good", "other"}


def test_where_all_are_full_all_are_tried() -> None:
    """The attempt finds out, and waits or refuses."""
    every = [deployment(name, limits=Limits(parallel=1)) for name in "ab"]
    view = loads()
    for one in every:
        view.begin(one, 0)
    assert len(plan(model(*every), view, asked(), random.random).order) == 2


@pytest.mark.parametrize("strategy", EVERY)
def test_a_reserve_is_only_used_where_nothing_else_is(strategy: Strategy) -> None:
    """Weight 0, even if it is the fastest, the cheapest, the emptiest."""
    reserve, main = deployment("reserve", weight=0.0, usd=(0.0, 0.0)), deployment("main", usd=(5.0, 5.0))
    view = loads()
    busy(view, main, 10)
    made = plan(model(reserve, main, strategy=strategy), view, asked(), random.random)
    assert [one.id for one in made.order] == ["main", "reserve"]
