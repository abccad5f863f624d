"""A message head that the parser accepted and that comes again, but for its length: keep-alive peers send little else.

Such a message needs no parser. It is one segment whose head is byte for byte the known one around the digits of its `content-length`,
so it means what the known one meant; anything else goes to the parser.
"""

import re
from typing import Final, final

NAME: Final = b"\r\ncontent-length:"
MAX_DIGITS: Final = 15
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?(\d{1,15})\r\n")
_NOT_PLAIN: Final = re.compile(
    rb"\r\n(?:content-length|transfer-encoding|content-encoding|connection: ?close|trailer|upgrade|[ \t])"
)


@final
class RepeatedHead:
    """What stands before and after the digits, up to the body."""

    __slots__ = ("_after", "_before", "_digits_at", "_latest", "_rest")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._digits_at = len(before)
        self._rest = len(after)
        self._latest = len(before) + MAX_DIGITS + len(after)

    def body(self, data: bytes) -> bytes | None:
        """The body of a segment that is one whole message with this head; None if it is anything else."""
        if not data.startswith(self._before):
            return None
        at = self._digits_at
        end = data.find(self._after, at, self._latest)
        if end < 0:
            return None
        digits = data[at:end]
        body = data[end + self._rest :]
        return body if digits.isdigit() and int(digits) == len(body) else None


def learn(data: bytes, body_size: int) -> RepeatedHead | None:
    """From a segment that the parser took for one message with one `content-length`. None if it holds more than that."""
    end = data.find(b"\r\n\r\n") + 4
    if len(data) - end != body_size:
        return None
    named = data[:end].lower().find(NAME)
    if named < 0:
        return None
    at = named + len(NAME)
    while data[at : at + 1] == b" ":
        at += 1
    digits = data.find(b"\r", at)
    return RepeatedHead(data[:at], data[digits:end])


def learn_plain(data: bytes) -> tuple[RepeatedHead, bytes] | None:
    """From a segment that is one whole 200 of a plain body, which is given, too. None if it is anything else, or might be."""
    if not data.startswith(b"HTTP/1.1 200 "):
        return None
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    length = _LENGTH.search(head)
    if end < 0 or length is None or len(data) - end - 4 != int(length[1]):
        return None
    if _NOT_PLAIN.search(head, length.end() - 2) or _NOT_PLAIN.search(head, 0, length.start() + 2):
        return None
    return RepeatedHead(data[: length.start(1)], data[length.end(1) : end + 4]), data[end + 4 :]
