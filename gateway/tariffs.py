"""Prices as they are declared, and as they are counted with."""

from collections.abc import Mapping
from typing import Literal

import msgspec

UnknownPrice = Literal["deny", "hold", "flag"]


class Tariff(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Rates as somebody states them, in pico-dollars per unit. None: as the nearest thing that is stated."""

    input: int | None = None
    output: int | None = None
    cached_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    image: int | None = None
    request: int | None = None
    second: int | None = None
    character: int | None = None
    search_unit: int | None = None


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A price as somebody states it. `tiers`: what all tokens cost once the input is longer than so many tokens.

    `services`: what a service tier (`batch`, `flex`, `priority`) costs instead, again with tiers of its own.
    """

    base: Tariff
    tiers: tuple[tuple[int, Tariff], ...] = ()
    services: Mapping[str, "Schedule"] = {}


class Rates(msgspec.Struct, frozen=True, gc=False):
    """Pico-dollars per unit, nothing left open. `most_*`: the dearest that a token can be, of text alone or of any kind."""

    input: int
    output: int
    cached_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    image: int
    request: int
    second: int
    character: int
    search_unit: int
    most_text_input: int
    most_input: int
    most_text_output: int
    most_output: int


class Price(msgspec.Struct, frozen=True):
    """What the hot path computes with; made by `compile_price`. `tiers` are sorted, the longest input first.

    `one_rate`: no token is dearer for not being text, so that nobody has to look what a request contains.
    """

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    services: Mapping[str, "Price"] = {}
    one_rate: bool = False


class Terms(msgspec.Struct, frozen=True):
    """What is agreed about a deployment's price beside the price itself.

    `factor` is (1 − discount) × (1 + markup) as a ratio of whole numbers. `unknown` says what happens where no price is known: `deny`
    refuses the call, `hold` charges `hold_nanousd` for each call, `flag` lets it pass with a cost that is recorded as unknown, not as zero.
    """

    factor: tuple[int, int] = (1, 1)
    unknown: UnknownPrice = "flag"
    hold_nanousd: int = 0
