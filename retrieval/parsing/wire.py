"""What goes through the pipes between the server and a parsing process: frames with a length before them."""

import struct
from typing import BinaryIO, Final

import msgspec

from retrieval.parsing.parsed import Parsed

LENGTH: Final = struct.Struct(">I")


class Job(msgspec.Struct, frozen=True):
    path: str
    name: str
    declared: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """Either `parsed`, or the `reason` and `message` of a ParseError. `worn`: the process has grown and should be replaced."""

    parsed: Parsed | None = None
    reason: str = ""
    message: str = ""
    worn: bool = False


def framed(value: Job | Outcome) -> bytes:
    body = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(body)) + body


def take(pipe: BinaryIO) -> bytes | None:
    """The next frame's body; None at the end of the pipe."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = pipe.read(length)
    return body if len(body) == length else None
