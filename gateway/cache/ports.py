"""Where entries are kept: two adapters, `gateway.cache.local` for one process and `gateway.cache.redis` for many."""

from collections.abc import Awaitable
from typing import Protocol

from gateway.cache.entry import Entry


class Store(Protocol):
    """Never raises and never keeps a call waiting beyond its deadline: whatever is wrong is a miss."""

    def near(self, key: bytes) -> Entry | None:
        """What is in this process's memory."""

    def far(self, key: bytes) -> Awaitable[Entry | None] | None:
        """What is elsewhere; None if that is known to be nothing."""

    def put(self, entry: Entry) -> None:
        """Returns at once; what cannot be kept in time is dropped."""

    async def close(self) -> None:
        """Writes what waits."""
