"""Weighted rendezvous hashing: every name scores every key, and the highest score wins. No table, no state.

A name that joins, or whose weight grows, only takes keys; one that leaves, or whose weight shrinks, only gives away its own. So what
moves is the least that can (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005).
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import log
from typing import Final, TypeVar

N = TypeVar("N")

_MASK: Final = (1 << 64) - 1
_UNIT: Final = 2.0**-53


def fingerprint(data: bytes) -> int:
    """64 bits that anybody computes alike, in every process and release."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def score(key: int, name: int, weight: float) -> float:
    """`key` and `name` are fingerprints. A weight of 0 scores 0, below every other."""
    unit = ((_mixed(key ^ name) >> 11) + 0.5) * _UNIT  # in (0, 1)
    return -weight / log(unit)


def ranked(key: int, names: Sequence[N], identity: Callable[[N], tuple[int, float]]) -> list[N]:
    """The highest score first. `identity` gives a name's fingerprint and weight."""
    return sorted(names, key=lambda name: -score(key, *identity(name)))


def _mixed(value: int) -> int:
    """splitmix64's finalizer: each bit of the input turns half of the output's."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
