"""Vectors of known texts in Redis, for all replicas. Its memory is bounded by its own `maxmemory`, and each has a time to live.

It is asked from threads, which tokenise or wait for the same texts anyway; otherwise as `gateway.cache.redis`: not beyond a deadline,
and one that does not answer is left alone for a while.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, final

import structlog
from redis import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from gateway.cache.redis import AWAY_S, DEADLINE_S

log = structlog.stdlib.get_logger(__name__)

CONNECTIONS: Final = 8
_AT_ONCE: Final = 500  # keys of one command: a part of a second of a busy Redis


@final
class VectorsInRedis:
    """`embedding.cache.Store`."""

    def __init__(self, url: str, ttl_s: int, *, prefix: str = "penstock:vector", away_s: float = AWAY_S) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            socket_connect_timeout=DEADLINE_S,
            socket_timeout=DEADLINE_S,
            protocol=2,
            max_connections=CONNECTIONS,
            timeout=DEADLINE_S,
        )
        self._redis = Redis.from_pool(pool)
        self._ttl_s = ttl_s
        self._prefix = prefix.encode()
        self._away_s = away_s
        self._away_until = 0.0
        self._away = False

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if time.monotonic() < self._away_until:
            return found
        try:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                values = self._redis.mget([self._name(key) for key in some])
                found.update((key, value) for key, value in zip(some, values, strict=True) if isinstance(value, bytes))
            self._back()
        except (RedisError, OSError) as error:
            self._gone(error)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        if time.monotonic() < self._away_until:
            return
        items = list(entries.items())
        try:
            for start in range(0, len(items), _AT_ONCE):
                with self._redis.pipeline(transaction=False) as pipeline:
                    for key, value in items[start : start + _AT_ONCE]:
                        pipeline.set(self._name(key), value, ex=self._ttl_s)
                    pipeline.execute()
            self._back()
        except (RedisError, OSError) as error:
            self._gone(error)

    def size(self) -> int | None:
        return None

    def close(self) -> None:
        self._redis.close()

    def _gone(self, error: Exception) -> None:
        if not self._away:
            log.warning("embedding.cache.away", reason=f"{type(error).__name__}: {error}")
        self._away = True
        self._away_until = time.monotonic() + self._away_s

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.info("embedding.cache.back")

    def _name(self, key: bytes) -> bytes:
        return b"%b:%b" % (self._prefix, key.hex().encode())
