"""Entries in memory: the least recently used go first, and together they are no larger than they may be."""

from collections import OrderedDict
from collections.abc import Callable
from typing import final

from gateway.cache.entry import Entry


@final
class Memory:
    """`unix` is the clock. `stays_s`: how long an entry is believed here, where others may have a newer one."""

    def __init__(self, max_bytes: int, unix: Callable[[], float], stays_s: float | None = None) -> None:
        self._max_bytes = max_bytes
        self._unix = unix
        self._stays_s = stays_s
        self._entries: OrderedDict[bytes, tuple[Entry, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if self._unix() >= found[1]:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, entry: Entry) -> None:
        """What is larger than everything together is left out."""
        self.drop(entry.key)
        if entry.size > self._max_bytes:
            return
        until = entry.expires_at
        if self._stays_s is not None:
            until = min(until, self._unix() + self._stays_s)
        self._entries[entry.key] = entry, until
        self.bytes += entry.size
        while self.bytes > self._max_bytes:
            _, (oldest, _) = self._entries.popitem(last=False)
            self.bytes -= oldest.size

    def drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= found[0].size
