"""What one call used, in one canonical form. `gateway.usage` makes it of what providers report."""

from typing import Literal

import msgspec

Source = Literal["provider", "counted", "estimated"]


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Counts are tokens unless the name says otherwise. Made by `usage()` and the constructors below, which keep the invariants.

    cached_read + cache_write ≤ input; cache_write_1h ≤ cache_write; audio_input + image_input ≤ input;
    reasoning + audio_output + image_output ≤ output. `adjusted`: the report said otherwise and was put right.
    """

    input: int = 0
    output: int = 0
    cached_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    images: int = 0
    requests: int = 1
    seconds: float = 0.0
    characters: int = 0
    search_units: int = 0
    adjusted: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        """Both calls together: what several attempts of one request used."""
        mine, its = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return Usage(**{name: mine[name] + its[name] for name in COUNTS}, adjusted=self.adjusted or other.adjusted)


COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "adjusted")
NOTHING = Usage(requests=0)
