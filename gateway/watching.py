"""What somebody who watches wants to know of a request beside its record: the trace it belongs to, and when its stages began and ended.

Without anybody who watches, a record has no `watched` and nothing here runs.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Protocol, final

from gateway import errors
from gateway.bodies import Request
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.exchange import Exchange
from gateway.glance import Glance
from gateway.keys import Key
from gateway.record import Record
from gateway.trace_context import Context, Sampler, context, new_span

if TYPE_CHECKING:  # of those whose words are recorded
    from gateway.contents.spoken import Spoken

Stage = Literal["queue", "hold", "guard", "cache", "attempt", "retrieval", "tool"]
MOST_MARKS: Final = 64  # of one request
SESSION: Final = b"x-penstock-session"

OwnLines = Callable[[Exchange, Record], bytes]


class Part(Protocol):
    """Work of several calls, which are below its span: `carried` are the headers that say so."""

    @property
    def carried(self) -> Mapping[bytes, bytes]: ...

    def end(self, status: int) -> None:
        """As a status of HTTP; 499 for what nobody waited for."""


Parts = Callable[[Mapping[bytes, bytes], Key, str], Part]
"""Begins one, of the headers that it came with, who asks, and the model's name."""


class Carries(Protocol):
    """`gateway.relay`: one attempt at one deployment."""

    async def run(self, call: Call, deployment: Deployment, name: str) -> None: ...


@final
class Mark:
    """A stage. Times are seconds on the event loop's clock; `ended` 0: it is not over. `outcome`: an error's code, or the stage's word."""

    __slots__ = (
        "began",
        "deployment",
        "ended",
        "name",
        "number",
        "outcome",
        "request",
        "seen",
        "span",
        "stage",
        "status",
        "target",
    )

    def __init__(self, stage: Stage, began: float, name: str = "") -> None:
        self.stage = stage
        self.began = began
        self.name = name
        self.span = new_span()
        self.ended = 0.0
        self.outcome: str | None = None
        self.status = 0  # of an upstream that refused
        self.number = 0
        self.deployment: Deployment | None = None
        self.target = ""  # the model's name there
        self.request: Request | None = None
        self.seen = b""  # the beginning of the answer


@final
class Watched:
    """Shared by the copies of a record. `sampler` decides about traces that begin here."""

    __slots__ = ("__weakref__", "content", "context", "marks", "sampler", "session", "span")

    def __init__(self, sampler: Sampler = Sampler()) -> None:  # noqa: B008 — frozen
        self.context: Context | None = None
        self.sampler = sampler
        self.span = new_span()
        self.marks: list[Mark] = []
        self.session: bytes | None = None  # as the client names it
        self.content: Spoken | None = None  # where it is recorded for this key

    def joined(self, headers: Mapping[bytes, bytes]) -> Context:
        """The trace of a request that came with these headers, which is found once."""
        if self.context is None:
            self.context = context(headers, self.sampler)
        return self.context

    @property
    def told(self) -> Mapping[str, str]:
        """For a log: which trace it is about."""
        if self.context is None:
            return {}
        return {"trace_id": f"{self.context.trace:032x}", "span_id": f"{self.span:016x}"}

    def begin(self, stage: Stage, at: float, name: str = "") -> Mark:
        mark = Mark(stage, at, name)
        if len(self.marks) < MOST_MARKS:
            self.marks.append(mark)
        return mark

    def end(self, stage: Stage, at: float, outcome: str | None) -> None:
        """Of the last one that began and is not over."""
        for mark in reversed(self.marks):
            if mark.stage == stage and not mark.ended:
                mark.ended, mark.outcome = at, outcome
                return

    def note(self, stage: Stage, began: float, ended: float, outcome: str | None = None, name: str = "") -> None:
        """A stage that is over."""
        mark = self.begin(stage, began, name)
        mark.ended, mark.outcome = ended, outcome


def watched_records(sampler: Sampler) -> Callable[[str, str, float, float], Record]:
    """In place of `Record`."""

    def begin(id_: str, endpoint: str, at: float, started_at: float) -> Record:
        record = Record(id_, endpoint, at, started_at)
        record.watched = Watched(sampler)
        return record

    return begin


def begun(call: Call, stage: Stage, at: float, name: str = "") -> tuple[Mark | None, Mapping[bytes, bytes]]:
    """A stage that makes calls of its own, and the headers that put those below it. None and nothing where nobody watches."""
    watched = call.record.watched
    if watched is None:
        return None, {}
    mark = watched.begin(stage, at, name)
    return mark, watched.joined(call.exchange.headers).carried(mark.span)


@final
class WatchedRelay:
    """Around the relay: when each attempt began and ended, and at what. `now` is a monotonic clock."""

    def __init__(self, relay: Carries, now: Callable[[], float]) -> None:
        self._relay = relay
        self._now = now

    async def run(self, call: Call, deployment: Deployment, name: str) -> None:
        watched = call.record.watched
        if watched is None:
            watched = call.record.watched = Watched()
        watched.joined(call.exchange.headers)
        mark = watched.begin("attempt", self._now(), call.record.id)
        mark.deployment, mark.number, mark.target = deployment, call.record.attempts, name
        mark.request, exchange = call.request, call.exchange
        if watched.session is None:
            watched.session = exchange.headers.get(SESSION)
        call.exchange = glance = Glance(exchange)
        try:
            await self._relay.run(call, deployment, name)
        except errors.GatewayError as error:
            mark.outcome, mark.status = error.code or error.type, error.status
            raise
        except BaseException:
            mark.outcome = "cancelled"
            raise
        finally:
            call.exchange = exchange
            mark.ended, mark.seen = self._now(), glance.seen


def own_lines(exchange: Exchange, record: Record) -> bytes:
    """The header lines of this request alone, for an upstream: its id, and the trace that it belongs to (W3C Trace Context)."""
    headers = exchange.headers
    trace = headers.get(b"traceparent")
    if trace is None:
        return b"x-request-id: %b\r\n" % record.id.encode()
    state = headers.get(b"tracestate")
    more = b"" if state is None else b"tracestate: %b\r\n" % state
    return b"x-request-id: %b\r\ntraceparent: %b\r\n%b" % (record.id.encode(), trace, more)


def traced_lines(exchange: Exchange, record: Record) -> bytes:
    """As `own_lines`, where the attempt has a span of its own, which what the upstream does is a part of."""
    watched = record.watched
    if watched is None or watched.context is None:
        return own_lines(exchange, record)
    span = next((mark.span for mark in reversed(watched.marks) if mark.name == record.id), watched.span)
    return b"x-request-id: %b\r\n%b" % (record.id.encode(), watched.context.lines(span))
