"""Server-sent events of a recorded stream: apart, and together again."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def payloads(content: bytes) -> Iterator[bytes]:
    """The data of each event, less comments and `[DONE]`."""
    for one in content.split(b"\n\n"):
        data = b"\n".join(line[5:].removeprefix(b" ") for line in one.split(b"\n") if line.startswith(b"data:"))
        if data and data != b"[DONE]":
            yield data


def event(value: Any, name: str | None = None) -> bytes:
    if name is None:
        return b"data: %b\n\n" % _encode(value)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(value))
