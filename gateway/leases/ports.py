"""What the gateway needs of a store of leases. Adapters: memory, SQLite, PostgreSQL, Redis."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from gateway.leases.accounts import Account, Borrow, Grant, Report, Seen, State

# For accounts that a store has no memory of: account → session → settled, for all sessions that the ledger knows, the
# closed ones too. By session, because the living ones will report the same sums again. Raises StoreUnavailable.
LedgerSums = Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, int]]]]


class LeaseStore(Protocol):
    """The accounts of all processes. One object serves one process; its calls stand in line, so batch what you can.

    Every call is one round trip, answered within the deadline or with StoreUnavailable. Calls need a running task (they use
    timeouts). A borrow that failed may have been granted: include its account in the next sync. Clocks are the store's own,
    since those of replicas differ.
    """

    async def borrow(self, session: str, requests: Sequence[Borrow]) -> Sequence[Grant]:
        """Grants in the order of the requests, each on its own. Counts as a heartbeat.

        Raises StoreUnavailable, Forgotten, Quarantined, SessionClosed.
        """

    async def sync(self, session: str, reports: Sequence[Report]) -> Sequence[State]:
        """Sets the session's shares and gives the rest back; accounts without a report keep theirs. Counts as a heartbeat.

        Idempotent. Settled never goes down. What is reported is believed, also beyond what was lent: an upstream has
        billed it. Raises StoreUnavailable, Forgotten, SessionClosed.
        """

    async def close(self, session: str, settled: Mapping[str, int]) -> None:
        """Ends a session, one's own or a dead one whose journal was recovered: settled becomes final, the rest is given back.

        Accounts that are not named keep what was settled last. Doing it again changes nothing. Raises StoreUnavailable.
        """

    async def state(self, accounts: Sequence[Account]) -> Sequence[State]:
        """Looks and changes nothing. Raises StoreUnavailable."""

    async def reset(self, account: Account) -> None:
        """Forgets what was settled, fills a bucket. What is lent stays lent. Raises StoreUnavailable."""

    async def sessions(self) -> Sequence[Seen]:
        """All sessions that were not closed. Raises StoreUnavailable."""

    async def disconnect(self) -> None:
        """Lets go of connections and threads. The sessions stay open."""
