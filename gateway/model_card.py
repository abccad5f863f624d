"""What `/v1/models` tells of a model beside OpenAI's four fields: what it can do, how much it takes, what it costs. Pure.

Of a model with several deployments it says what holds wherever a call may go: the smallest context, the capabilities that all have, the
dearest of their rates. Where nobody knows, it says null.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.catalog import Deployment, Model
from gateway.kinds import EVERY, MODES, PATHS, Kinds
from gateway.price_map import Entry, PriceMap
from gateway.tariffs import Price, Rates

_PER_MILLION = 1_000_000  # pico-dollars per token, as USD per million tokens
_PER_USD = 1_000_000_000_000

# As `price` in penstock.yaml names them: USD per million tokens, then USD per unit. The second is what stands in for a rate not stated.
_TOKENS: Mapping[str, tuple[str, str | None]] = {
    "input": ("input", None),
    "output": ("output", None),
    "cached_input": ("cached_read", "input"),
    "cache_write": ("cache_write", "input"),
    "cache_write_1h": ("cache_write_1h", "cache_write"),
    "reasoning": ("reasoning", "output"),
    "audio_input": ("audio_input", "input"),
    "audio_output": ("audio_output", "output"),
    "image_input": ("image_input", "input"),
    "image_output": ("image_output", "output"),
}
_UNITS: Mapping[str, str] = {
    "per_image": "image",
    "per_request": "request",
    "per_second": "second",
    "per_character": "character",
    "per_search_unit": "search_unit",
}

Json = dict[str, Any]


class _Place(msgspec.Struct, frozen=True):
    """A deployment with what is known of its model under one name."""

    deployment: Deployment
    price: Price | None
    context: int | None
    most_output: int | None
    entry: Entry | None
    kinds: Kinds | None


def row(model: Model, name: str) -> Json:
    """OpenAI's own fields."""
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.owned_by}


def card(model: Model, name: str, match: str, prices: PriceMap, *, for_admin: bool) -> Json:
    """The whole row. `match` is what the model's wildcard stands for, empty for a row that is the pattern itself."""
    places = [_place(deployment, match, prices) for deployment in model.deployments]
    kinds = None if any(place.kinds is None for place in places) else _union(place.kinds for place in places)
    made = row(model, name) | {
        "kinds": None if kinds is None else sorted(kinds),
        "endpoints": None if kinds is None else sorted(path for kind in kinds for path in PATHS[kind]),
        "context_window": _least(place.context for place in places),
        "max_output_tokens": _least(place.most_output for place in places),
        "capabilities": _shared(place.entry for place in places),
        "pricing": _dearest([place.price for place in places]),
        "deprecation_date": _first(place.entry.deprecated for place in places if place.entry is not None),
    }
    if for_admin:
        made["strategy"] = model.strategy
        made["fallbacks"] = list(model.fallbacks)
        made["deployments"] = [_seen_by_admin(place) for place in places]
    return made


def pricing(price: Price | None) -> Json | None:
    """A price as the configuration would state it; rates that follow from others are left out."""
    if price is None:
        return None
    made = _rates(price.rates)
    if price.tiers:
        made["tiers"] = [{"above": above, **_rates(rates)} for above, rates in sorted(price.tiers, key=lambda t: t[0])]
    if price.services:
        made["service_tiers"] = {name: pricing(service) for name, service in price.services.items()}
    return made


def _place(deployment: Deployment, match: str, prices: PriceMap) -> _Place:
    target = deployment.target.replace("*", match) if match else deployment.target
    entry = prices.find(deployment.provider, target) if "*" not in target else None
    quote = prices.quote(deployment, match) if match else None
    return _Place(
        deployment,
        deployment.price if quote is None else quote.price,
        deployment.max_input_tokens if quote is None else quote.max_input_tokens,
        deployment.max_output_tokens if quote is None else quote.max_output_tokens,
        entry,
        _kinds(deployment, entry),
    )


def _kinds(deployment: Deployment, entry: Entry | None) -> Kinds | None:
    """What the model is for, as far as it is known, of what its deployment serves."""
    served = deployment.kinds
    mode = MODES.get(entry.mode) if entry is not None else None
    if mode is None:
        return served
    return mode & (EVERY if served is None else served) or served


def _seen_by_admin(place: _Place) -> Json:
    deployment = place.deployment
    return {
        "id": deployment.id,
        "provider": deployment.provider,
        "model": deployment.target,
        "order": deployment.order,
        "weight": deployment.weight,
        "region": deployment.region,
        "kinds": None if place.kinds is None else sorted(place.kinds),
        "context_window": place.context,
        "max_output_tokens": place.most_output,
        "pricing": pricing(place.price),
        "deprecation_date": place.entry.deprecated if place.entry is not None else None,
    }


def _rates(rates: Rates) -> Json:
    made: Json = {}
    for name, (rate, otherwise) in _TOKENS.items():
        value = getattr(rates, rate)
        if value != (0 if otherwise is None else getattr(rates, otherwise)):
            made[name] = value / _PER_MILLION
    made |= {name: getattr(rates, rate) / _PER_USD for name, rate in _UNITS.items() if getattr(rates, rate)}
    return made or {"input": 0.0, "output": 0.0}


def _dearest(every: list[Price | None]) -> Json | None:
    """Rate by rate over all deployments; tiers only where there is one price. Null if one of them is unknown."""
    known = [price for price in every if price is not None]
    if len(known) < len(every) or not known:
        return None
    if all(price == known[0] for price in known):
        return pricing(known[0])
    columns = zip(*(msgspec.structs.astuple(price.rates) for price in known), strict=True)
    return _rates(Rates(*(max(column) for column in columns)))


def _union(every: Iterable[Kinds | None]) -> Kinds:
    made: Kinds = frozenset()
    for kinds in every:
        made |= kinds or frozenset()
    return made


def _least(sizes: Iterable[int | None]) -> int | None:
    every = list(sizes)
    known = [size for size in every if size is not None]
    return min(known) if known and len(known) == len(every) else None


def _shared(entries: Iterable[Entry | None]) -> list[str] | None:
    """Null where a model is not in the map."""
    every = list(entries)
    known = [frozenset(entry.capabilities) for entry in every if entry is not None]
    return sorted(frozenset.intersection(*known)) if known and len(known) == len(every) else None


def _first(dates: Iterable[str | None]) -> str | None:
    return min((date for date in dates if date is not None), default=None)
