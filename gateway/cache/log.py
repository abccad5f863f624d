"""Questions that many processes have answered, in Redis: a stream per partition that each process reads on from where it was.

Redis need not know of vectors: what is new in a partition is read before it is searched, one round trip, and the search runs here, by
each process's own graph where a partition is large.
"""

from typing import Any, Final, final

import msgspec
import numpy as np

from gateway.cache.entry import check
from gateway.cache.index import Asked, Partition
from gateway.cache.redis import RedisStore

PAGE: Final = 512
PAGES: Final = 8  # of one reading

_Row = tuple[bytes, bytes, float, str, bytes]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Row).decode


@final
class QuestionLog:
    """Runs in tasks. Whatever is wrong, nothing is found."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def read(self, key: bytes, partition: Partition, unix: float) -> bool:
        """Adds what others have put there since, and says whether there may be more."""
        for _ in range(PAGES):
            after = partition.seen
            rows: Any = await self._store.ask(
                lambda redis, after=after: redis.xrange(self._name(key), min=f"({after}", count=PAGE)  # type: ignore[misc] # the value of now
            )
            for id_, fields in rows or ():
                partition.seen = id_.decode()
                asked = _read(fields.get(b"q", b""), key)
                if asked is not None:
                    partition.add(asked, unix)
            if not rows or len(rows) < PAGE:
                return False
        return True

    async def write(self, key: bytes, asked: Asked, ttl_s: float, most: int) -> None:
        vector = asked.vector.astype(np.float16).tobytes()
        body = _encode((key, asked.key, asked.expires_at, asked.text, vector))
        raw = check(body) + body
        name = self._name(key)
        await self._store.ask(lambda redis: redis.xadd(name, {b"q": raw}, maxlen=most, approximate=True))
        await self._store.ask(lambda redis: redis.pexpire(name, max(1, int(ttl_s * 1000)), gt=False))

    def _name(self, key: bytes) -> bytes:
        return b"%b:meaning:%b" % (self._store.prefix, key.hex().encode())


def _read(raw: bytes, key: bytes) -> Asked | None:
    """None for what is damaged, or stands in another partition than it was written to."""
    body = raw[16:]
    if raw[:16] != check(body):
        return None
    try:
        partition, entry, expires_at, text, vector = _decode(body)
    except msgspec.DecodeError:
        return None
    if partition != key:
        return None
    read = np.frombuffer(vector, np.float16).astype(np.float32)
    return Asked(entry, expires_at, text, read / np.linalg.norm(read))
