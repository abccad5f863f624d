"""USD on the wire: JSON numbers that say nano-dollars exactly, both ways."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

NANO_PLACES = 9
MAX_USD = 1_000_000_000
# A double holds any number of 15 digits and gives it back as it was written (IEEE 754), so JSON's numbers are exact up to there.
MAX_DIGITS = 15


def _number(value: object) -> object:
    if isinstance(value, (str, bool)):
        raise ValueError("must be a number")  # noqa: TRY004 — pydantic turns this one into a complaint
    return value


def _exact(value: Decimal) -> Decimal:
    _, digits, exponent = value.normalize().as_tuple()
    if not isinstance(exponent, int) or exponent < -NANO_PLACES or len(digits) > MAX_DIGITS:
        raise ValueError(f"must have at most {NANO_PLACES} decimal places and {MAX_DIGITS} digits in all")
    return value


Usd = Annotated[
    Decimal,
    BeforeValidator(_number),
    Field(ge=0, le=MAX_USD),
    AfterValidator(_exact),
    WithJsonSchema(
        {
            "type": "number",
            "minimum": 0,
            "maximum": MAX_USD,
            "description": "USD with up to 9 decimal places, 15 digits in all.",
        }
    ),
]
ShownUsd = Annotated[
    Decimal,
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number", "description": "USD, exact to the nano-dollar."}),
]


def nanousd(usd: Decimal) -> int:
    return int(usd.scaleb(NANO_PLACES))


def usd(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-NANO_PLACES)
