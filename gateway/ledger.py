"""The ledger as an auditor sees it: is every entry there, unchanged and once? And what may be forgotten without losing that.

The hashes are not keyed: who may write to the database can make a new ledger that is whole. Keep the `seal` that a check prints
somewhere else, and a later check shows whether history is still the same.
"""

from collections.abc import Container, Iterator
from hashlib import sha256
from itertools import islice, takewhile
from typing import Final, Literal, final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from gateway import ledger_store
from gateway.database import appending, reading
from gateway.ledger_blocks import chained, genesis
from gateway.ledger_entries import DAY_S
from gateway.ledger_groups import Head

REMEMBERED: Final = 100_000  # ids that a repeated one is looked for among; a group shipped twice repeats within one
PRUNED_AT_ONCE: Final = 50  # blocks

Fault = Literal[
    "changed", "missing", "inserted", "duplicate", "head", "session_missing", "session_unknown", "unreadable"
]

_MEANINGS: Final[dict[Fault, str]] = {
    "changed": "not what was written: the hash does not follow from the block and the one before",
    "missing": "not there",
    "inserted": "there, and was never written",
    "duplicate": "the call has two entries",
    "head": "the session's head does not say what its entries say",
    "session_missing": "a session is not there that another was registered after",
    "session_unknown": "there are blocks of a session that was never registered",
    "unreadable": "a row holds what was never written there",
}


class Broken(msgspec.Struct, frozen=True):
    """The first thing that is wrong in a session: with entry `seq`, or in the block that ends with `last`. None: with it as a whole."""

    fault: Fault
    session: str
    seq: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        where = self.session if self.seq is None else f"{self.session}, entry {self.seq:,}"
        if self.last is not None and self.last != self.seq:
            where = f"{self.session}, entries {self.seq:,} to {self.last:,}"
        return f"{where}: {_MEANINGS[self.fault]}"


class Verdict(msgspec.Struct, frozen=True):
    """`seal` is a hash over all heads. `cost_nanousd` and `entries` have what was pruned in them."""

    sessions: int
    entries: int
    pruned_entries: int
    cost_nanousd: int
    seal: str
    broken: tuple[Broken, ...]


def verify(engine: Engine) -> Verdict:
    """Reads every entry, as of one moment."""
    with reading(engine) as tx:
        names = list(ledger_store.sessions(tx))
        known = set(names)
        broken: list[Broken] = []
        entries = pruned = cost = 0
        seal = sha256()
        for name in names:
            head, fault = _checked(tx, name, known)
            broken += [] if fault is None else [fault]
            if head is not None:
                entries += head.entries
                pruned += head.pruned_entries
                cost += head.cost_nanousd
                seal.update(name.encode() + head.last_hash)
    return Verdict(len(names), entries, pruned, cost, seal.hexdigest(), tuple(broken))


def prune(engine: Engine, before_day: int) -> int:
    """Deletes entries of days before `before_day` and says how many. Sums of spend stay.

    Each session keeps the hash and the sum of what it lost, so that the rest can still be verified. Only a session's oldest blocks
    go, and only whole: an entry that is due waits for those that are not, which is a matter of the minutes that calls last.
    """
    forgotten = 0
    with reading(engine) as tx:
        names = list(ledger_store.sessions(tx))
    for name in names:
        while (count := _prune_some(engine, name, before_day)) > 0:
            forgotten += count
    return forgotten


def _checked(tx: Connection, name: str, known: Container[str]) -> tuple[Head | None, Broken | None]:
    try:
        head = ledger_store.head(tx, name)
        if head is None:
            return None, Broken("session_unknown", name)
        fault = next(_faults(tx, head), None)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None, Broken("unreadable", name)
    except DBAPIError:
        if tx.dialect.name != "sqlite":  # whose columns hold anything, also what is no text
            raise
        return None, Broken("unreadable", name)
    if fault is None and head.after is not None and head.after not in known:
        fault = Broken("session_missing", head.after)
    return head, fault


def _faults(tx: Connection, head: Head) -> Iterator[Broken]:
    """After the first one, what follows means little."""
    name = head.session
    if (head.pruned_hash is None) != (head.pruned_entries == 0):
        yield Broken("head", name)
    previous = genesis(name, head.after) if head.pruned_hash is None else head.pruned_hash
    seq, cost = head.pruned_entries, head.pruned_cost_nanousd
    ids = _Ids()
    for block, digest in ledger_store.blocks(tx, name):
        first, last = block.first_seq, block.last_seq
        if first <= seq or last > head.entries:
            yield Broken("inserted", name, first, last)
        if first != seq + 1:
            yield Broken("missing", name, seq + 1)
        previous = chained(previous, block)
        if previous != digest:
            yield Broken("changed", name, first, last)
        calls = block.settled()
        if not block.agrees(calls):
            yield Broken("changed", name, first, last)
        for entry, call in enumerate(calls, first):
            if ids.seen(call.id):
                yield Broken("duplicate", name, entry)
        seq, cost = last, cost + block.cost_nanousd
    if seq != head.entries:
        yield Broken("missing", name, seq + 1)
    if previous != head.last_hash or cost != head.cost_nanousd:
        yield Broken("head", name)


@final
class _Ids:
    """The last REMEMBERED ones, at least."""

    def __init__(self) -> None:
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def seen(self, id_: str) -> bool:
        """Whether it came before."""
        if id_ in self._recent or id_ in self._older:
            return True
        self._recent.add(id_)
        if len(self._recent) > REMEMBERED:
            self._recent, self._older = set(), self._recent
        return False


def _prune_some(engine: Engine, session: str, before_day: int) -> int:
    with reading(engine) as tx:
        head = ledger_store.head(tx, session)
        if (
            head is None
            or head.first_day is None
            or head.first_day >= before_day
            or head.pruned_entries == head.entries
        ):
            return 0
    with appending(engine) as tx:
        head = ledger_store.claimed(tx, session)
        due = takewhile(lambda one: one[0].last_at < before_day * DAY_S, ledger_store.blocks(tx, session))
        gone = list(islice(due, PRUNED_AT_ONCE))
        if not gone:
            return 0
        ledger_store.forget_blocks(tx, [block for block, _ in gone])
        (last, digest), cost = gone[-1], sum(block.cost_nanousd for block, _ in gone)
        ledger_store.put_head(
            tx,
            replace(
                head,
                pruned_entries=last.last_seq,
                pruned_hash=digest,
                pruned_cost_nanousd=head.pruned_cost_nanousd + cost,
            ),
        )
    return last.last_seq - head.pruned_entries
