"""Vectors by content: a text that a model has read before is not read again, by whichever way it comes.

A key is a hash over the model's identity, the tenant and the text, so vectors of another model, of other settings of it or of another
tenant are not looked for and sorted out: they stand under other keys. Memory belongs to the event loop; a store behind it is read in
the caller's thread and written, some time later, in a thread of its own. Importing this brings in no NumPy and opens nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, final

import structlog

log = structlog.get_logger(__name__)

WRITE_DELAY_S: Final = 0.2  # what comes meanwhile goes into one transaction
MAX_BEGUN: Final = 256  # hashes of a model and a tenant, as every key of theirs begins
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024  # what a store has not taken yet; what comes then stays in memory alone
_ENTRY_BYTES: Final = 400  # of an entry in memory beside its vector: key, tuple, places in the table
_HEAD: Final = struct.Struct("<IIIB3x")  # check, Unix hours when it was made, tokens, whether the text was cut
_HOUR_S: Final = 3600


class Vector(NamedTuple):
    """`raw` is little-endian float32. `tokens` and `truncated` are of the text, as the model's tokenizer has it."""

    raw: bytes
    tokens: int = 0
    truncated: bool = False
    made_h: int = 0


class Store(Protocol):
    """Keeps vectors longer than the process lives. Blocks, for threads.

    Never raises: what cannot be read is not there, and what cannot be written is dropped.
    """

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Those that are there."""

    def put(self, entries: Mapping[bytes, bytes]) -> None: ...

    def size(self) -> int | None:
        """Bytes, where it is this server's to know."""

    def close(self) -> None: ...


@final
class Counts:
    """Texts since the start: found in memory, found in the store, embedded."""

    __slots__ = ("memory", "misses", "store")

    def __init__(self) -> None:
        self.memory = self.store = self.misses = 0


@final
class VectorCache:
    """One per process. `open_store` is called in a thread when something is first looked for; None is memory alone.

    `ttl_s`: how long a vector is believed, as a provider may put another model behind a name. `unix` is the clock.
    """

    def __init__(
        self, memory_bytes: int, open_store: Callable[[], Store] | None, ttl_s: float, unix: Callable[[], float]
    ) -> None:
        self.counts = Counts()
        self._memory = _Memory(memory_bytes)
        self._open_store = open_store
        self._ttl_h = max(1, int(ttl_s / _HOUR_S))
        self._unix = unix
        self._opening = threading.Lock()
        self._lock = threading.Lock()  # over what waits, never for long: the event loop takes it
        self._store: Store | None = None
        self._waiting: dict[bytes, Vector] = {}
        self._waiting_bytes = 0
        self._due: asyncio.TimerHandle | None = None
        self._writer: ThreadPoolExecutor | None = None

    def of(self, identity: bytes) -> ModelVectors:
        """The part of one model. `identity`: all that decides about a vector beside the text."""
        return ModelVectors(self, identity)

    @property
    def memory_bytes(self) -> int:
        return self._memory.bytes

    def size(self) -> int | None:
        """Bytes in the store, if it was opened and knows."""
        return None if self._store is None else self._store.size()

    def near(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """What is in memory."""
        oldest = self._hour() - self._ttl_h
        get = self._memory.get
        found = {key: known for key in keys if (known := get(key)) is not None and known.made_h > oldest}
        self.counts.memory += len(found)
        return found

    def far(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """What is in the store. Blocks, for a thread; what it gives is handed to `keep`."""
        store = self._opened()
        if store is None:
            return {}
        oldest = self._hour() - self._ttl_h
        found = ((key, _unpacked(key, raw)) for key, raw in store.get(keys).items())
        return {key: vector for key, vector in found if vector is not None and vector.made_h > oldest}

    def keep(self, stored: dict[bytes, Vector]) -> dict[bytes, Vector]:
        """In memory as well, what the store gave. Returns it."""
        for key, vector in stored.items():
            self._memory.put(key, vector)
        self.counts.store += len(stored)
        return stored

    def add(self, made: Mapping[bytes, Vector]) -> dict[bytes, Vector]:
        """What was embedded just now, for the next time. On the event loop; returns it before it is written."""
        hour = self._hour()
        stamped = {key: vector._replace(made_h=hour) for key, vector in made.items()}
        for key, vector in stamped.items():
            self._memory.put(key, vector)
        self.counts.misses += len(stamped)
        if self._open_store is not None:
            self._await(stamped)
        return stamped

    def _await(self, made: Mapping[bytes, Vector]) -> None:
        with self._lock:
            for key, vector in made.items():
                if self._waiting_bytes < MAX_WAITING_BYTES:
                    self._waiting[key] = vector
                    self._waiting_bytes += len(vector.raw)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(WRITE_DELAY_S, self._write_soon)

    async def close(self) -> None:
        """Writes what waits."""
        if self._due is not None:
            self._due.cancel()
        await asyncio.to_thread(self._shut)

    def _write_soon(self) -> None:
        self._due = None
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="embedding-cache")
        self._writer.submit(self._write)

    def _write(self) -> None:
        """On the writer's thread, or when that has ended."""
        try:
            store = self._opened()
            with self._lock:
                waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            if store is not None and waiting:
                store.put({key: _packed(key, vector) for key, vector in waiting.items()})
        except Exception:  # a thread's border: nobody looks at what this returns
            log.exception("embedding.cache.failed")

    def _shut(self) -> None:
        if self._writer is not None:
            self._writer.shutdown()
        if self._waiting:
            self._write()
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Store | None:
        if self._store is None and self._open_store is not None:
            with self._opening:
                self._store = self._store or self._open_store()
        return self._store

    def _hour(self) -> int:
        return int(self._unix()) // _HOUR_S


@final
class ModelVectors:
    """What the cache has of one model. The methods are the cache's own."""

    __slots__ = ("_begun", "_identity", "add", "far", "keep", "near")

    def __init__(self, cache: VectorCache, identity: bytes) -> None:
        self.near, self.far, self.keep, self.add = cache.near, cache.far, cache.keep, cache.add
        self._identity = identity
        self._begun: OrderedDict[tuple[str, str], hashlib._Hash] = OrderedDict()

    def keys(self, tenant: str, texts: Iterable[str], how: str = "") -> list[bytes]:
        """One of 32 bytes for each text. `how`: what else was asked of the model. Nothing is found across tenants."""
        begun = self._begun.get((tenant, how))
        if begun is None:
            parts = (self._identity, tenant.encode(), how.encode())
            # Hashes have one length, so the end of no part can be taken for the beginning of the next.
            begun = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
            self._begun[tenant, how] = begun
            if len(self._begun) > MAX_BEGUN:
                self._begun.popitem(last=False)
        keys = []
        for text in texts:
            hashed = begun.copy()
            hashed.update(text.encode("utf-8", "surrogatepass"))  # what is no Unicode is the tokenizer's to refuse
            keys.append(hashed.digest())
        return keys


@final
class _Memory:
    """The least recently used go first, and together they are no larger than they may be."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Vector] = OrderedDict()
        self.bytes = 0

    def get(self, key: bytes) -> Vector | None:
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, vector: Vector) -> None:
        known = self._entries.pop(key, None)
        if known is not None:
            self.bytes -= len(known.raw) + _ENTRY_BYTES
        self._entries[key] = vector
        self.bytes += len(vector.raw) + _ENTRY_BYTES
        while self.bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= len(oldest.raw) + _ENTRY_BYTES


def _packed(key: bytes, vector: Vector) -> bytes:
    body = _HEAD.pack(0, vector.made_h, vector.tokens, vector.truncated)[4:] + vector.raw
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little") + body


def _unpacked(key: bytes, packed: bytes) -> Vector | None:
    """None for what is damaged, cut off or another key's."""
    if len(packed) <= _HEAD.size or len(packed) % 4:
        return None
    check, made_h, tokens, truncated = _HEAD.unpack_from(packed)
    if check != zlib.crc32(packed[4:], zlib.crc32(key)):
        return None
    return Vector(packed[_HEAD.size :], tokens, bool(truncated), made_h)
