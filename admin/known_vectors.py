"""Where vectors of known texts are kept, as the settings say, and under which names those of providers' models stand."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, final

import msgspec

from admin.settings import Settings
from gateway.batches.carrier import header
from gateway.cache.policy import version_of
from gateway.catalog import Model
from gateway.keys import Key
from gateway.providers import EMBEDDED
from gateway.snapshot import Snapshot
from gateway.targets import header_value
from retrieval.errors import Refused

if TYPE_CHECKING:  # loaded with the first text that is embedded
    import numpy as np
    from numpy.typing import NDArray

    from embedding.cache import ModelVectors, Store, Vector, VectorCache

MEBI: Final = 1024 * 1024
DAY_S: Final = 86_400.0
MAX_MODELS: Final = 64

Ask = Callable[[Sequence[str]], Awaitable["tuple[NDArray[np.float32], bool]"]]
"""Vectors of texts, and whether they may be kept for the next time."""


@final
class KnownVectors:
    """The process's cache of vectors, made when a text is first embedded. Belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._section = settings.embedding.cache
        self._settings = settings
        self._models: dict[bytes, ModelVectors] = {}
        self.cache: VectorCache | None = None

    def of(self, identity: bytes) -> "ModelVectors | None":
        """The part of a model. None where the cache is off."""
        if not self._section.memory_mb:
            return None
        known = self._models.get(identity)
        if known is None:
            if self.cache is None:
                self.cache = self._made()
            if len(self._models) >= MAX_MODELS:
                self._models.clear()
            known = self._models[identity] = self.cache.of(identity)
        return known

    def of_providers(self, snapshot: Snapshot, key: Key, name: str, dimensions: int | None) -> "ModelVectors | None":
        """The same for a model that is not in this process, whose calls are saved as well. None where the key may not use it.

        Guards are a part of the name, as they may change a text and as a new one has to see it.
        """
        found = snapshot.catalog.find(name)
        if found is None or not key.may_use(name, found[0].admitted_by):
            return None
        model, match = found
        if all(one.provider == EMBEDDED for one in model.deployments):
            return None  # the engine has it
        chain = None if snapshot.guards is None else snapshot.guards.of(key, model)
        mark = b"" if chain is None else chain.mark
        version = version_of(model.name, model.deployments)
        return self.of(msgspec.msgpack.encode(("provider", version, match, mark, dimensions)))

    async def close(self) -> None:
        if self.cache is not None:
            await self.cache.close()

    def _made(self) -> "VectorCache":
        from embedding.cache import VectorCache  # noqa: PLC0415 — as said above

        section = self._section
        redis = self._settings.redis_url is not None and section.store != "local"
        opener = self._store if redis or section.disk_mb else None
        return VectorCache(int(section.memory_mb * MEBI), opener, section.ttl_days * DAY_S, time.time)

    def _store(self) -> "Store":
        """In a thread."""
        section, settings = self._section, self._settings
        if settings.redis_url is not None and section.store != "local":
            from admin.vectors_in_redis import VectorsInRedis  # noqa: PLC0415 — for those who have one

            return VectorsInRedis(settings.redis_url, int(section.ttl_days * DAY_S))
        from embedding.vector_file import VectorFile  # noqa: PLC0415 — for those who have none

        return VectorFile(settings.data_dir / "cache" / "vectors", int(section.disk_mb * MEBI), time.time)


async def recalled(
    known: "ModelVectors", tenant: str, texts: Sequence[str], ask: Ask, how: str = ""
) -> "NDArray[np.float32]":
    """Float32 `[texts, dimensions]` in the order of the texts: only those are asked for that are not known, each once.

    `how`: what the model is told of them.
    """
    from embedding.rows import unpacked  # noqa: PLC0415 — NumPy, which documents have brought already

    keys = known.keys(tenant, texts, how)
    found = known.near(keys)
    missing = _without(dict(zip(texts, keys, strict=True)), found)
    if missing:
        found |= known.keep(await asyncio.to_thread(known.far, list(missing.values())))
        missing = _without(missing, found)
    if missing:
        found |= await _learned(known, missing, ask)
    vectors = [found[key] for key in keys]
    if len({len(vector.raw) for vector in vectors}) > 1:  # it is another model by now, whatever the name says
        found = await _learned(known, dict(zip(texts, keys, strict=True)), ask)
        vectors = [found[key] for key in keys]
    return unpacked(vectors, len(vectors[0].raw) // 4)


def _without(keys: "dict[str, bytes]", found: "dict[bytes, Vector]") -> dict[str, bytes]:
    return {text: key for text, key in keys.items() if key not in found}


async def _learned(known: "ModelVectors", missing: dict[str, bytes], ask: Ask) -> "dict[bytes, Vector]":
    from embedding.cache import Vector  # noqa: PLC0415 — as said above

    rows, lasting = await ask(list(missing))
    if rows.ndim != 2 or len(rows) != len(missing):
        raise Refused(
            502, "The embedding model answered with something that is no vector for each text", "upstream_error", None
        )
    made = {key: Vector(row.astype("<f4").tobytes()) for key, row in zip(missing.values(), rows, strict=True)}
    return known.add(made) if lasting else made


def made_by(head: bytes, name: str, model: Model) -> bool:
    """Whether an answer came from the model itself, not from one that stood in for it."""
    deployment = header(head, b"x-penstock-deployment")
    own = [header_value(one.id).decode() for one in model.deployments]
    return header(head, b"x-penstock-model") == header_value(name).decode() and deployment in own
