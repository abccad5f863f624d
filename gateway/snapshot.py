"""One immutable view of keys, models and rules per revision. A request holds one snapshot from its first to its last byte."""

from collections.abc import Callable, Mapping

import msgspec

from gateway.catalog import Catalog
from gateway.guards.policy import Guards
from gateway.keys import Key
from gateway.mcp.catalog import Servers
from gateway.routing.versions import Versions
from gateway.scopes import Rules


class Snapshot(msgspec.Struct, frozen=True):
    """`keys` is indexed by the SHA-256 of the secret; revoked keys are not in it. `rules` are budgets and limits:
    the same object as long as none of them changed, so what was found with it stays valid."""

    revision: int
    keys: Mapping[bytes, Key]
    catalog: Catalog
    rules: Rules = Rules()
    versions: Versions | None = None  # where there is any route or prompt
    servers: Servers = ()  # of MCP
    searchable: bool = False  # there are documents that a chat may ask for
    beside: object = None  # what another plane keeps under the same revisions; nothing here looks into it
    guards: Guards | None = None  # where there are any


EMPTY = Snapshot(0, {}, Catalog({}))


class Current:
    """The holder of the snapshot in force. Swapped whole, by one assignment, on the event loop's thread."""

    __slots__ = ("_listeners", "snapshot")

    def __init__(self, snapshot: Snapshot = EMPTY) -> None:
        self.snapshot = snapshot
        self._listeners: list[Callable[[Snapshot], None]] = []

    def on_change(self, listener: Callable[[Snapshot], None]) -> None:
        """Calls `listener` with each later snapshot, after it is in force."""
        self._listeners.append(listener)

    def replace(self, snapshot: Snapshot) -> None:
        """Older or equal revisions are ignored: two refreshes may overtake each other."""
        if snapshot.revision < self.snapshot.revision:
            return
        self.snapshot = snapshot
        for listener in self._listeners:
            listener(snapshot)
