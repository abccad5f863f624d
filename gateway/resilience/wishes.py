"""What a client may ask of the resilience engine, read."""

from typing import Final

import msgspec


class Overrides(msgspec.Struct, frozen=True):
    """None where nothing was asked for."""

    timeout_s: float | None = None
    retries: int | None = None
    fallbacks: tuple[str, ...] | None = None
    deployment: str | None = None


NONE: Final = Overrides()
