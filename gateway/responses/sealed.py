"""What an answer over chat says of its thoughts beyond their text, packed into `encrypted_content`, which clients carry unread.

Claude signs its thoughts and Gemini seals them; both want them back with the calls that they led to. What another Responses API sealed
itself has no such mark, and is left alone.
"""

import base64
import binascii
from typing import Final

import msgspec
from msgspec import Raw

from gateway.bodies import NULL
from gateway.wire import present

MARK: Final = "penstock."


class Thought(msgspec.Struct, omit_defaults=True, gc=False):
    """`blocks` are Claude's, `extra` Gemini's for the message, `calls` Gemini's for a call by its id."""

    blocks: list[Raw] = []
    extra: Raw = NULL
    calls: dict[str, Raw] = {}

    def __bool__(self) -> bool:
        return bool(self.blocks) or present(self.extra) or bool(self.calls)


_thought: Final = msgspec.json.Decoder(Thought)


def packed(thought: Thought) -> str | None:
    """None where there is nothing to carry."""
    if not thought:
        return None
    fields: dict[str, object] = {"blocks": thought.blocks, "calls": thought.calls}
    if present(thought.extra):
        fields["extra"] = thought.extra
    return MARK + base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode()


def unpacked(sealed: str | None) -> Thought:
    """Nothing, for what somebody else has sealed or that was damaged on the way."""
    if sealed is None or not sealed.startswith(MARK):
        return Thought()
    try:
        return _thought.decode(base64.urlsafe_b64decode(sealed.removeprefix(MARK)))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return Thought()
