"""Priority classes: what a key's calls have, and what one call asks for.

A key, its user, team and organisation declare them in their metadata:

priority: low          the class of calls that say nothing; the nearest of key, user, team and organisation counts, `normal` without any
max_priority: high     the highest that a call may ask for; the lowest of all that are declared, the key's own `priority` without any
weight: 2              how much of what is shared, against other keys; the nearest counts, 1 without any
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, Literal, get_args

import msgspec

from gateway.errors import AccessDenied, BadRequest

Priority = Literal["high", "normal", "low", "batch"]

CLASSES: Final[tuple[Priority, ...]] = get_args(Priority)
RANKS: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(CLASSES)}
NORMAL: Final = RANKS["normal"]
HEADER: Final = b"x-penstock-priority"
MOST_WEIGHT: Final = 1_000.0


class Standing(msgspec.Struct, frozen=True):
    """Of a key, as its metadata and that of what it belongs to say. Ranks: 0 goes first."""

    rank: int = NORMAL
    top: int = NORMAL
    weight: float = 1.0


PLAIN: Final = Standing()


class _Marks(msgspec.Struct, gc=False):
    """What bodies say: OpenAI's tier, and vLLM's number, of which a lower one goes first."""

    service_tier: Any = None
    priority: Any = None


_marks = msgspec.json.Decoder(_Marks)


def standing(*metadata: Mapping[str, Any] | None) -> Standing:
    """The nearest first. What is no class or no weight counts as not declared."""
    given = [one for one in metadata if one]
    own = [RANKS[name] for one in given if isinstance(name := one.get("priority"), str) and name in RANKS]
    caps = [RANKS[name] for one in given if isinstance(name := one.get("max_priority"), str) and name in RANKS]
    weights = [float(one["weight"]) for one in given if is_weight(one.get("weight"))]
    rank = own[0] if own else NORMAL
    top = max(caps) if caps else rank
    if not (own or caps or weights):
        return PLAIN
    return Standing(max(rank, top), top, weights[0] if weights else 1.0)


def is_weight(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and 0 < value <= MOST_WEIGHT
    )


def complaint(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with declarations, for who makes them."""
    for name in ("priority", "max_priority"):
        if name in metadata and metadata[name] not in CLASSES:
            return f"{name} must be one of {', '.join(CLASSES)}"
    if "weight" in metadata and not is_weight(metadata["weight"]):
        return f"weight must be a number above 0, at most {MOST_WEIGHT:.0f}"
    return None


def rank_of(own: Standing, headers: Mapping[bytes, bytes], body: bytes) -> int:
    """The class of one call. The header is a demand: refused above what the key may have. What bodies say is a wish, and is capped.

    Raises BadRequest, AccessDenied.
    """
    asked = headers.get(HEADER)
    if asked is None:
        return max(own.top, _wished(own.rank, body))
    name = asked.decode("latin-1").strip().lower()
    rank = RANKS.get(name)
    if rank is None:
        raise BadRequest(
            f"x-penstock-priority must be one of {', '.join(CLASSES)}",
            param="x-penstock-priority",
            code="invalid_value",
        )
    if rank < own.top:
        raise AccessDenied(
            f"This key's calls may have the priority '{CLASSES[own.top]}' at most",
            param="x-penstock-priority",
            code="priority_denied",
        )
    return rank


def _wished(own: int, body: bytes) -> int:
    """By OpenAI's `service_tier` (`priority`, `flex`), else vLLM's `priority` (below 0, above 0)."""
    if b'"service_tier"' not in body and b'"priority"' not in body:
        return own
    try:
        marks = _marks.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return own
    match marks.service_tier:
        case "priority":
            return RANKS["high"]
        case "flex":
            return RANKS["low"]
    number = marks.priority
    if not isinstance(number, int) or isinstance(number, bool) or not number:
        return own
    return RANKS["high"] if number < 0 else RANKS["low"]
