"""Blocks of the ledger: the entries of one shipped group in one row, and the hash that ties each block to the one before.

A row per entry costs its process 15 µs, most of it with the interpreter's lock; a place in a block costs less than 2. A block holds the
settlements as they were journalled, so that nothing is encoded twice.

The chain of a session starts at its `genesis`, which names the session registered before it: a session that vanishes as a whole leaves a
hole. Anyone can recompute the hashes: SHA-256 over the previous hash, the MessagePack array of the block's other columns in the order of
the class, and the records.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, final

import msgspec

from gateway.journal_batch import array, settlements
from gateway.journal_heads import End
from gateway.journal_records import Settled
from gateway.ledger_entries import Entry, charged, entry

_encode: Final = msgspec.msgpack.Encoder().encode


class Block(msgspec.Struct, frozen=True, gc=False):
    """The entries `first_seq` to `last_seq` of a session, which count from 1 without a gap.

    Ids are the lowest and the highest; both are empty in blocks that were made of older releases' rows, whose calls
    `request_blocks` lists. Times are Unix seconds, also the lowest and the highest. `records` is a
    MessagePack array of `Settled` and `Ended`.
    """

    session: str
    first_seq: int
    last_seq: int
    first_id: str
    last_id: str
    first_at: float
    last_at: float
    cost_nanousd: int
    records: bytes

    def settled(self) -> list[Settled]:
        """Raises msgspec.DecodeError for bytes that are none."""
        return settlements(self.records)

    def entries(self) -> Iterator[Entry]:
        for seq, settled in enumerate(self.settled(), self.first_seq):
            yield entry(settled, self.session, seq)

    def agrees(self, calls: Sequence[Settled]) -> bool:
        """Whether its columns say what its records do."""
        count, cost = self.last_seq - self.first_seq + 1, sum(charged(call.cost_nanousd) for call in calls)
        return len(calls) == count and cost == self.cost_nanousd and all(call.source is not None for call in calls)


HEADER: Final = tuple(name for name in Block.__struct_fields__ if name != "records")


@final
class Part:
    """Calls on their way into one block."""

    __slots__ = ("answers", "first_at", "first_id", "keys", "last_at", "last_id", "payloads")

    def __init__(self) -> None:
        self.answers: list[str] = []  # the ids that their answers have, and those of what they are parts of
        self.payloads: list[bytes] = []
        self.keys: set[str | None] = set()
        self.first_id = self.last_id = ""
        self.first_at = self.last_at = 0.0

    def take(self, calls: Sequence[End], payloads: Sequence[bytes]) -> None:
        """`payloads` are the bytes of `calls`; there is at least one. Whose they are, `keys` is told by who knows."""
        ids, times = [call.id for call in calls], [call.at for call in calls]
        if self.payloads:
            ids += [self.first_id, self.last_id]
            times += [self.first_at, self.last_at]
        self.first_id, self.last_id = min(ids), max(ids)
        self.first_at, self.last_at = min(times), max(times)
        self.payloads += payloads
        self.answers += [call.answer_id for call in calls if call.answer_id is not None]
        self.answers += {call.routed.part_of for call in calls if call.routed is not None and call.routed.part_of}

    def records(self) -> bytes:
        return array(self.payloads)

    def block(self, session: str, entries_before: int, cost_nanousd: int) -> Block:
        """The next one of a session."""
        return Block(
            session,
            entries_before + 1,
            entries_before + len(self.payloads),
            self.first_id,
            self.last_id,
            self.first_at,
            self.last_at,
            cost_nanousd,
            self.records(),
        )


def chained(previous: bytes, one: Block) -> bytes:
    """The hash of a block."""
    digest = sha256(previous + _encode([getattr(one, name) for name in HEADER]))
    digest.update(one.records)
    return digest.digest()


def genesis(session: str, after: str | None) -> bytes:
    """What the first block of a session is chained to. `after` is the session registered before, if any."""
    return sha256(_encode(("penstock ledger 2", session, after))).digest()
