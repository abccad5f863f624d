"""Between the event loop and the sinks: the loop leaves each finished record in a queue, a thread makes an account of it for every sink."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

import structlog

from admin import logs
from admin.telemetry.account import ROUNDS, Account, account
from admin.telemetry.feed import Feed
from gateway.ids import new_id
from gateway.keys import Key
from gateway.ledger_entries import label
from gateway.record import Record
from gateway.recorder import Asked, Records
from gateway.trace_context import Context, Sampler, context, new_span
from gateway.watching import Watched

if TYPE_CHECKING:  # for those who send logs
    from admin.telemetry.process_logs import ProcessLogs

INTERVAL_S: Final = 0.25
RETRIEVAL: Final = "retrieval"
Inside = ContextVar[tuple[Context, int] | None]

log = structlog.stdlib.get_logger(__name__)


@final
class Watch:
    """`gateway.recorder.Records` around another one. `finished` and `attempted` cost an append each; the rest is the thread's.

    `room`: of records that no account was made of yet; more are dropped and counted. `redact`: some receiver is to have content.
    `inside`: the trace and span that a task is in; `own`: what is to see the events that this process logs.
    """

    def __init__(
        self,
        inner: Records,
        feeds: Sequence[Feed],
        sampler: Sampler,
        *,
        room: int,
        redact: Callable[[str], str] | None = None,
        inside: "Inside | None" = None,
        own: "ProcessLogs | None" = None,
        unix: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self.feeds = tuple(feeds)
        self._sampler = sampler
        self._room = room
        self._redact = redact
        self._unix = unix
        self._now = now
        self._waiting: deque[Account | tuple[Record, bool]] = deque()
        self._inside = inside or ContextVar("inside", default=None)
        self._own = own
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-telemetry", daemon=True)
        self.failed = inner.failed
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        if self._own is not None:
            logs.add(self._own)
        for feed in self.feeds:
            feed.start()
        self._thread.start()

    def finished(self, record: Record, asked: Asked | None = None) -> None:
        self._inner.finished(record, asked)
        watched = record.watched
        if watched is None:
            watched = record.watched = Watched(self._sampler)
        watched.joined({} if asked is None else asked.headers)
        self._take(record, attempt=False)

    def attempted(self, record: Record) -> None:
        self._inner.attempted(record)
        self._take(record, attempt=True)

    def entered(self, headers: Mapping[bytes, bytes]) -> None:
        """A request begins that is no call to a model, and may make some: in this context, they are a part of its trace."""
        self._inside.set((context(headers, self._sampler), new_span()))

    def carried(self) -> Mapping[bytes, bytes]:
        """Headers for a call that is made inside of it."""
        inside = self._inside.get()
        if inside is None:
            return {}
        found, span = inside
        return found.carried(span)

    def searched(self, collection: str, seconds: float, outcome: str) -> None:
        """A search is over."""
        found, span = self._inside.get() or (context({}, self._sampler), new_span())
        ended = self._unix()
        told = Account(
            id=new_id("search"),
            at=ended - seconds,
            ended=ended,
            endpoint=RETRIEVAL,
            status=500 if outcome == "failed" else 200,
            trace=found.trace,
            span=span,
            parent=found.parent,
            sampled=found.sampled,
            provider="penstock",
            collection=collection,
            latency_ms=seconds * 1000,
            error_code="search_failed" if outcome == "failed" else None,
        )
        self._put(told)

    def part(self, headers: Mapping[bytes, bytes], key: Key, model: str) -> "_Part":
        """A response of several turns begins, which is told as a span above them: each turn is a request of its own."""
        return _Part(context(headers, self._sampler), key, model, self._unix, self._put)

    def close(self, within_s: float) -> None:
        """Blocks, for so long at most."""
        if self._own is not None:
            logs.remove(self._own)
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(within_s / 2)
        ends_at = self._now() + within_s / 2
        for feed in self.feeds:
            feed.close(max(0.1, ends_at - self._now()))

    def _take(self, record: Record, *, attempt: bool) -> None:
        self._put((record, attempt))

    def _put(self, one: Account | tuple[Record, bool]) -> None:
        if len(self._waiting) >= self._room:
            self.dropped += 1
        else:
            self._waiting.append(one)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        made: list[Account] = []
        unix_minus_loop = self._unix() - self._now()
        while self._waiting:
            one = self._waiting.popleft()
            if isinstance(one, Account):
                made.append(one)
                continue
            record, attempt = one
            try:
                made.append(account(record, unix_minus_loop, attempt=attempt, redact=self._redact))
            except Exception:  # a thread's border: one record must not cost the others
                self.dropped += 1
                log.exception("telemetry.failed", request=record.id)
        if made:
            for feed in self.feeds:
                feed.offer(made)


@final
class _Part:
    """`gateway.watching.Part`."""

    def __init__(
        self, found: Context, key: Key, model: str, unix: Callable[[], float], put: Callable[[Account], None]
    ) -> None:
        self._context = found
        self._key = key
        self._model = model
        self._unix = unix
        self._put = put
        self._span = new_span()
        self._began = unix()
        self.carried = found.carried(self._span)

    def end(self, status: int) -> None:
        found, ended = self._context, self._unix()
        told = Account(
            id=new_id("part"),
            at=self._began,
            ended=ended,
            endpoint=ROUNDS,
            status=status,
            trace=found.trace,
            span=self._span,
            parent=found.parent,
            sampled=found.sampled,
            key_id=self._key.id,
            team_id=self._key.team_id,
            org_id=self._key.org_id,
            model=label(self._model),
            provider="penstock",
            latency_ms=(ended - self._began) * 1000,
            error_code=str(status) if status >= 400 else None,
        )
        self._put(told)
