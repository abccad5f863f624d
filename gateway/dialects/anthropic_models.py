"""What Claude models accept, where they differ: how they think, how hard, and whether they keep to a schema.

By name, as the Messages API refuses with a 400 what a model does not know. A name that says nothing is taken for a current model's.
"""

import re
from typing import Final, Literal

import msgspec

Effort = Literal["low", "medium", "high", "xhigh", "max"]
Off = Literal["disabled", "between_tools"]

EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high", "xhigh", "max")


class Traits(msgspec.Struct, frozen=True):
    """`adaptive`: thinks as hard as `efforts` say, not within a budget of tokens. `off`: how to keep it from thinking, if one can.

    `schema`: takes a JSON schema for its answer and strict tools.
    """

    adaptive: bool = True
    efforts: tuple[Effort, ...] = EFFORTS
    off: Off | None = "disabled"
    schema: bool = True


CURRENT: Final = Traits()

# claude-opus-4-8, claude-sonnet-4-20250514, claude-3-5-haiku-20241022, claude-4.7-opus: a family, a version, perhaps a date.
_NAME = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_ALWAYS_THINK = frozenset({"fable", "mythos"})


def traits(model: str) -> Traits:
    """The traits of the model that goes by this name."""
    found = _NAME.search(model)
    if found is None:
        return CURRENT
    family, version = found[1], (int(found[2]), int(found[3] or 0))
    if version < (4, 6):
        return Traits(adaptive=False, efforts=(), schema=version >= (4, 5))
    if version < (4, 7):
        return Traits(efforts=("low", "medium", "high", "max"))
    return Traits(off=_off(family, version))


def _off(family: str | None, version: tuple[int, int]) -> Off | None:
    if family in _ALWAYS_THINK or (family == "opus" and version >= (5, 5)):
        return None
    return "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"
