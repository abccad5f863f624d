"""From journal records to what the database gets of them: one group, one transaction. Pure: the same records give the same rows."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.journal_files import Announced, Numbered
from gateway.journal_records import Closed, Intent, Settled
from gateway.ledger_entries import Entry, canonical, chained, entry, genesis


class Head(msgspec.Struct, frozen=True):
    """Where a session's chain stands. `position` counts the journal's records that are in the database."""

    session: str
    after: str | None
    position: int
    entries: int
    last_hash: bytes
    cost_nanousd: int
    first_day: int | None = None
    last_day: int | None = None
    closed_at: float | None = None
    pruned_entries: int = 0
    pruned_hash: bytes | None = None
    pruned_cost_nanousd: int = 0


def first_head(session: str, after: str | None) -> Head:
    """Of a session that has no entries yet, registered after another one."""
    return Head(session, after, 0, 0, genesis(session, after), 0)


class Group(msgspec.Struct, frozen=True):
    """`charges` are the sums per account of money. `head` is the one after it; `hashes` are the entries'."""

    head: Head
    entries: Sequence[Entry]
    hashes: Sequence[bytes]
    requests: Sequence[Settled]
    charges: Mapping[str, int]


def group(head: Head, records: Sequence[Numbered]) -> Group:
    """The records that follow `head`; what it has already is left out, so that nothing counts twice."""
    session, seq, previous = head.session, head.entries, head.last_hash
    cost = head.cost_nanousd
    closed_at = head.closed_at
    entries: list[Entry] = []
    hashes: list[bytes] = []
    requests: list[Settled] = []
    charges: dict[str, int] = {}
    for numbered in records:
        record = numbered.record
        if numbered.number < head.position:
            continue
        if isinstance(record, Settled):
            requests.append(record)
            if record.source is not None:
                seq += 1
                made = entry(record, session, seq)
                previous = chained(previous, canonical(made))
                entries.append(made)
                hashes.append(previous)
                cost += made.cost_nanousd
            for account, amount in record.charges:
                if account.startswith("b:"):
                    charges[account] = charges.get(account, 0) + amount
        elif isinstance(record, Closed):
            closed_at = record.at
    days = [made.day for made in entries]
    first, last = head.first_day, head.last_day
    after = msgspec.structs.replace(
        head,
        position=max(head.position, records[-1].number + 1) if records else head.position,
        entries=seq,
        last_hash=previous,
        cost_nanousd=cost,
        first_day=min((*days, first) if first is not None else days, default=None),
        last_day=max((*days, last) if last is not None else days, default=None),
        closed_at=closed_at,
    )
    return Group(after, entries, hashes, requests, charges)


class OpenCalls:
    """The calls that a journal has announced and not settled, as of the records that were taken."""

    def __init__(self, open_: Sequence[Intent] = ()) -> None:
        self._open: dict[str, Intent | Announced] = {intent.id: intent for intent in open_}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, records: Sequence[Numbered]) -> None:
        for numbered in records:
            record = numbered.record
            if isinstance(record, Announced):
                self._open[record.id()] = record
            elif isinstance(record, Settled):
                self._open.pop(record.id, None)

    def intents(self) -> tuple[Intent, ...]:
        return tuple(one.intent() if isinstance(one, Announced) else one for one in self._open.values())
