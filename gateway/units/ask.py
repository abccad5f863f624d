"""What was read of a request for one of these endpoints, and what it may use: at most, exactly, and probably."""

from collections.abc import Mapping

import msgspec

from gateway.bodies import Counted
from gateway.used import NOTHING, Usage


class Ask(Counted, kw_only=True):
    """`most` cannot be passed, in any unit that may be billed; an `output` of 0 in it: the model's own maximum, if `speaks`.

    `exact`: what the request itself tells, and what it is settled at where the provider says nothing. `likely`: what is charged for a
    unit that is neither reported nor known. `flat_nanousd`: the call costs just that, whatever it uses.
    """

    most: Usage
    exact: Usage = NOTHING
    likely: Usage = NOTHING
    speaks: bool = False
    in_parts: bool = False  # a model's context bounds each text, not the call
    pieces: tuple[memoryview, memoryview] | None = None  # of a form: what stands before and behind the model's name
    content_type: bytes = b"application/json"
    flat_nanousd: int | None = None


Headers = Mapping[bytes, bytes]


def weighed(ask: Ask, most_input: int | None, most_output: int) -> Usage:
    """`ask.most` at a deployment whose model takes and gives no more than so many tokens."""
    most = ask.most
    input_ = most.input if most_input is None or ask.in_parts else min(most.input, most_input)
    output = most_output if ask.speaks and not most.output else most.output
    return msgspec.structs.replace(most, input=input_, output=output)


def is_text(used: Usage) -> bool:
    """Whether no token of it is dearer for being sound or picture."""
    return not (used.audio_input or used.audio_output or used.image_input or used.image_output)
