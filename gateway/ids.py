"""Identifiers that sort by time: UUIDv7 (RFC 9562 5.7) written as 32 hex digits behind a prefix."""

import itertools
import os
import time


def new_id(prefix: str) -> str:
    """`key_018f…`: 48 bits of Unix milliseconds, then 74 random bits. Sorts by creation to the millisecond."""
    return f"{prefix}_{uuid7_hex()}"


def uuid7_hex() -> str:
    random = int.from_bytes(os.urandom(10), "big")
    millis = time.time_ns() // 1_000_000
    value = (
        (millis & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | (random >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | random & (1 << 62) - 1
    )
    return f"{value:032x}"


class RequestIds:
    """Ids for requests at a fraction of the cost: milliseconds, 40 random bits of this process, a counter (12 + 10 + 10 hex digits)."""

    __slots__ = ("_from", "_next", "_prefix", "_process", "_until")

    def __init__(self) -> None:
        self._next = itertools.count().__next__
        self._process = os.urandom(5).hex()
        self._from = self._until = 0.0  # for which times the prefix holds
        self._prefix = ""

    def at(self, unix: float) -> str:
        """The next id, for a request that arrived at `unix`."""
        if not self._from <= unix < self._until:
            millis = int(unix * 1000)
            self._from, self._until = millis / 1000, (millis + 1) / 1000
            self._prefix = f"req_{millis:012x}{self._process}"
        return "%s%010x" % (self._prefix, self._next())  # noqa: UP031 half the time of an f-string with a format
