"""What one conversation may take, and where they are had."""

from typing import Final

import msgspec

TALKS: Final = (b"/v1/realtime", b"/openai/v1/realtime")
BELOW: Final = (b"/v1/realtime/", b"/openai/v1/realtime/")


class Limits(msgspec.Struct, frozen=True):
    """Seconds and bytes. `idle_s`: without an event either way; `session_s`: altogether; `ping_s`: between pings, and for their answer."""

    idle_s: float = 900.0
    session_s: float = 3600.0
    ping_s: float = 20.0
    message_bytes: int = 16 * 1024 * 1024
