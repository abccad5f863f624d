"""What a process left behind that was killed: its journal is ended, shipped, and its accounts are known.

A call without a settlement may have cost all that was held for it, so that is what it did cost: estimated, and never dropped.
Killed in the middle, recovery starts again and ends the same.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

import msgspec
import structlog
from sqlalchemy import Engine

from gateway import ledger_store
from gateway.database import reading
from gateway.journal_batch import OpenCalls
from gateway.journal_files import Reader, Session, abandoned, add_segment
from gateway.journal_records import Closed, settled_at_worst
from gateway.ledger_groups import tally
from gateway.shipping import GROUP, deliver, read_checkpoint

log = structlog.stdlib.get_logger(__name__)


@final
class Recovered:
    """A dead session whose calls are all in the database. Locked until `done` or `leave`."""

    def __init__(self, held: Session, charges: Mapping[str, int], open_intents: int) -> None:
        """`charges`: account of money → what all calls of the session cost it. `open_intents`: how many calls had no end."""
        self.session = held.id
        self.charges = charges
        self.open_intents = open_intents
        self._held = held

    def done(self) -> None:
        """The lease store knows: the journal is deleted."""
        self._held.remove()
        self._held.unlock()

    def leave(self) -> None:
        """To be recovered again by whoever comes next, with the same result."""
        self._held.unlock()


def recover(data_dir: Path, engine: Engine) -> list[Recovered]:
    """Every session under the data directory whose process is gone. Raises SQLAlchemyError, OSError: then none is held."""
    found: list[Recovered] = []
    try:
        for held in abandoned(data_dir):
            try:
                found.append(_recover(held, engine))
            except msgspec.MsgspecError as error:  # whole, but written by another release
                log.error("journal.unreadable", session=held.id, reason=str(error))  # noqa: TRY400 — says it all
                held.unlock()
            except BaseException:
                held.unlock()
                raise
    except BaseException:
        for recovered in found:
            recovered.leave()
        raise
    return found


def _recover(held: Session, engine: Engine) -> Recovered:
    open_intents = _end(held)
    reader = Reader(held.directory)
    while (run := reader.read(GROUP)).payloads:
        deliver(engine, held.id, tally(run))
    reader.close()
    with reading(engine) as tx:
        charges = ledger_store.charges_of(tx, held.id)
    log.info("journal.recovered", session=held.id, open_intents=open_intents, records=reader.number)
    return Recovered(held, charges, open_intents)


def _end(held: Session) -> int:
    """Settles what is open and closes the journal, in one new segment; says how many calls that were."""
    checkpoint = read_checkpoint(held.directory)
    open_ = OpenCalls(checkpoint.open)
    reader = Reader(held.directory)
    closed = False
    while (run := reader.read(GROUP)).payloads:
        closed = tally(run).closed_at is not None
        tally(run.since(checkpoint.number), open_)
    reader.close()
    if len(open_) or not closed:
        ends = [settled_at_worst(intent) for intent in open_.intents()]
        add_segment(held.directory, reader.segment, reader.number, [*ends, Closed(time.time())])
    return len(open_)
