"""What a collection's vectors are made with, and of which passages, in each of its versions, and which version a key reads. Pure.

A collection has one version that it is read in. While it is embedded anew it has a second one beside it, which a canary of keys may
read already. A version is a number that grows and is never used again. An edition is the collection cut in one way; it has the number of
the first version that had it, and several versions may be of the same one.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from retrieval.chunking_strategy import Chunking
from retrieval.index.settings import EngineName, Quantization

FIRST: Final = 1  # whose vectors stand with the passages' bodies
TENANTS: Final = "tenants"  # the folder of their partitions


class Space(msgspec.Struct, frozen=True):
    """`cut`: the dimensions that its model is asked for; None: as many as it gives. `dimensions` is known with the first vector.

    `prompts`: how its model is told questions from passages, as the embedder wrote it down when the version was begun; None: not at all.
    `chunking`: how files of its `edition` are cut that do not say; None: as is best for the model.
    """

    version: int
    model: str
    dimensions: int | None = None
    cut: int | None = None
    engine: EngineName | None = None
    quantization: Quantization = "none"
    prompts: str | None = None
    edition: int = FIRST
    chunking: Chunking | None = None


class Canary(msgspec.Struct, frozen=True):
    """Who reads another version before all do: `keys` by their ids, and a `share` of all keys, from 0 to 1."""

    space: Space
    share: float = 0.0
    keys: Sequence[str] = ()
    salt: str = ""

    def reads(self, key_id: str) -> bool:
        """Always the same for a key, and with a larger share for those of a smaller one as well."""
        return key_id in self.keys or _place(self.salt, key_id) < self.share


def version_for(version: int, canary: Canary | None, key_id: str) -> int:
    """The version that the key reads."""
    return canary.space.version if canary is not None and canary.reads(key_id) else version


def place_of(collection_id: str, version: int, tenant: str | None = None) -> str:
    """What an index of that version is called, on the disk and in engines; of a tenant's partition, it lies within the collection's."""
    place = collection_id if version == FIRST else f"{collection_id}.v{version}"
    return place if tenant is None else f"{place}/{TENANTS}/{partition_of(tenant)}"


@lru_cache(4096)  # each search of a tenant asks
def partition_of(tenant: str) -> str:
    """A name that every file system takes, whatever the tenant is called."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]


def version_at(name: str) -> tuple[str, int]:
    """The collection and the version of such a name; 0 for what is none."""
    collection_id, dot, number = name.partition(".v")
    if not dot:
        return collection_id, FIRST
    return collection_id, int(number) if number.isdecimal() else 0


def _place(salt: str, key_id: str) -> float:
    digest = hashlib.sha256(f"{salt}\n{key_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
