"""From the journal to the database: one thread per process ships what was appended, in groups, exactly once.

A group is one transaction: a block of entries, request records, sums, charges and how far the journal is shipped. Whoever repeats
it, after a crash or a commit whose answer got lost, finds the position and leaves out what is there. A database that is slow or away
costs nothing but room in the journal: what waits stays in its file.
"""

import threading
import time
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway import ledger_store
from gateway.database import appending
from gateway.journal import Journal
from gateway.journal_batch import OpenCalls
from gateway.journal_files import Reader, segment_path, write_whole
from gateway.journal_records import Intent
from gateway.ledger_groups import Head, Tally, group, tally
from gateway.spend_sums import compact_all

GROUP: Final = 4_000  # records of one transaction, two of each call; fewer commits are worth more than the milliseconds that one takes
INTERVAL_S: Final = 0.2
STEADY_S: Final = 2.0  # at most, between the small groups of a trickle: a transaction costs more than what is in it
MOST_DOUBLINGS: Final = 8  # of the interval
SMALL: Final = GROUP // 8
COMPACT_EVERY_S: Final = 30.0  # the more it finds, the more of it is the same
MAX_PAUSE_S: Final = 5.0

log = structlog.stdlib.get_logger(__name__)


class Checkpoint(msgspec.Struct, frozen=True):
    """What the deleted segments of a journal still mean: the calls that were open when record `number` was the next one."""

    number: int = 0
    open: tuple[Intent, ...] = ()


def deliver(engine: Engine, session: str, counted: Tally) -> Head:
    """One transaction. What the database has already is left out. Raises SQLAlchemyError."""
    with appending(engine) as tx:
        head = ledger_store.claimed(tx, session)
        if counted.run.payloads and counted.run.first > head.position:
            log.error("ledger.gap", session=session, expected=head.position, found=counted.run.first)
        made = group(head, counted)
        ledger_store.save(tx, made)
    return made.head


def read_checkpoint(directory: Path) -> Checkpoint:
    try:
        return msgspec.msgpack.decode(_checkpoint(directory).read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint()


@final
class Shipper:
    """`start`, then `close`. The thread is the only one that reads."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        interval_s: float = INTERVAL_S,
        compact_every_s: float = COMPACT_EVERY_S,
        told: bool = False,
    ) -> None:
        """`told`: somebody calls `look` now and then, and the journal need not be asked while it has nothing."""
        self._engine = engine
        self._journal = journal
        self._interval_s = interval_s
        self._steady_s = interval_s * STEADY_S / INTERVAL_S
        self._compact_every_s = compact_every_s
        self._compacted_at = time.monotonic()
        self._reader = Reader(journal.directory)
        self._oldest_segment = self._reader.segment
        self._open = OpenCalls()
        self._waiting: Tally | None = None
        self._caught_up_at = time.monotonic()
        self._pause_s = 0.0
        self._small_in_a_row = 0
        self._rest_s = compact_every_s if told else interval_s
        self._resting = False
        self._wake = threading.Event()
        self._grown = threading.Condition()  # `shipped` is
        self._ending = False
        self._ends_at = 0.0
        self._done = False
        self._files = threading.Lock()  # while segments are deleted, and while the session is left to others
        self._left = False
        self._thread = threading.Thread(target=self._run, name="penstock-shipping", daemon=True)
        self.shipped = 0

    @property
    def lag_records(self) -> int:
        return self._journal.appended - self.shipped

    @property
    def lag_s(self) -> float:
        """For how long there has been something that is not in the database."""
        return 0.0 if self.lag_records == 0 else time.monotonic() - self._caught_up_at

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Wakes a thread that rests, if there is something to ship. Takes no time."""
        if not self._resting:
            return
        if self._journal.appended == self.shipped:
            self._caught_up_at = time.monotonic()
        else:
            self._wake.set()

    def catch_up(self, limit_s: float) -> bool:
        """Ships at once what has been appended until now; whether it is in the database. Blocks for up to `limit_s`."""
        due = self._journal.appended
        if due != self.shipped:
            self._wake.set()
        with self._grown:
            return self._grown.wait_for(lambda: self.shipped >= due, limit_s)

    def close(self, at: float, timeout_s: float = 10.0, *, keep: bool = False) -> bool:
        """Ends the journal and ships the rest; True if all of it is in the database. Blocks for up to `timeout_s`.

        A session that was shipped and has no open calls leaves no directory, unless `keep`; any other is recovered by the next start.
        """
        self._journal.close(at)
        self._ends_at = time.monotonic() + timeout_s
        self._ending = True
        self._wake.set()
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join(timeout_s)
        with self._files:
            self._left = self._thread.is_alive()
        if self._left:  # a database that neither answers nor fails; whoever recovers finds what it committed
            self._journal.release(remove=False)
            return False
        self._reader.close()
        self._journal.release(remove=self._done and not keep and not len(self._open))
        return self._done

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._pause_s)
            self._resting = False
            self._wake.clear()
            if not self._ending:
                self._turn()
        while not (done := self._turn() and self._waiting is None and self.lag_records == 0):
            if time.monotonic() + self._pause_s > self._ends_at:
                break
            time.sleep(self._pause_s)
        self._done = done

    def _turn(self) -> bool:
        """Ships one group, or compacts; says whether that worked."""
        try:
            more = self._ship()
            if not more and time.monotonic() - self._compacted_at > self._compact_every_s:
                self._compact()
        except Exception as error:  # a thread's border: whatever it is, the journal keeps what waits
            if isinstance(error, SQLAlchemyError | OSError):
                log.warning("ledger.shipping_failed", waiting=self.lag_records, reason=str(error).splitlines()[0])
            else:
                log.exception("ledger.shipping_failed", waiting=self.lag_records)
            self._pause_s = min(MAX_PAUSE_S, max(self._interval_s, 2 * self._pause_s))
            return False
        self._pause_s = 0.0 if more else min(self._steady_s, self._interval_s * 2**self._small_in_a_row)
        if self._resting:
            self._pause_s = self._rest_s
        return True

    def _ship(self) -> bool:
        """Whether there may be more at once."""
        seen = time.monotonic()
        if self._waiting is None:
            if self._journal.appended == self.shipped:
                self._caught_up_at = seen
                self._small_in_a_row = 0
                self._resting = True
                return False
            run = self._reader.read(GROUP)
            if not run.payloads:
                self._caught_up_at = seen
                return False
            self._waiting = tally(run, self._open)
        run = self._waiting.run
        deliver(self._engine, self._journal.session, self._waiting)
        self._waiting = None
        self._small_in_a_row = min(self._small_in_a_row + 1, MOST_DOUBLINGS) if len(run.payloads) < SMALL else 0
        with self._grown:
            self.shipped = run.end
            self._grown.notify_all()
        if not run.full:
            self._caught_up_at = seen
        with self._files:
            if self._reader.segment > self._oldest_segment and not self._left:
                self._delete_shipped()
        return run.full

    def _delete_shipped(self) -> None:
        """The checkpoint first: from then on the old segments mean nothing."""
        directory = self._journal.directory
        write_checkpoint(directory, Checkpoint(self.shipped, self._open.intents()))
        for segment in range(self._oldest_segment, self._reader.segment):
            segment_path(directory, segment).unlink(missing_ok=True)
        self._oldest_segment = self._reader.segment
        self._journal.segment_released()

    def _compact(self) -> None:
        self._compacted_at = time.monotonic()
        compact_all(self._engine)


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    write_whole(_checkpoint(directory), msgspec.msgpack.encode(checkpoint))


def _checkpoint(directory: Path) -> Path:
    return directory / "open.msgpack"
