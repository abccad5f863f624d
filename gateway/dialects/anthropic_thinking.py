"""How hard Claude is to think: OpenAI's `reasoning_effort` as the Messages API has it, which depends on the model."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway import errors
from gateway.dialects.anthropic_models import EFFORTS, Effort, Traits

LEAST_BUDGET: Final = 1024  # tokens; the API's own bound
MOST_BUDGET: Final = 32_000  # beyond it the API wants batches

# The part of an answer's limit that may go into thinking, for models that think within a budget.
_SHARES: Final[Mapping[str, float]] = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.9, "max": 0.9}


class Thinking(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request's `thinking`. Its text is asked for, as newer models leave it out by default, and a silent stream looks stalled."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None

    @property
    def on(self) -> bool:
        return self.type in {"adaptive", "enabled"}


class Reasoning(msgspec.Struct, frozen=True):
    """What becomes of `reasoning_effort`: either part may be left to the model."""

    thinking: Thinking | None = None
    effort: Effort | None = None


def reasoning(asked: str, of: Traits, max_tokens: int, *, possible: bool, unsigned: bool) -> Reasoning:
    """`possible`: no tool is forced, which the API does not combine with thinking. `unsigned`: the turn that goes on has tool calls
    without the thinking that led to them, which models with a budget refuse. Raises BadRequest.
    """
    if asked != "none" and asked not in _SHARES:
        known = ", ".join(("none", *_SHARES))
        raise errors.BadRequest(
            f"Invalid 'reasoning_effort': {asked!r} is none of {known}", param="reasoning_effort", code="invalid_value"
        )
    if of.adaptive:
        return _adaptive(asked, of, possible=possible)
    if asked == "none" or not possible or unsigned:
        return Reasoning()
    return Reasoning(Thinking("enabled", _budget(asked, max_tokens)))


def _adaptive(asked: str, of: Traits, *, possible: bool) -> Reasoning:
    if asked == "none":
        if of.off is None:
            raise errors.BadRequest(
                "This model always thinks: 'reasoning_effort' can be 'low' or more, not 'none'",
                param="reasoning_effort",
                code="unsupported_value",
            )
        return Reasoning(Thinking(of.off))
    effort = _at_most(asked, of)
    return Reasoning(Thinking("adaptive", display="summarized") if possible else None, effort)


def _at_most(asked: str, of: Traits) -> Effort:
    """The model's greatest effort that is not above the one asked for."""
    place = max(0, EFFORTS.index(asked)) if asked in EFFORTS else 0
    return next(effort for effort in reversed(EFFORTS[: place + 1]) if effort in of.efforts)


def _budget(asked: str, max_tokens: int) -> int:
    """Thinking counts into `max_tokens`, so something must be left of it for the answer."""
    if max_tokens <= LEAST_BUDGET:
        raise errors.BadRequest(
            f"'reasoning_effort' takes at least {LEAST_BUDGET} tokens on this model: "
            f"set a 'max_completion_tokens' above that, or 'reasoning_effort' to 'none'",
            param="reasoning_effort",
            code="unsupported_value",
        )
    return min(MOST_BUDGET, max(LEAST_BUDGET, int(max_tokens * _SHARES[asked])))
