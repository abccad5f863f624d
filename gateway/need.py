"""What a call may need, before it is sent: an amount for each kind of account that binds it."""

from collections.abc import Mapping

import msgspec

from gateway.scopes import Budget, Limit, Measure
from gateway.tariffs import Price
from gateway.used import Usage

_COUNTS: Mapping[Measure, int] = {"rpm": 1, "rpd": 1, "parallel": 1, "tpm": 2, "input_tpm": 3, "output_tpm": 4}


def counted_by(rule: Budget | Limit) -> int:
    """Which of a need's amounts an account of this rule counts."""
    return 0 if isinstance(rule, Budget) else _COUNTS[rule.measure]


class Need(msgspec.Struct, frozen=True, gc=False):
    """What one call sets aside on each kind of account. Nano-dollars, tokens; requests and slots are 1 each."""

    nanousd: int
    prompt_tokens: int
    output_tokens: int


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What a call at a deployment may need: its price (None: unknown), and its worst case."""

    price: Price | None
    need: Need
    flat_nanousd: int | None = None  # a declared cost per call, where no price is known
    worst: Usage | None = None  # of a call that is billed by other units than a text's tokens
