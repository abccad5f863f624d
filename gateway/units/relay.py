"""One attempt of such a call at one deployment: the request out, the answer back as it is, truthfully. It decides nothing.

What an upstream answers, not what was asked, says how it goes on: JSON and text are read whole, events go on one by one, and sound
goes on as it comes. `gateway.relay` is the pattern; text and embeddings go there.
"""

import asyncio
from collections.abc import Callable
from typing import Final, final

import msgspec

from gateway import allowance, errors
from gateway.answer_id import answer_id
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.in_process import InProcess
from gateway.metering import Meter
from gateway.record import Record
from gateway.refusal import refusal
from gateway.resilience.health import Health
from gateway.target import Target
from gateway.targets import Targets, where
from gateway.units.ask import Ask
from gateway.units.door import Door, Follower, NativeDoor, Sent
from gateway.units.events import Events
from gateway.units.settle import settled
from gateway.upstream import UpstreamConnection
from gateway.usage import usage
from gateway.used import Usage
from gateway.watching import OwnLines, own_lines

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024  # ten pictures in base64
MAX_FAULT_BYTES: Final = 1024 * 1024
EVENTS: Final = b"text/event-stream"
_VISIBLE: Final = frozenset(range(0x20, 0x7F))


@final
class UnitRelay:
    """`now` is a monotonic clock."""

    def __init__(
        self,
        *,
        targets: Targets,
        meter: Meter,
        health: Health,
        local: InProcess,
        now: Callable[[], float],
        own_lines: OwnLines = own_lines,
    ) -> None:
        self._own_lines = own_lines
        self._targets = targets
        self._meter = meter
        self._health = health
        self._local = local
        self._now = now

    async def run(self, call: Call, deployment: Deployment, name: str) -> None:
        """The call's hold is open; `name` is the model's at the deployment. Raises GatewayError for whatever is not a whole answer."""
        door, ask, record = call.endpoint.door, call.request, call.record
        assert door is not None
        assert isinstance(ask, Ask)
        sent = door.sent(ask, call.body, deployment, name)
        if deployment.provider in self._local.providers:
            await self._from_here(call, door, ask, deployment, sent)
            return
        if sent.address is not None:
            target = self._targets.at(deployment, sent.address)
            head = await _own_opening(target, sent)
        else:
            target = self._targets.of(deployment, sent.path, call.model.name, at_root=sent.at_root)
            head = _head(target, sent)
        connection = target.origin.idle() or await target.origin.acquire(self._connect_s(call))
        try:
            sent_at = self._now()
            record.sent = True
            connection.send_pieces(head + self._own_lines(call.exchange, record), sent.body)
            self._expect_start(call, connection, sent_at)
            status = await connection.head()
            record.upstream_s += self._now() - sent_at
            if not 200 <= status < 300:
                await self._whole(call, connection, MAX_FAULT_BYTES)
                record.refused = True
                raise refusal(connection, target, door.read_fault if isinstance(door, NativeDoor) else None)
            await self._pass_on(call, door, ask, target, connection, sent_at)
        finally:
            connection.release()

    async def _from_here(self, call: Call, door: Door, ask: Ask, deployment: Deployment, sent: Sent) -> None:
        """A model in this process: it has no head, and says what any upstream could."""
        answer = await self._local.answer(call, deployment, call.record.endpoint, b"".join(sent.body))
        told = door.told(ask, deployment, answer, json=True)
        record = call.record
        self._settle(call, told.ask or ask, told.usage)
        if call.race is not None:
            call.race.claim(call)
        record.status, record.finished_at = 200, self._now()
        head = _answer_head(record, b"application/json") + _cost_head(self._meter.cost(record), record)
        call.exchange.respond(200, head, told.body)

    async def _pass_on(
        self, call: Call, door: Door, ask: Ask, target: Target, connection: UpstreamConnection, sent_at: float
    ) -> None:
        kind = connection.header(b"content-type") or b""
        plain = kind.lower()
        follower: Follower | None = None
        if isinstance(door, NativeDoor):
            follower = door.follower(plain)
        elif plain.startswith(EVENTS) and ask.stream:
            follower = Events(door.event_usage)
        if follower is not None:
            await self._follow(call, follower, ask, target, connection, sent_at)
        elif door.plays and not plain.startswith((b"application/json", EVENTS)):
            await self._play(call, ask, target, connection, sent_at)
        else:
            await self._answer(call, door, ask, target, connection, sent_at)

    async def _answer(
        self, call: Call, door: Door, ask: Ask, target: Target, connection: UpstreamConnection, sent_at: float
    ) -> None:
        """A complete answer: what it says of its usage is read."""
        record = call.record
        kind = connection.header(b"content-type") or b"application/json"
        if record.stream:  # it was to be a stream, and takes as long as an answer does
            connection.expect(call.deadline, "total")
        body = await self._whole(call, connection, MAX_ANSWER_BYTES)
        try:
            told = door.told(ask, target.deployment, body, json=b"json" in kind.lower())
        except errors.UpstreamFailed:
            record.refused = True
            raise
        used = told.usage
        if used is None and isinstance(door, NativeDoor):
            used = door.told_by(connection.fields)
        self._settle(call, told.ask or ask, used)
        self._answered(call, target, sent_at)
        record.status = connection.status
        record.finished_at = self._now()
        record.answer_id = answer_id(told.body)
        head = _answer_head(record, kind) + _shown(door, connection)
        head += _cost_head(self._meter.cost(record), record)
        call.exchange.respond(connection.status, head, told.body)

    async def _play(self, call: Call, ask: Ask, target: Target, connection: UpstreamConnection, sent_at: float) -> None:
        """Sound, piece by piece. It has no place for an error: where it breaks, the client's connection does."""
        record, exchange = call.record, call.exchange
        asked = self._now()
        piece = await connection.piece()
        record.upstream_s += self._now() - asked
        if not piece:
            raise errors.UpstreamError("The upstream's answer is empty")
        self._settle(call, ask, None)
        self._answered(call, target, sent_at)
        record.status = connection.status
        record.first_token_at = record.finished_at = self._now()
        kind = connection.header(b"content-type") or b"application/octet-stream"
        head = _answer_head(record, kind) + _cost_head(self._meter.cost(record), record)
        exchange.begin(connection.status, head)
        exchange.send(piece)

        def passed_on(piece: bytes, _chunk: bytes) -> bool:
            exchange.send(piece)
            return not exchange.write_paused

        try:
            await self._pour(call, connection, passed_on, lambda: False)
        except errors.GatewayError:
            exchange.break_off()
            raise
        exchange.end()

    async def _follow(
        self, call: Call, events: Follower, ask: Ask, target: Target, connection: UpstreamConnection, sent_at: float
    ) -> None:
        """Events, held back until the first that is no error."""
        record, exchange = call.record, call.exchange
        held, ended = b"", False
        while not (events.content or ended):
            asked = self._now()
            piece = await connection.piece()
            record.upstream_s += self._now() - asked
            held += events.feed(piece) if piece else events.close()
            ended = not piece
            if events.error is not None and not events.content:
                record.refused = isinstance(events.error, errors.UpstreamFailed)
                raise events.error
        if not events.content:
            raise errors.UpstreamError("The upstream's stream has no event")
        self._settle(call, ask, None)  # what is billed if it breaks, or if the client leaves
        self._answered(call, target, sent_at)
        record.status = connection.status
        record.first_token_at = record.finished_at = self._now()
        record.answer_id = answer_id(held)
        head = _answer_head(record, events.content_type) + _shown(call.endpoint.door, connection)
        if events.content_type.startswith(EVENTS):
            exchange.begin_events(connection.status, head)
        else:
            exchange.begin(connection.status, head)
        exchange.send(held)

        def passed_on(piece: bytes, _chunk: bytes) -> bool:
            exchange.send(events.feed(piece))
            return events.error is None and not exchange.write_paused

        try:
            if not ended:
                await self._pour(call, connection, passed_on, lambda: events.error is not None)
                exchange.send(events.close())
        finally:
            if events.usage is not None:
                self._settle(call, ask, events.usage)
            elif events.received:
                self._settle(call, _as_far_as(ask, events.received), None)
        if events.error is not None:
            raise events.error
        if not events.whole:
            raise errors.UpstreamError("The upstream's stream ended before its answer was complete")
        exchange.end()

    async def _pour(
        self,
        call: Call,
        connection: UpstreamConnection,
        sink: Callable[[bytes, bytes], bool],
        over: Callable[[], bool],
    ) -> None:
        """The rest of the body, until it ends or `over` says so; no faster than the client reads."""
        exchange, record = call.exchange, call.record
        while not (connection.ended or over()):
            began = self._now()
            try:
                await connection.pour(sink, call.model.timeouts.stall_s, call.deadline)
            finally:
                record.upstream_s += self._now() - began
            if exchange.write_paused:
                connection.expect(call.deadline, "total")  # the client is slow, not the upstream
                await exchange.drained()

    async def _whole(self, call: Call, connection: UpstreamConnection, limit: int) -> bytes:
        began = self._now()
        try:
            return await connection.rest(limit)
        finally:
            call.record.upstream_s += self._now() - began

    def _settle(self, call: Call, ask: Ask, reported: Usage | None) -> None:
        record = call.record
        ticket = record.ticket
        record.usage, record.usage_source = settled(reported, ask, None if ticket is None else ticket.offer.price)

    def _answered(self, call: Call, target: Target, sent_at: float) -> None:
        if self._health.troubled:
            self._health.succeeded(target.deployment, sent_at)
        if call.race is not None:
            call.race.claim(call)

    def _expect_start(self, call: Call, connection: UpstreamConnection, sent_at: float) -> None:
        timeouts = call.model.timeouts
        limit_s = timeouts.first_token_s if call.record.stream else timeouts.attempt_s
        if limit_s is None or sent_at + limit_s >= call.deadline:
            connection.expect(call.deadline, "total")
        else:
            connection.expect(sent_at + limit_s, "first-token" if call.record.stream else "attempt")

    def _connect_s(self, call: Call) -> float:
        return max(0.001, min(call.model.timeouts.connect_s, call.deadline - self._now()))


def _shown(door: Door | None, connection: UpstreamConnection) -> bytes:
    """What of the upstream's head goes on to the client."""
    if not isinstance(door, NativeDoor):
        return b""
    fields = connection.fields
    return b"".join(
        b"%b: %b\r\n" % (name, bytes(byte for byte in fields[name] if byte in _VISIBLE))
        for name in door.shown
        if name in fields
    )


def _as_far_as(ask: Ask, received: int) -> Ask:
    """The call as one whose answer has so many tokens."""
    return msgspec.structs.replace(ask, likely=usage(ask.likely.input, received))


async def _own_opening(target: Target, sent: Sent) -> bytes:
    """The head of a request that says everything itself. Signing may read a machine's identity, so it happens in a thread."""
    headers = sent.headers
    if sent.signed is not None:
        headers += await asyncio.get_running_loop().run_in_executor(None, sent.signed)
    return target.opening(sent.path, headers, sent.method)


def _head(target: Target, sent: Sent) -> bytes:
    """The prepared head with this request's type; the last content-type counts nowhere, so there is one."""
    return target.head.replace(b"content-type: application/json", b"content-type: " + sent.content_type, 1)


def _cost_head(nanousd: int | None, record: Record) -> bytes:
    """Of all attempts together."""
    if nanousd is None:
        return b""
    return b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(nanousd + record.earlier_nanousd, 1_000_000_000)


def _answer_head(record: Record, content_type: bytes) -> bytes:
    ticket = record.ticket
    return b"content-type: %b\r\nx-request-id: %b\r\n%b%b%bx-penstock-overhead-ms: %d.%03d\r\n" % (
        bytes(byte for byte in content_type if byte in _VISIBLE),
        record.id.encode(),
        where(record.model or "", record.deployment or "", record.attempts),
        record.relief,
        allowance.headers(ticket.tab.notices) if ticket is not None else b"",
        *divmod(int(record.overhead_s * 1_000_000), 1000),
    )
