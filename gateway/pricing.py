"""What a call costs: exactly, once its usage is known, and at most, before it is sent.

Rates are whole pico-dollars per unit, as USD per million tokens × 1,000,000 is one: no rounding until the last step, which rounds
the sum up to nano-dollars, once. A discount or markup is worked into the rates when a configuration is compiled.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import ceil

import msgspec

from gateway.tariffs import Price, Rates, Schedule, Tariff
from gateway.used import NOTHING, Usage

PICO_PER_NANO = 1000


def cost(usage: Usage, price: Price, service_tier: str | None = None) -> int:
    """Nano-dollars, rounded up once."""
    if service_tier is not None and price.services:
        price = price.services.get(service_tier, price)
    rates = price.rates
    for above, dearer in price.tiers:
        if usage.input > above:
            rates = dearer
            break
    pico = usage.input * rates.input + usage.output * rates.output + usage.requests * rates.request
    if usage.cached_read or usage.cache_write or usage.audio_input or usage.image_input:
        pico += _special_input(usage, rates)
    if usage.reasoning or usage.audio_output or usage.image_output:
        pico += usage.reasoning * (rates.reasoning - rates.output)
        pico += usage.audio_output * (rates.audio_output - rates.output)
        pico += usage.image_output * (rates.image_output - rates.output)
    if usage.images or usage.seconds or usage.characters or usage.search_units:
        pico += _units(usage, rates)
    return -(-pico // PICO_PER_NANO)


def worst_case(
    prompt_tokens: int,
    max_output_tokens: int,
    n: int,
    price: Price,
    *,
    text_only: bool = False,
    service_tier: str | None = None,
    extras: Usage = NOTHING,
) -> int:
    """Nano-dollars that a call with at most so many tokens cannot pass, whatever kinds its tokens turn out to be.

    `n` answers of at most `max_output_tokens` each. `text_only`: the request has no audio or images and asks for no cache that is kept
    for an hour (`prompt_bound.is_plain`). `extras`: what is counted in other units. An upstream may serve a dearer service tier's request
    at the usual rate, so that both count.
    """
    rates = price.rates
    if text_only and extras is NOTHING and not price.tiers and service_tier is None:  # as nearly every call
        pico = prompt_tokens * rates.most_text_input + max_output_tokens * n * rates.most_text_output + rates.request
        return -(-pico // PICO_PER_NANO)
    pico = _most(prompt_tokens, max_output_tokens * n, rates, extras, text_only=text_only)
    for above, tier in price.tiers:
        if prompt_tokens > above:
            pico = max(pico, _most(prompt_tokens, max_output_tokens * n, tier, extras, text_only=text_only))
    nano = -(-pico // PICO_PER_NANO)
    service = price.services.get(service_tier) if service_tier is not None else None
    if service is None:
        return nano
    return max(nano, worst_case(prompt_tokens, max_output_tokens, n, service, text_only=text_only, extras=extras))


def compile_price(schedule: Schedule, factor: tuple[int, int] = (1, 1)) -> Price:
    """Everything filled in, scaled and rounded up to pico-dollars."""
    return _compiled(schedule, schedule.base, factor)


def fixed_price(nanousd: int) -> Price:
    """So much for each call, whatever it uses: what `hold` charges where no price is known."""
    return compile_price(Schedule(Tariff(input=0, output=0, request=nanousd * PICO_PER_NANO)))


def scaled(schedule: Schedule, factor: Fraction) -> Schedule:
    """Every rate times `factor`, rounded up: how a multiplier for a service tier becomes its rates."""
    return Schedule(
        _scaled(schedule.base, factor),
        tuple((above, _scaled(tariff, factor)) for above, tariff in schedule.tiers),
    )


def factor_of(discount: float = 0.0, markup: float = 0.0) -> tuple[int, int]:
    """`discount: 0.1` takes a tenth off, `markup: 0.2` puts a fifth on top of that; as exact as they are written."""
    exact = (1 - Fraction(str(discount))) * (1 + Fraction(str(markup)))
    return exact.numerator, exact.denominator


def combined(factors: Iterable[tuple[int, int]]) -> tuple[int, int]:
    product = Fraction(1)
    for numerator, denominator in factors:
        product *= Fraction(numerator, denominator)
    return product.numerator, product.denominator


def pico_per_token(usd_per_million: float) -> int:
    """Exact for up to six decimals; more are rounded up."""
    return ceil(Fraction(str(usd_per_million)) * 1_000_000)


def pico_per_unit(usd: float) -> int:
    return ceil(Fraction(str(usd)) * 1_000_000_000_000)


def _special_input(usage: Usage, rates: Rates) -> int:
    """What cached, spoken and shown tokens cost more or less than plain ones.

    Where cached tokens were also audio (reports do not say which), the discount goes to the others first: never too cheap.
    """
    apart = usage.input - usage.audio_input - usage.image_input
    write = usage.cache_write
    read = min(usage.cached_read, max(0, apart - write))
    return (
        read * (rates.cached_read - rates.input)
        + (write - usage.cache_write_1h) * (rates.cache_write - rates.input)
        + usage.cache_write_1h * (rates.cache_write_1h - rates.input)
        + usage.audio_input * (rates.audio_input - rates.input)
        + usage.image_input * (rates.image_input - rates.input)
    )


def _units(usage: Usage, rates: Rates) -> int:
    pico = usage.images * rates.image + usage.characters * rates.character + usage.search_units * rates.search_unit
    return pico + ceil(usage.seconds * rates.second)


def _most(input_: int, output: int, rates: Rates, extras: Usage, *, text_only: bool) -> int:
    if text_only:
        pico = input_ * rates.most_text_input + output * rates.most_text_output + rates.request
    else:
        pico = input_ * rates.most_input + output * rates.most_output + rates.request
    return pico if extras is NOTHING else pico + _units(extras, rates)


def _compiled(schedule: Schedule, base: Tariff, factor: tuple[int, int]) -> Price:
    ratio = Fraction(*factor)
    own = _over(schedule.base, base)
    rates = _rates(own, ratio)
    tiers = tuple(
        (above, _rates(_over(tier, own), ratio)) for above, tier in sorted(schedule.tiers, key=lambda t: -t[0])
    )
    # A service tier that says nothing about long inputs costs for them what everybody pays.
    services = {
        name: _compiled(Schedule(service.base, service.tiers or schedule.tiers), own, factor)
        for name, service in schedule.services.items()
    }
    every = (rates, *(tier for _, tier in tiers))
    one_rate = all((r.most_text_input, r.most_text_output) == (r.most_input, r.most_output) for r in every)
    return Price(rates, tiers, services, one_rate and all(service.one_rate for service in services.values()))


def _over(upper: Tariff, lower: Tariff) -> Tariff:
    """What `upper` leaves open, `lower` says."""
    pairs = zip(msgspec.structs.astuple(upper), msgspec.structs.astuple(lower), strict=True)
    return Tariff(*(low if value is None else value for value, low in pairs))


def _rates(tariff: Tariff, ratio: Fraction) -> Rates:
    t = _scaled(tariff, ratio)
    input_, output = t.input or 0, t.output or 0
    read = _or(t.cached_read, input_)
    write = _or(t.cache_write, input_)
    hour = max(_or(t.cache_write_1h, write), write)
    reasoning = _or(t.reasoning, output)
    audio_in, audio_out = _or(t.audio_input, input_), _or(t.audio_output, output)
    image_in, image_out = _or(t.image_input, input_), _or(t.image_output, output)
    most_text_in, most_text_out = max(input_, read, write), max(output, reasoning, image_out)
    # A token can be written to the cache and be audio at the same time: then both differences are due.
    extra = max(audio_in, image_in, input_) - input_
    return Rates(
        input=input_,
        output=output,
        cached_read=read,
        cache_write=write,
        cache_write_1h=hour,
        reasoning=reasoning,
        audio_input=audio_in,
        audio_output=audio_out,
        image_input=image_in,
        image_output=image_out,
        image=t.image or 0,
        request=t.request or 0,
        second=t.second or 0,
        character=t.character or 0,
        search_unit=t.search_unit or 0,
        most_text_input=most_text_in,
        most_input=max(most_text_in, hour) + extra,
        most_text_output=most_text_out,
        most_output=max(most_text_out, audio_out),
    )


def _scaled(tariff: Tariff, ratio: Fraction) -> Tariff:
    if ratio == 1:
        return tariff
    return Tariff(*(None if value is None else ceil(value * ratio) for value in msgspec.structs.astuple(tariff)))


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
