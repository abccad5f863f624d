"""The hold covers what is settled, whatever the price and whoever counted; and a price that says nothing of a call is no price."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.pricing import compile_price, cost, worst_case
from gateway.tariffs import Schedule, Tariff
from gateway.units.ask import Ask, is_text, weighed
from gateway.units.settle import TOKENS, UNITS, prices, settled
from gateway.usage import usage
from gateway.used import Usage

RATES = st.one_of(st.none(), st.integers(0, 10**9))
TARIFFS = st.builds(Tariff, **dict.fromkeys(Tariff.__struct_fields__, RATES))
COUNTS = st.integers(0, 5_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """As a door would state them: audio and images are part of what they belong to."""
    audio_in, image_in, audio_out, image_out = (draw(COUNTS) for _ in range(4))
    return usage(
        audio_in + image_in + draw(COUNTS),
        audio_out + image_out + draw(COUNTS),
        audio_input=audio_in,
        image_input=image_in,
        audio_output=audio_out,
        image_output=image_out,
        images=draw(COUNTS),
        seconds=float(draw(COUNTS)),
        characters=draw(COUNTS),
        search_units=draw(COUNTS),
    )


def within(most: Usage, share: float) -> Usage:
    """A usage that does not pass the most."""
    names = (*TOKENS, *(unit for unit, _ in UNITS))
    return msgspec.structs.replace(
        most, **{name: type(getattr(most, name))(getattr(most, name) * share) for name in names}
    )


@given(usages(), TARIFFS, st.floats(0, 1), st.floats(0, 1), st.booleans(), st.booleans())
def test_what_is_settled_was_held(
    most: Usage,
    tariff: Tariff,
    share: float,
    reported: float,
    says: bool,
    exact: bool,
) -> None:
    """Of any report within the most, and of none."""
    price = compile_price(Schedule(tariff))
    bound = within(most, share)
    known = Usage(**{unit: getattr(bound, unit) for unit, _ in UNITS}) if exact else Usage(requests=0)
    ask = Ask(model="m", most=most, exact=known, likely=bound)
    worst = weighed(ask, None, 0)
    held = worst_case(worst.input, worst.output, 1, price, text_only=is_text(worst), extras=worst)
    used, source = settled(within(most, reported) if says else None, ask, price)
    assert cost(used, price) <= held
    assert used.requests == 1
    assert says or source != "provider"


@given(usages(), TARIFFS)
def test_a_call_is_free_only_where_the_price_is(most: Usage, tariff: Tariff) -> None:
    """What passes as priced and uses the most that it can costs something, or everything costs nothing."""
    price = compile_price(Schedule(tariff))
    ask = Ask(model="m", most=most)
    free = not any(msgspec.structs.astuple(price.rates))
    worst = worst_case(most.input, most.output, 1, price, extras=most)
    if prices(price, ask) and not free:
        assert worst > 0


def test_pictures_are_not_priced_by_their_description() -> None:
    """A model with a rate for input alone does not make pictures for nothing."""
    drawn = Ask(model="m", most=usage(10, 4000, image_output=4000, images=1))
    assert not prices(compile_price(Schedule(Tariff(input=5_000_000))), drawn)
    assert prices(compile_price(Schedule(Tariff(input=5_000_000, image_output=40_000_000))), drawn)
    assert prices(compile_price(Schedule(Tariff(image=40_000_000_000))), drawn)
    assert prices(compile_price(Schedule(Tariff(input=0, output=0))), drawn)
