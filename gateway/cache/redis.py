"""The cache of many processes in Redis: an entry is one value, with its own time to live, checked as on disk.

Redis is never waited for beyond a deadline, and one that does not answer is left alone for a while: then every call is a miss. What was
just read or written stays in memory for a few seconds, so that a popular answer does not cost a round trip each time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar, final

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from gateway.cache.entry import Entry, packed, unpacked
from gateway.cache.memory import Memory

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")

DEADLINE_S: Final = 0.25
AWAY_S: Final = 2.0
NEAR_S: Final = 5.0  # how long a process believes its own copy
MAX_WRITING: Final = 64
CONNECTIONS: Final = 64


@final
class RedisStore:
    """`gateway.cache.ports.Store`. `spawn` runs a coroutine in a task that ends with the process; `unix` is the clock."""

    def __init__(
        self,
        url: str,
        memory_bytes: int,
        unix: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
        *,
        prefix: str = "penstock:cache",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url, socket_connect_timeout=deadline_s, protocol=2, max_connections=CONNECTIONS, timeout=deadline_s
        )
        self._redis = Redis.from_pool(pool)
        self._deadline_s = deadline_s
        self._memory = Memory(memory_bytes, unix, NEAR_S)
        self._unix = unix
        self._spawn = spawn
        self.prefix = prefix.encode()
        self._writing: set[asyncio.Task[Any]] = set()
        self._away_until = 0.0
        self._away = False

    def near(self, key: bytes) -> Entry | None:
        return self._memory.get(key)

    def far(self, key: bytes) -> Awaitable[Entry | None] | None:
        if time.monotonic() < self._away_until:
            return None
        return self._spawn(self._get(key))

    def put(self, entry: Entry) -> None:
        self._memory.put(entry)
        if len(self._writing) < MAX_WRITING and time.monotonic() >= self._away_until:
            task = self._spawn(self._set(entry))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing, timeout=2 * self._deadline_s)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def ask(self, command: Callable[["Redis"], Awaitable[T]]) -> T | None:
        """What Redis answers within the deadline; None if it does not. Runs in a task."""
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await command(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            if not self._away:
                log.warning("cache.redis_away", reason=f"{type(error).__name__}: {error}")
            self._away = True
            self._away_until = time.monotonic() + AWAY_S
            return None
        if self._away:
            self._away = False
            log.info("cache.redis_back")
        return answer

    async def _get(self, key: bytes) -> Entry | None:
        raw = await self.ask(lambda redis: redis.get(self._name(key)))
        entry = unpacked(raw, key) if isinstance(raw, bytes) else None
        if entry is None or self._unix() >= entry.expires_at:
            return None
        self._memory.put(entry)
        return entry

    async def _set(self, entry: Entry) -> None:
        left_ms = int((entry.expires_at - self._unix()) * 1000)
        if left_ms > 0:
            await self.ask(lambda redis: redis.set(self._name(entry.key), packed(entry), px=left_ms))

    def _name(self, key: bytes) -> bytes:
        return b"%b:%b" % (self.prefix, key.hex().encode())
