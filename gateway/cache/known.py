"""Keys of requests that came before, byte by byte the same: to make one again costs as much as all the rest of a hit."""

from typing import Final, final

from gateway.cache.controls import NONE, Controls
from gateway.call import Call
from gateway.planner import REGION
from gateway.snapshot import Snapshot

MAX_BODY_BYTES: Final = 8 * 1024
MOST: Final = 1024

_Shown = tuple[bytes, str, str, bytes]


@final
class Known:
    """For one snapshot: with another one keys, models and who shares what may differ. Only of requests that say all in their bodies."""

    __slots__ = ("_keys", "_snapshot")

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._keys: dict[_Shown, bytes] = {}

    def get(self, call: Call, asked: Controls) -> bytes | None:
        if call.snapshot is not self._snapshot:
            self._snapshot = call.snapshot
            self._keys = {}
            return None
        shown = _shown(call, asked)
        return None if shown is None else self._keys.get(shown)

    def put(self, call: Call, asked: Controls, key: bytes) -> None:
        shown = _shown(call, asked)
        if shown is None or call.snapshot is not self._snapshot:
            return
        if len(self._keys) >= MOST:
            self._keys = {}
        self._keys[shown] = key


def _shown(call: Call, asked: Controls) -> _Shown | None:
    record, endpoint = call.record, call.endpoint
    if (
        asked is not NONE
        or record.routed is not None
        or record.tags is not None
        or endpoint.front is not None
        or endpoint.door is not None
        or call.guarded is not None
        or len(call.body) > MAX_BODY_BYTES
        or REGION in call.exchange.headers
    ):
        return None
    assert record.key is not None
    return (call.body, record.key.id, endpoint.name, b"" if call.grounds is None else call.grounds.version)
