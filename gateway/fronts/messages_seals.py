"""Google's seals on its calls, which have no place in a message: carried in blocks that clients give back unread.

Gemini goes on from the thoughts that led to a call only if their seal comes back with it. `redacted_thinking` is Anthropic's own word for
thoughts that nobody can read, and its clients return it untouched.
"""

import base64
import binascii
from typing import Final

import msgspec

from gateway.dialects.anthropic_native import SEALED


class Seal(msgspec.Struct, frozen=True):
    """The signature of the thoughts behind the call with this id."""

    call: str
    signature: str


class _Google(msgspec.Struct, gc=False):
    thought_signature: str | None = None


class Extra(msgspec.Struct, gc=False):
    """`extra_content` of a call in a chat, as Google's compatible endpoint has it."""

    google: _Google | None = None


_seal: Final = msgspec.json.Decoder(Seal)


def signature(extra: Extra | None) -> str | None:
    return None if extra is None or extra.google is None else extra.google.thought_signature


def closed(seal: Seal) -> str:
    """What stands in the block's `data`."""
    return SEALED + base64.urlsafe_b64encode(msgspec.json.encode(seal)).decode()


def opened(data: str) -> Seal | None:
    """None for thoughts that are Anthropic's own, or damaged."""
    if not data.startswith(SEALED):
        return None
    try:
        return _seal.decode(base64.urlsafe_b64decode(data.removeprefix(SEALED)))
    except (binascii.Error, ValueError):
        return None
