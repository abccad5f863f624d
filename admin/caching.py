"""Where answers are kept, as the settings say: in Redis where there is one, else in this process's memory and on its disk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from admin.settings import CacheSection, Settings
from gateway.cache.ports import Store
from gateway.stage_terms import CacheTerms

if TYPE_CHECKING:  # NumPy comes with it
    from gateway.cache.log import QuestionLog

MEBI = 1024 * 1024
Embed = Callable[[Sequence[str]], Awaitable[Any]]
Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


def cache_terms(settings: Settings, embed: Embed) -> CacheTerms:
    """Nothing is opened before a model wants it: one that was given a cache over REST has the defaults."""
    section = settings.cache or CacheSection()
    return CacheTerms(lambda spawn: _store(section, settings, spawn), int(section.max_entry_kb * 1024), embed, _log)


def _store(section: CacheSection, settings: Settings, spawn: Spawn) -> Store:
    memory_bytes = int(section.memory_mb * MEBI)
    if settings.redis_url is not None and section.store != "local":
        from gateway.cache.redis import RedisStore  # noqa: PLC0415 — for those who have one

        return RedisStore(settings.redis_url, memory_bytes, time.time, spawn)
    from gateway.cache.local import LocalStore  # noqa: PLC0415 — loaded with the first model that has a cache

    return LocalStore(memory_bytes, int(section.disk_mb * MEBI), settings.data_dir / "cache", time.time)


def _log(store: Store) -> "QuestionLog | None":
    """Only processes that share their answers tell each other of questions."""
    from gateway.cache.redis import RedisStore  # noqa: PLC0415 — as above

    if not isinstance(store, RedisStore):
        return None
    from gateway.cache.log import QuestionLog  # noqa: PLC0415 — NumPy comes with it

    return QuestionLog(store)
