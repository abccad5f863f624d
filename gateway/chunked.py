"""Streams that need no parser: an answer's head that came before, byte for byte, and segments that are whole chunks (RFC 9112 7.1).

Servers write an event at a time, and a chunk for each. What is anything else goes to the parser, which is told the head first.
"""

from collections.abc import Mapping
from typing import Final, final

_HEX: Final = b"0123456789abcdefABCDEF"
_MOST_DIGITS: Final = 8


@final
class StreamHead:
    """The head of a 200 that is a stream of events in plain chunks, on a connection that stays open."""

    __slots__ = ("fields", "head", "size")

    def __init__(self, head: bytes, fields: Mapping[bytes, bytes]) -> None:
        self.head = head
        self.fields = fields
        self.size = len(head)


def stream_head(data: bytes, fields: Mapping[bytes, bytes]) -> StreamHead | None:
    """From the first segment of an answer whose head the parser has taken. None if it says more than that chunks of events follow."""
    if (
        fields.get(b"transfer-encoding") != b"chunked"
        or not fields.get(b"content-type", b"").startswith(b"text/event-stream")
        or not data.startswith(b"HTTP/1.1 200 ")
        or not fields.keys().isdisjoint((b"content-encoding", b"content-length", b"trailer", b"upgrade"))
    ):
        return None
    return StreamHead(data[: data.find(b"\r\n\r\n") + 4], fields)


def unframed(data: bytes, at: int = 0) -> tuple[bytes, bool] | None:
    """What is in the chunks that `data` consists of from `at` on, and whether the last one is among them. None if it is anything else."""
    parts: list[bytes] = []
    end = len(data)
    while at < end:
        line = data.find(b"\r\n", at, at + _MOST_DIGITS + 2)
        digits = data[at:line]
        if line <= at or digits.strip(_HEX):
            return None
        size = int(digits, 16)
        start = line + 2
        if not size:
            return (b"".join(parts), True) if data[start:] == b"\r\n" else None
        at = start + size
        if data[at : at + 2] != b"\r\n":
            return None
        parts.append(data[start:at])
        at += 2
    return parts[0] if len(parts) == 1 else b"".join(parts), False
