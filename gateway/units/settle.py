"""What a call is billed for, and whose word that is: the provider's, what the request itself told, or an estimate. And whether a price
says anything about such a call at all."""

from typing import Final

import msgspec

from gateway.tariffs import Price, Rates
from gateway.units.ask import Ask
from gateway.used import NOTHING, Source, Usage

# A unit of usage and its rate. Tokens are one unit here: who bills by them reports them together.
UNITS: Final = (
    ("images", "image"),
    ("seconds", "second"),
    ("characters", "character"),
    ("search_units", "search_unit"),
)
TOKENS: Final = ("input", "output", "audio_input", "audio_output", "image_input", "image_output")
_WORSE: Final[dict[Source, int]] = {"provider": 0, "counted": 1, "estimated": 2}


def prices(price: Price, ask: Ask) -> bool:
    """Whether the price has a rate for anything that the call can use, or is stated as free altogether.

    A model that is priced by the token is not free where it makes pictures: there its price is unknown.
    """
    rates = price.rates
    if rates.request or not any(msgspec.structs.astuple(rates)):
        return True
    most = ask.most
    if any(getattr(most, unit) and getattr(rates, rate) for unit, rate in UNITS):
        return True
    if most.images:  # what a picture's description costs is not what the picture does
        return bool(rates.image_output or rates.output)
    return bool((most.input or ask.speaks) and (rates.most_input or rates.most_output))


def settled(reported: Usage | None, ask: Ask, price: Price | None) -> tuple[Usage, Source]:
    """The provider's report, with what it leaves out of what the price counts. The source is that of the least certain part."""
    used = NOTHING if reported is None else reported
    if price is None:
        return (_merged(ask.exact, used), "provider" if reported is not None else _source_of(ask))
    source: Source = "provider"
    rates = price.rates
    changes: dict[str, float] = {}
    for unit, rate in UNITS:
        if getattr(rates, rate) and not getattr(used, unit) and getattr(ask.most, unit):
            changes[unit], source = _known(unit, ask, source)
    if _by_token(rates) and not (used.input or used.output) and (ask.most.input or ask.speaks):
        changes |= {name: getattr(ask.likely, name) for name in TOKENS}
        source = "estimated"
    elif reported is None and not changes:
        source = _source_of(ask)
    made = _merged(ask.exact, used)
    return (msgspec.structs.replace(made, **changes) if changes else made), source


def _known(unit: str, ask: Ask, source: Source) -> tuple[float, Source]:
    exact = getattr(ask.exact, unit)
    if exact:
        return exact, max(source, "counted", key=_WORSE.__getitem__)
    return getattr(ask.likely, unit) or getattr(ask.most, unit), "estimated"


def _source_of(ask: Ask) -> Source:
    return "counted" if any(getattr(ask.exact, unit) for unit, _ in UNITS) else "estimated"


def _merged(exact: Usage, used: Usage) -> Usage:
    """The report, with the units that the request itself tells and the report does not."""
    missing = {unit: getattr(exact, unit) for unit, _ in UNITS if getattr(exact, unit) and not getattr(used, unit)}
    return msgspec.structs.replace(used, requests=1, **missing)


def _by_token(rates: Rates) -> bool:
    return bool(rates.most_input or rates.most_output)
