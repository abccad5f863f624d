"""The question of a request, and the partition in which it may be compared with others: all the rest of the request, exactly."""

import hashlib
from typing import Any, Final

import msgspec

from gateway.cache.address import Address, telling

MAX_CHARACTERS: Final = (
    1000  # the embedded model reads some 250 words; what is longer is seldom asked again in other words
)
_TEXTS: Final = frozenset({"text", "input_text"})
_ASKED: Final[dict[str, str]] = {"chat": "messages", "messages": "messages", "responses": "input"}
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


class Question(msgspec.Struct, frozen=True):
    """`partition` has 32 bytes: who asks, what answers, instructions, tools, format, parameters and everything that was said before."""

    text: str
    partition: bytes


def question(endpoint: str, place: Address) -> Question | None:
    """None for what does not end with a user's text, or with too much of it."""
    name = _ASKED.get(endpoint)
    turns = None if name is None else place.fields.get(name)
    if name == "input" and isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if name is None or not isinstance(turns, list) or not turns:
        return None
    text = _said(turns[-1])
    if text is None or not text.strip() or len(text) > MAX_CHARACTERS:
        return None
    rest = telling(endpoint, {**place.fields, name: [*turns[:-1], _without(turns[-1])]})
    hashed = hashlib.blake2b(b"meaning" + place.partition, digest_size=32)
    hashed.update(_canonical(rest))
    return Question(text.strip(), hashed.digest())


def _said(turn: Any) -> str | None:
    if not isinstance(turn, dict) or turn.get("role") != "user":
        return None
    content = turn.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        kind, text = part.get("type"), part.get("text")
        return text if isinstance(kind, str) and kind in _TEXTS and isinstance(text, str) else None
    return None


def _without(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn less its text: a name or a mark on it stays. A text by itself is one part of text."""
    content = turn["content"]
    if isinstance(content, list):
        (part,) = content
        rest = {name: value for name, value in part.items() if name not in {"text", "type"}}
        return {**turn, "content": rest or None}
    return {**turn, "content": None}
