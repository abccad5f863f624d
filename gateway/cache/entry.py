"""One kept answer, and how it is written down so that damage and mix-ups are noticed: both make it a miss."""

import hashlib
from typing import Final, Literal

import msgspec

from gateway.used import Usage

KEY_BYTES: Final = 32
_CHECK_BYTES: Final = 16

Words = Literal["chat", "completion", "message", "response", "plain"]


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`content` is a whole answer's body, or a stream's events without usage and `[DONE]`, in `words`. Times are Unix seconds.

    `report` is the usage object in the words of the answer; `used` the same in ours.
    """

    key: bytes
    made_at: float
    expires_at: float
    words: Words
    stream: bool
    content: bytes
    used: Usage | None = None
    report: bytes = b""

    @property
    def size(self) -> int:
        return len(self.content) + len(self.report) + 400


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Entry).decode


def packed(entry: Entry) -> bytes:
    body = _encode(entry)
    return check(body) + body


def unpacked(raw: bytes, key: bytes) -> Entry | None:
    """None for what is damaged, cut off, of another release, or of another key."""
    body = raw[_CHECK_BYTES:]
    if raw[:_CHECK_BYTES] != check(body):
        return None
    try:
        entry = _decode(body)
    except msgspec.DecodeError:
        return None
    return entry if entry.key == key else None


def check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()
