"""From a batch of journal records to what the database gets of them: one group, one transaction. Pure: the same records, the same rows."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.journal_batch import Batch, array, batch
from gateway.journal_records import Settled
from gateway.ledger_blocks import Block, block, chained, genesis
from gateway.ledger_entries import DAY_S


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


class Refused(msgspec.Struct, frozen=True):
    """Calls that owe nothing: they have a request record and no entry. `records` as in Block."""

    calls: Sequence[Settled]
    records: bytes


class Group(msgspec.Struct, frozen=True):
    """`head` is the one after it. `calls` are those of the block. `charges` are the sums per account of money."""

    head: Head
    block: Block | None
    calls: Sequence[Settled]
    refused: Refused | None
    charges: Mapping[str, int]


def group(head: Head, read: Batch) -> Group:
    """The records that follow `head`; what it has already is left out, so that nothing counts twice."""
    if read.run.first < head.position:
        read = batch(read.run.since(head.position))
    calls, payloads = read.settled, read.payloads
    refused = None
    if None in [call.source for call in calls]:
        pairs = [pair for pair in zip(calls, payloads, strict=True) if pair[0].source is None]
        refused = Refused([call for call, _ in pairs], array([payload for _, payload in pairs]))
        pairs = [pair for pair in zip(calls, payloads, strict=True) if pair[0].source is not None]
        calls, payloads = [call for call, _ in pairs], [payload for _, payload in pairs]
    made = block(head.session, head.entries, array(payloads), calls) if calls else None
    position = max(head.position, read.run.end) if read.run.payloads else head.position
    after = msgspec.structs.replace(head, position=position, closed_at=read.closed_at or head.closed_at)
    return Group(after if made is None else _extended(after, made), made, calls, refused, _charges(read.settled))


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


def _charges(calls: Iterable[Settled]) -> Mapping[str, int]:
    charges: dict[str, int] = {}
    for call in calls:
        for account, amount in call.charges:
            charges[account] = charges.get(account, 0) + amount
    return {account: amount for account, amount in charges.items() if account.startswith("b:")}
