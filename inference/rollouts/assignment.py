"""Which arm a unit gets: by a hash, so that every process says the same and nobody has to remember it."""

from hashlib import blake2b
from typing import Final

_UNIT: Final = 2.0**-64


def place(salt: str, unit: str) -> float:
    """In [0, 1), the same for ever. `salt` is the rollout's id: who was early in one is not early in the next."""
    digest = blake2b(f"{salt}\n{unit}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") * _UNIT


def challenged(salt: str, unit: str, share: float) -> bool:
    """Whether the challenger answers this unit. A share that grows only takes units to it, so who is there stays."""
    return place(salt, unit) < share
