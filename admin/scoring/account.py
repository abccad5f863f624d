"""A scoring job on a key's account: every chunk is a call of its own, held before it is scored and settled after it is kept.

The process that scores may die at any point, and so may this one. What a chunk cost is decided by the worksheet, which either has it or
has not; where this process died, recovery settles the open hold at its worst, and the next process is told that it is paid for.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final, assert_never, final

import msgspec
import structlog
from sqlalchemy import Engine

from admin.predictions.desk import ONE_CALL, PROVIDER, Desk
from admin.scoring.till import Hold, Message, Paid, Reply, Settle
from gateway import errors, request_store
from gateway.authentication import Deputy
from gateway.database import reading
from gateway.need import Need, Offer
from gateway.record import Record
from inference.scoring.job import Job
from inference.scoring.worksheet import WORKSHEET, Position, position_of

ENDPOINT: Final = "scoring"
RECOVERED_S: Final = 15.0  # a server that starts recovers what another one left before it does anything else
LOOK_S: Final = 0.5
MOST_WAIT_S: Final = 5.0

log = structlog.stdlib.get_logger(__name__)
_decode: Final = msgspec.json.Decoder(Message).decode


@final
class Account:
    """Of one process that works on a job. `folder` is the job's."""

    def __init__(self, desk: Desk, engine: Engine, job: Job, folder: Path, released: set[str]) -> None:
        """`released`: ids of holds that came to nothing, remembered from one process to the next."""
        self._desk = desk
        self._engine = engine
        self._job = job
        self._folder = folder
        self._released = released
        self._deputy = Deputy(job.spec.key_id or "")
        self._open: tuple[Hold, Record] | None = None
        self.gone = False  # the process has ended

    async def serve(self, said: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Until the process says nothing any more."""
        while line := await said.readline():
            reply: Reply | None
            match _decode(line):
                case Hold() as asked:
                    reply = await self._hold(asked)
                case Paid(id_):
                    reply = Reply(await self._paid(id_))
                case Settle(_, rows):
                    self._settle(rows)
                    reply = None
                case never:
                    assert_never(never)
            if reply is not None and not self.gone:
                answers.write(msgspec.json.encode(reply) + b"\n")
        self._end()

    async def _hold(self, asked: Hold) -> Reply:
        while True:
            record = self._record(asked)
            try:
                await self._opened(record, asked)
            except (errors.RateLimited, errors.Overloaded) as busy:
                if self.gone:
                    return Reply(False, busy.code or busy.type, busy.message)
                after = next((float(value) for name, value in busy.headers if name == "retry-after"), LOOK_S)
                await asyncio.sleep(min(max(after, LOOK_S), MOST_WAIT_S))
            except errors.GatewayError as refused:
                record.status, record.error_code = refused.status, refused.code or refused.type
                self._close(record)
                return Reply(False, refused.code or refused.type, refused.message)
            else:
                self._open = asked, record
                return Reply(True)

    async def _opened(self, record: Record, asked: Hold) -> None:
        """Raises GatewayError."""
        snapshot, meter = self._desk.current.snapshot, self._desk.meter
        key = record.key = self._desk.authenticator.of(snapshot, self._deputy)
        if not key.may_use(self._job.model):
            raise errors.AccessDenied(f"This key may not use the model '{self._job.model}'", param="model")
        nanos = asked.cost(asked.rows)
        offer = Offer(None, Need(nanos, 0, 0), nanos, ONE_CALL)
        if not meter.open_at_once(snapshot.rules, record, offer):
            await meter.open_borrowing(snapshot.rules, record, offer)
        record.attempts = 1
        record.sent = True

    def _record(self, asked: Hold) -> Record:
        job = self._job
        record = Record(asked.id, ENDPOINT, time.time(), self._desk.now())
        record.model = record.metric_model = job.model
        record.provider, record.deployment = PROVIDER, f"{job.model}:{job.version}"
        record.tags = [job.id]
        return record

    async def _paid(self, id_: str) -> bool:
        deadline = time.monotonic() + RECOVERED_S
        while id_ not in self._released and not self.gone and time.monotonic() < deadline:
            found = await asyncio.to_thread(self._find, id_)
            if found is not None:
                return found.usage_source is not None
            await asyncio.sleep(LOOK_S)
        return False

    def _find(self, id_: str) -> request_store.RequestRecord | None:
        with reading(self._engine) as tx:
            return request_store.find(tx, [id_]).get(id_)

    def _settle(self, rows: int) -> None:
        if self._open is None:
            return
        (asked, record), self._open = self._open, None
        record.status = 200
        record.usage, record.usage_source = ONE_CALL, "counted"
        record.cost_nanousd = asked.cost(rows)
        self._close(record)

    def _end(self) -> None:
        """What was held when the process ended was either kept, or never done."""
        if self._open is None:
            return
        asked, record = self._open
        position = self._position()
        if position is None or position.chunks > asked.chunk:
            refused = 0 if position is None else position.refused - asked.refused
            self._settle(asked.rows - refused)
            return
        self._open = None
        self._released.add(asked.id)
        record.sent = False
        record.status, record.error_code = 503, "scoring_interrupted"
        self._close(record)

    def _position(self) -> Position | None:
        """None where the job is over, and its worksheet gone."""
        path = self._folder / WORKSHEET
        if not path.exists():
            return None
        with closing(sqlite3.connect(path, timeout=20)) as db:
            return position_of(db)

    def _close(self, record: Record) -> None:
        record.finished_at = self._desk.now()
        self._desk.meter.close(record, b"")
        self._desk.finished(record)
