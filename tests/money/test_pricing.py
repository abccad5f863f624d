"""Costs are exact until one rounding up, and no call costs more than its worst case."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.pricing import combined, compile_price, cost, factor_of, fixed_price, pico_per_token, worst_case
from gateway.settings import PriceSpec, PricingSection
from gateway.tariffs import Price, Schedule, Tariff
from gateway.usage import usage
from gateway.used import Usage

COUNT = st.integers(0, 300_000)
RATE = st.none() | st.integers(0, 10**9)
TOKEN_RATES = (
    "input", "output", "cached_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input",
    "image_output", "request",
)  # fmt: skip
TARIFFS = st.builds(Tariff, **dict.fromkeys(TOKEN_RATES, RATE))
TIERS = st.lists(st.tuples(st.integers(1, 250_000), TARIFFS), max_size=2, unique_by=lambda tier: tier[0]).map(tuple)
PLAIN = st.builds(Schedule, base=TARIFFS, tiers=TIERS)
SCHEDULES = st.builds(
    Schedule, base=TARIFFS, tiers=TIERS, services=st.dictionaries(st.sampled_from(["batch", "priority"]), PLAIN)
)
SUBSETS = (
    "cached_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input", "image_output",
)  # fmt: skip
USAGES = st.builds(usage, COUNT, COUNT, **dict.fromkeys(SUBSETS, COUNT))
SERVICE = st.sampled_from([None, "batch", "priority", "auto"])


def price(**usd_per_million: float) -> Price:
    schedule = PriceSpec.model_validate(usd_per_million).schedule()
    assert schedule is not None
    return compile_price(schedule)


@given(USAGES, SCHEDULES, SERVICE, st.integers(0, 1000), st.integers(0, 1000))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    used: Usage, schedule: Schedule, service: str | None, more_in: int, more_out: int
) -> None:
    """Whatever kinds the tokens turn out to be, at the asked service tier or the usual one: what was held suffices."""
    compiled = compile_price(schedule)
    most = worst_case(used.input + more_in, used.output + more_out, 1, compiled, service_tier=service)
    assert cost(used, compiled, service) <= most
    assert cost(used, compiled) <= most


@given(COUNT, COUNT, COUNT, COUNT, COUNT, SCHEDULES)
def test_text_needs_no_hold_for_sound(
    input_: int, output: int, read: int, write: int, thought: int, schedule: Schedule
) -> None:
    """`text_only` leaves out the rates for audio and for an hour of cache, and still bounds every text."""
    compiled = compile_price(schedule)
    used = usage(input_, output, cached_read=read, cache_write=write, reasoning=thought)
    least = worst_case(input_, output, 1, compiled, text_only=True)
    assert cost(used, compiled) <= least <= worst_case(input_, output, 1, compiled)
    assert not compiled.one_rate or least == worst_case(input_, output, 1, compiled)


@given(st.lists(USAGES, min_size=1, max_size=5), TARIFFS)
def test_splitting_a_call_only_adds_roundings(calls: list[Usage], tariff: Tariff) -> None:
    """Without tiers a sum of usages costs the sum of costs, less at most one nano-dollar for each further rounding.

    Where cached tokens overlap with audio, the discount is given to the plain ones first, so that a sum may be cheaper, never dearer.
    """
    compiled = compile_price(Schedule(tariff))
    total = calls[0]
    for call in calls[1:]:
        total += call
    apart = sum(cost(call, compiled) for call in calls)
    overlap = any(
        call.cached_read + call.cache_write + call.audio_input + call.image_input > call.input for call in calls
    )
    if not overlap:
        assert apart - len(calls) < cost(total, compiled) <= apart


@given(USAGES, SCHEDULES, st.integers(0, 99), st.integers(0, 300))
def test_a_factor_scales_the_cost(used: Usage, schedule: Schedule, discount: int, markup: int) -> None:
    """Discount and markup multiply; rates are rounded up to pico-dollars, so never too cheap."""
    factor = factor_of(discount / 100, markup / 100)
    plain, scaled = cost(used, compile_price(schedule)), cost(used, compile_price(schedule, factor))
    tokens = used.input * 2 + used.output * 2 + 1
    assert abs(Fraction(scaled) - plain * Fraction(*factor)) <= Fraction(tokens * 4, 1000) + 1 + Fraction(*factor)


@pytest.mark.parametrize(
    ("used", "nanousd"),
    [
        (usage(1_000_000), 150_000_000),
        (usage(0, 1), 600),
        (usage(1000, 500, cached_read=400), 600 * 150 + 400 * 75 + 500 * 600),
        (usage(1, 0, cached_read=1), 75),
        (usage(), 0),
    ],
)
def test_known_costs(used: Usage, nanousd: int) -> None:
    """gpt-4o-mini's prices by hand."""
    assert cost(used, price(input=0.15, output=0.6, cached_input=0.075)) == nanousd


def test_a_fraction_of_a_nano_dollar_is_rounded_up_once() -> None:
    """0.0375 USD per million: three tokens are 112.5 nano-dollars, four are exactly 150."""
    cheap = price(input=0.0375)
    assert [cost(usage(tokens), cheap) for tokens in (3, 4)] == [113, 150]
    assert pico_per_token(0.0375) == 37_500


def test_long_inputs_move_every_token_to_their_tier() -> None:
    """The boundary itself is still at the base price."""
    tiered = price(input=1, output=10, tiers=[{"above": 200, "input": 2}])  # type: ignore[arg-type]
    assert cost(usage(200, 1), tiered) == 200 * 1000 + 10_000
    assert cost(usage(201, 1), tiered) == 201 * 2000 + 10_000


def test_service_tiers_are_factors_on_everything() -> None:
    """What the answer says was served counts; an unknown tier costs the usual price."""
    tiered = price(input=1, output=10, service_tiers={"batch": 0.5, "priority": 2})  # type: ignore[arg-type]
    assert [cost(usage(10, 10), tiered, tier) for tier in (None, "batch", "priority", "default")] == [
        110_000,
        55_000,
        220_000,
        110_000,
    ]


def test_units_other_than_tokens() -> None:
    """Images, seconds, characters, search units, requests."""
    units = price(per_image=0.04, per_second=0.0001, per_character=0.000015, per_search_unit=0.002, per_request=0.01)
    assert cost(usage(images=2, seconds=1.5, characters=3, search_units=1), units) == (
        80_000_000 + 150_000 + 45_000 + 2_000_000 + 10_000_000
    )


def test_n_answers_are_held_n_times() -> None:
    """The prompt once, each answer at its most."""
    assert worst_case(100, 50, 3, price(input=1, output=2)) == 100 * 1000 + 150 * 2000


def test_a_fixed_price_is_what_a_call_costs_and_at_most_costs() -> None:
    """What `hold` charges where nobody knows the price."""
    fixed = fixed_price(5_000_000)
    assert cost(usage(10**6, 10**6), fixed) == worst_case(10**6, 10**6, 1, fixed) == 5_000_000


def test_factors_combine_exactly() -> None:
    """As they are written, not as floats have them."""
    assert factor_of(0.1, 0.2) == (27, 25)
    assert combined([(27, 25), factor_of(0.5)]) == (27, 50)


@pytest.mark.parametrize(
    "spec",
    [
        {"output": 1},
        {"tiers": [{"above": 1, "input": 1}]},
        {"service_tiers": {"batch": 0.5}},
        {"input": -1},
        {"discount": 2},
    ],
)
def test_a_price_that_is_free_by_accident_is_refused(spec: dict[str, object]) -> None:
    """An output without an input would make every prompt free."""
    with pytest.raises(ValidationError):
        PriceSpec.model_validate(spec)


def test_a_hold_needs_its_amount() -> None:
    """`hold` without a cost would hold nothing."""
    with pytest.raises(ValidationError, match="belong together"):
        PricingSection.model_validate({"unknown": "hold"})
    assert PricingSection.model_validate({"unknown": "hold", "hold_usd": 0.01}).terms().hold_nanousd == 10_000_000
