"""Identifiers that sort by time: UUIDv7 (RFC 9562 5.7) as 32 hex digits behind a prefix, as the gateway's files have them."""

import os
import time


def new_id(prefix: str) -> str:
    """`vs_018f…`: 48 bits of Unix milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    millis = time.time_ns() // 1_000_000
    high = (millis & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    return f"{prefix}{high | 0b10 << 62 | random & (1 << 62) - 1:032x}"
