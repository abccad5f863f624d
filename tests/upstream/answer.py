"""An answer before it is on the wire: a status and the pieces of a body. A stream's pieces are its events."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"


class Piece(NamedTuple):
    """Bytes of a body, how many tokens the client has once they have arrived, and whether a wait comes before them."""

    data: bytes
    tokens: int = 0
    content: bool = True


class Answer(NamedTuple):
    """`pieces` may be lazy: a stream of 200 MB is made as it is sent."""

    status: int
    content_type: str
    pieces: Iterator[Piece]
    prompt_tokens: int = 0
    error_event: bytes = b""
    streams: bool = False
    units: Mapping[str, float] = {}  # what else than tokens is billed: characters, seconds, images, search_units


def whole(
    status: int, value: object, *, prompt_tokens: int = 0, tokens: int = 0, units: Mapping[str, float] | None = None
) -> Answer:
    """A body in one piece."""
    return Answer(status, JSON, iter((Piece(msgspec.json.encode(value), tokens),)), prompt_tokens, units=units or {})


def event(value: object, name: str | None = None) -> bytes:
    """One server-sent event with LF line ends."""
    head = b"event: %b\n" % name.encode() if name else b""
    return head + b"data: %b\n\n" % msgspec.json.encode(value)
