"""From journal records to what the database gets of them: one group, one transaction. Pure: the same records give the same rows."""

from collections.abc import Mapping
from itertools import compress
from typing import final

import msgspec

from gateway.journal_batch import OpenCalls, batches
from gateway.journal_files import Run
from gateway.journal_heads import Batch, End
from gateway.journal_records import Ended, party_of
from gateway.ledger_blocks import Block, Part, chained, genesis
from gateway.ledger_entries import DAY_S
from gateway.spend_sums import Sums


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
    """`head` is the one after it, `block` the entries of `tally`, if there are any."""

    head: Head
    block: Block | None
    tally: "Tally"


@final
class Tally:
    """What the calls of a run come to, whichever head they follow. `refused` owe nothing: they have a record and no entry.

    `charges` are the sums per account.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.entries = Part()
        self.refused = Part()
        self.sums = Sums()
        self.closed_at: float | None = None

    @property
    def charges(self) -> Mapping[str, int]:
        return self.sums.charges()

    def take(self, some: Batch) -> None:
        if some.closed_at is not None:
            self.closed_at = some.closed_at
        ends, payloads = some.ends, some.payloads
        sources = [end.source for end in ends]
        if None in sources:
            refused = [source is None for source in sources]
            some_refused = list(compress(ends, refused))
            self.refused.take(some_refused, list(compress(payloads, refused)))
            self.refused.keys.update([_key_id(end) for end in some_refused])
            owing = [source is not None for source in sources]
            ends, payloads = list(compress(ends, owing)), list(compress(payloads, owing))
        if ends:
            self.sums.take(ends)
            self.entries.take(ends, payloads)
            self.entries.keys.update(self.sums.key_ids())


def _key_id(end: End) -> str | None:
    return party_of(end.party).key_id if isinstance(end, Ended) else end.key_id


def tally(run: Run, open_: OpenCalls | None = None) -> Tally:
    """Decodes a run; what it opens and ends is told to `open_`. Raises msgspec.DecodeError."""
    made = Tally(run)
    for some in batches(run):
        made.take(some)
        if open_ is not None:
            open_.take(some)
    return made


def group(head: Head, counted: Tally) -> Group:
    """The records that follow `head`; what it has already is left out, so that nothing counts twice."""
    if counted.run.first < head.position:
        counted = tally(counted.run.since(head.position))
    run, entries = counted.run, counted.entries
    position = max(head.position, run.end) if run.payloads else head.position
    after = msgspec.structs.replace(head, position=position, closed_at=counted.closed_at or head.closed_at)
    if not entries.payloads:
        return Group(after, None, counted)
    block = entries.block(head.session, head.entries, counted.sums.cost_nanousd())
    return Group(_extended(after, block), block, counted)


def _extended(head: Head, made: Block) -> Head:
    first, last = int(made.first_at // DAY_S), int(made.last_at // DAY_S)
    return msgspec.structs.replace(
        head,
        entries=made.last_seq,
        last_hash=chained(head.last_hash, made),
        cost_nanousd=head.cost_nanousd + made.cost_nanousd,
        first_day=first if head.first_day is None else min(first, head.first_day),
        last_day=last if head.last_day is None else max(last, head.last_day),
    )
