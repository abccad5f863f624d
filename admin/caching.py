"""Where answers are kept, as the settings say: in Redis where there is one, else in this process's memory and on its disk."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from admin.settings import CacheSection, Settings
from gateway.cache.ports import Store
from gateway.plane import CacheTerms

MEBI = 1024 * 1024
Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


def cache_terms(settings: Settings) -> CacheTerms:
    """Nothing is opened before a model wants it: one that was given a cache over REST has the defaults."""
    section = settings.cache or CacheSection()
    return CacheTerms(lambda spawn: _store(section, settings, spawn), int(section.max_entry_kb * 1024))


def _store(section: CacheSection, settings: Settings, spawn: Spawn) -> Store:
    memory_bytes = int(section.memory_mb * MEBI)
    if settings.redis_url is not None and section.store != "local":
        from gateway.cache.redis import RedisStore  # noqa: PLC0415 — for those who have one

        return RedisStore(settings.redis_url, memory_bytes, time.time, spawn)
    from gateway.cache.local import LocalStore  # noqa: PLC0415 — loaded with the first model that has a cache

    return LocalStore(memory_bytes, int(section.disk_mb * MEBI), settings.data_dir / "cache", time.time)
