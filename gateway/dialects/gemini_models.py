"""What Gemini models accept, where they differ: how they are told how hard to think, and whether they check on thoughts.

By name, as the API refuses with a 400 what a model does not know. A name without a version (`gemini-flash-latest`) is a current model's.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from gateway import errors
from gateway.dialects.gemini_wire import ThinkingConfig

Level = Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"]

LEVELS: Final[tuple[Level, ...]] = ("MINIMAL", "LOW", "MEDIUM", "HIGH")

# As on Google's compatible endpoint: https://ai.google.dev/gemini-api/docs/openai#thinking
_LEVEL_OF: Final[Mapping[str, Level]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_BUDGET_OF: Final[Mapping[Level, int]] = {"MINIMAL": 1024, "LOW": 1024, "MEDIUM": 8192, "HIGH": 24_576}  # tokens

# gemini-2.5-flash-lite, gemini-3-pro-preview, gemini-3.1-flash-lite
_VERSION: Final = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?!\d)")
_NOT_TOLD: Final = ("-image", "-tts", "embedding")  # models that are told nothing about thinking


class Traits(msgspec.Struct, frozen=True):
    """`levels`: how hard it can think, from the least. `budget`: it is told so in tokens. `off`: it can be kept from thinking.

    `sealed`: it refuses calls of its own that come back without the thoughts that led to them.
    """

    levels: tuple[Level, ...] = LEVELS
    budget: bool = False
    off: bool = False
    sealed: bool = True


def traits(model: str) -> Traits:
    """The traits of the model that goes by this name."""
    if "gemini" not in model:
        return Traits(levels=(), sealed=False)
    found = _VERSION.search(model)
    version = (99, 0) if found is None else (int(found[1]), int(found[2] or 0))
    sealed = version >= (3, 0)
    if version < (2, 5) or any(word in model for word in _NOT_TOLD):
        return Traits(levels=(), sealed=sealed)
    if not sealed:
        return Traits(budget=True, off="-pro" not in model, sealed=False)
    if "-pro" not in model:
        return Traits()
    return Traits(levels=("LOW", "HIGH") if version == (3, 0) else LEVELS[1:])


def thinking(asked: str, of: Traits) -> ThinkingConfig | None:
    """OpenAI's `reasoning_effort` for a model; None leaves it alone. Raises BadRequest."""
    if asked == "none":
        return _no_thinking(of)
    wanted = _LEVEL_OF.get(asked)
    if wanted is None:
        known = ", ".join(("none", *_LEVEL_OF))
        raise _refused(f"Invalid 'reasoning_effort': {asked!r} is none of {known}", "invalid_value")
    if not of.levels:
        raise _refused("This model takes no 'reasoning_effort'", "unsupported_parameter")
    if of.budget:
        return ThinkingConfig(include_thoughts=True, thinking_budget=_BUDGET_OF[wanted])
    return ThinkingConfig(include_thoughts=True, thinking_level=_at_most(wanted, of))


def _no_thinking(of: Traits) -> ThinkingConfig | None:
    if not of.levels:
        return None
    if not of.off:
        least = of.levels[0].lower()
        raise _refused(
            f"This model always thinks: 'reasoning_effort' can be '{least}' or more, not 'none'", "unsupported_value"
        )
    return ThinkingConfig(thinking_budget=0)


def _at_most(wanted: Level, of: Traits) -> Level:
    """The model's greatest level that is not above the one asked for, else its least."""
    lower = [level for level in of.levels if LEVELS.index(level) <= LEVELS.index(wanted)]
    return lower[-1] if lower else of.levels[0]


def _refused(message: str, code: str) -> errors.BadRequest:
    return errors.BadRequest(message, param="reasoning_effort", code=code)
