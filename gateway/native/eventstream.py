"""The framing `application/vnd.amazon.eventstream`: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html

A frame is its length and the length of its headers (4 bytes each), a CRC-32 of these, the headers, the payload, and a CRC-32 of it all.
"""

import struct
from collections.abc import Mapping
from typing import Final, final
from zlib import crc32

import msgspec

from gateway import errors

MAX_FRAME_BYTES: Final = 24 * 1024 * 1024  # the framing's own limit is 24 MiB of payload
_PRELUDE: Final = struct.Struct(">III")
_LEAST: Final = _PRELUDE.size + 4
_TEXT: Final = 7
# The sizes of header values by type: true, false, byte, short, int, long, bytes, text, timestamp, uuid.
_SIZES: Final[Mapping[int, int]] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class Frame(msgspec.Struct, frozen=True):
    """`headers`: those that are texts."""

    headers: Mapping[str, str]
    payload: bytes


@final
class Frames:
    """Any split of the bytes in, whole frames out, each with its own bytes."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> list[tuple[bytes, Frame]]:
        """Raises UpstreamError for what is damaged."""
        waiting = self._waiting + data if self._waiting else data
        found, at = [], 0
        while len(waiting) - at >= _LEAST:
            total, headers, check = _PRELUDE.unpack_from(waiting, at)
            if check != crc32(waiting[at : at + 8]) or not _LEAST + headers <= total <= MAX_FRAME_BYTES:
                raise errors.UpstreamError("The upstream's stream is damaged: a frame's length does not add up")
            if len(waiting) - at < total:
                break
            whole = waiting[at : at + total]
            if int.from_bytes(whole[-4:], "big") != crc32(whole[:-4]):
                raise errors.UpstreamError("The upstream's stream is damaged: a frame's checksum is wrong")
            found.append((whole, Frame(_headers(whole[12 : 12 + headers]), whole[12 + headers : -4])))
            at += total
        self._waiting = waiting[at:]
        return found

    @property
    def torn(self) -> bool:
        """A frame has begun that is not there yet."""
        return bool(self._waiting)


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame, whose headers are texts."""
    lines = b"".join(
        bytes((len(name),)) + name.encode() + bytes((_TEXT,)) + len(value.encode()).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    start = struct.pack(">II", _LEAST + len(lines) + len(payload), len(lines))
    made = start + crc32(start).to_bytes(4, "big") + lines + payload
    return made + crc32(made).to_bytes(4, "big")


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name = data[at + 1 : at + 1 + data[at]].decode()
            at += 1 + data[at]
            kind = data[at]
            at += 1
            if kind in (6, _TEXT):
                size = int.from_bytes(data[at : at + 2], "big")
                if kind == _TEXT:
                    found[name] = data[at + 2 : at + 2 + size].decode()
                at += 2 + size
            else:
                at += _SIZES[kind]
    except (IndexError, KeyError, UnicodeDecodeError):
        raise errors.UpstreamError("The upstream's stream is damaged: a frame's headers cannot be read") from None
    return found
