"""One attempt of a call at one deployment: the request out, the answer back to the client, truthfully. It decides nothing.

A stream is held back until its first content, then passed on event by event; what fails before it can be tried elsewhere.
"""

from collections.abc import Callable
from typing import final

import structlog

from gateway import errors, prompt_bound, usage, wire
from gateway.answer_head import answer_head
from gateway.answer_id import MOST, answer_id
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.continuation import MARK, Continuation, continuable
from gateway.dialect import Dialect, Stream
from gateway.endpoint import CHAT
from gateway.exchange import Exchange
from gateway.in_process import InProcess
from gateway.metering import BYTES_PER_TOKEN, Meter
from gateway.outlet import Outlet
from gateway.record import Record
from gateway.refusal import refusal
from gateway.resilience.health import Health
from gateway.sse import ChatStream
from gateway.target import Target
from gateway.targets import Targets
from gateway.units.relay import UnitRelay
from gateway.unreported import Unreported
from gateway.upstream import Passage, UpstreamConnection
from gateway.watching import OwnLines, own_lines

log = structlog.stdlib.get_logger(__name__)

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_FAULT_BYTES = 1024 * 1024
MAX_HELD_BYTES = 256 * 1024  # of a stream's opening that has no content yet
AFTER_DONE_S = 1.0  # how long an upstream may take to end its body after [DONE] before its connection is given up


@final
class Relay:
    """`now` is a monotonic clock. `units` carries what has a door of its own, `local` what runs in this process."""

    def __init__(
        self,
        *,
        targets: Targets,
        meter: Meter,
        health: Health,
        local: InProcess,
        now: Callable[[], float],
        units: UnitRelay,
        unreported: Unreported,
        own_lines: OwnLines = own_lines,
    ) -> None:
        self._targets = targets
        self._meter = meter
        self._health = health
        self._local = local
        self._now = now
        self._units = units
        self._unreported = unreported
        self._own_lines = own_lines

    async def run(self, call: Call, deployment: Deployment, name: str) -> None:
        """The call's hold is open; `name` is the model's at the deployment. Raises GatewayError for whatever is not a whole answer."""
        if call.endpoint.door is not None:
            await self._units.run(call, deployment, name)
            return
        if deployment.provider in self._local.providers:
            await self._local.run(call, deployment)
            return
        target = self._targets.of(deployment, call.endpoint.path, call.model.name)
        head, body = _outgoing(call, target, name)
        connection = target.origin.idle() or await target.origin.acquire(self._connect_s(call))
        record = call.record
        try:
            sent_at = self._now()
            record.sent = True
            connection.send(head + self._own_lines(call.exchange, record), body)
            timeouts = call.model.timeouts
            limit_s = timeouts.first_token_s if record.stream else timeouts.attempt_s
            if limit_s is None:
                connection.expect(call.deadline, "total")
            else:
                connection.expect(
                    *_sooner(sent_at + limit_s, "first-token" if record.stream else "attempt", call.deadline)
                )
            whole = b""
            if not record.stream:
                whole = await connection.whole(MAX_ANSWER_BYTES)
            elif not 200 <= await connection.head() < 300:
                await connection.rest(MAX_FAULT_BYTES)
            record.upstream_s += self._now() - sent_at
            if not 200 <= connection.status < 300:
                record.refused = True
                raise refusal(connection, target)
            if record.stream:
                await self._relay(call, target, connection, sent_at, name, body)
            else:
                answer = self._taken(call, target, whole)
                if record.usage is None:
                    await self._unreported.whole(call.record, name, body, whole)
                self._pass_on(call, target, connection.status, answer, sent_at)
        finally:
            connection.release()

    def _connect_s(self, call: Call) -> float:
        return max(0.001, min(call.model.timeouts.connect_s, call.deadline - self._now()))

    def _taken(self, call: Call, target: Target, answer: bytes) -> bytes:
        """The body for the client of a complete answer, whose usage is noted if it tells any."""
        record, body, dialect = call.record, answer, target.dialect
        try:
            if dialect is None:
                read = wire.read_answer(body)
                used = None if read.usage is None else usage.from_openai(read.usage)
                said = read.id
                if type(said) is str and len(said) <= MOST:
                    record.answer_id = said
            else:
                body, used = dialect.answer(call.endpoint.name, body, call.request.model, call.body)
                record.answer_id = record.answer_id or answer_id(body)
        except errors.GatewayError as error:
            record.refused = _reported(error)
            record.received = max(1, len(answer) // BYTES_PER_TOKEN)  # whatever it is
            raise
        if used is not None:
            record.usage, record.usage_source = used, "provider"
        return body

    def _pass_on(self, call: Call, target: Target, status: int, body: bytes, sent_at: float) -> None:
        record = call.record
        if self._health.troubled:
            self._health.succeeded(target.deployment, sent_at)
        if call.race is not None:
            call.race.claim(call)
        record.status = status
        record.finished_at = self._now()
        head = answer_head(record, target, b"application/json") + _cost_head(self._meter.cost(record), record)
        call.exchange.respond(status, head, body)

    async def _relay(
        self, call: Call, target: Target, connection: UpstreamConnection, sent_at: float, name: str, body: bytes
    ) -> None:
        """A stream: held back until its first content, then passed on event by event, ended truthfully. `body` is what was sent for it."""
        record = call.record
        content_type = connection.header(b"content-type") or b""
        if not content_type.startswith(b"text/event-stream"):
            await self._refuse(record, connection, content_type)
        stream: Stream
        keep_usage = wire.wants_usage(call.request)
        if target.dialect is None:
            stream = ChatStream(keep_usage=keep_usage)
        else:
            stream = target.dialect.stream(
                call.endpoint.name, call.request.model, keep_usage=keep_usage, asked=call.body
            )
        chat = self._unreported.began(target.deployment.id, stream)
        if call.model.continue_streams and call.endpoint is CHAT:
            stream = _remembered(call, stream)
        try:
            await self._follow(call, stream, target, connection, sent_at)
            if chat is not None and not self._unreported.ended(target.deployment.id, chat):
                await self._unreported.stream(record, name, body, chat.kept)
            call.exchange.send(call.endpoint.done)
            call.exchange.end()
        except errors.GatewayError as error:
            if not stream.content:
                record.refused = error is stream.error and _reported(error)
                record.received = 1 if connection.complete else 0
            raise
        finally:
            record.received = stream.events or record.received
            used = (
                None if record.refused else stream.reported
            )  # an opening counts the prompt that an error then takes back
            if used is not None:
                record.usage, record.usage_source = used, "provider"
        if stream.done and not connection.complete:  # the upstream only has to end its body, and nobody waits for that
            connection.expect(self._now() + AFTER_DONE_S, "end")
            try:
                await connection.piece()
            except errors.GatewayError:
                log.debug("upstream.unended", upstream=connection.origin.key.host)

    async def _refuse(self, record: Record, connection: UpstreamConnection, content_type: bytes) -> None:
        """A 200 that is no stream: an error object, or something else altogether."""
        body = await connection.rest(MAX_FAULT_BYTES)
        record.received = max(1, len(body) // BYTES_PER_TOKEN)
        try:
            wire.read_answer(body)
        except errors.UpstreamFailed:
            record.refused = True
            raise
        except errors.UpstreamError:
            pass  # what it is not, is said below
        kind = content_type.decode("latin-1") or "no content type"
        raise errors.UpstreamError(f"The upstream answered a stream with {kind}")

    async def _follow(
        self, call: Call, stream: Stream, target: Target, connection: UpstreamConnection, sent_at: float
    ) -> None:
        """Up to its end, which is not told yet."""
        record = call.record
        held = b""
        ended = False
        while not (stream.content or ended):
            asked = self._now()
            piece = await connection.piece()
            record.upstream_s += self._now() - asked
            held += stream.feed(piece) if piece else stream.close()
            ended = not piece
            if not stream.content:
                if stream.error is not None:
                    raise stream.error
                if len(held) > MAX_HELD_BYTES:
                    raise errors.UpstreamError("The upstream sent a lot of stream without any content")
        if stream.content:
            if self._health.troubled:
                self._health.succeeded(target.deployment, sent_at)
            self._begin(call, target, connection, held)
            if not ended:
                await self._pass_events_on(call, stream, connection)
        if stream.error is not None:
            raise stream.error
        if not (stream.content and stream.whole):  # one that ends before it begins has no head, either
            raise errors.UpstreamError("The upstream's stream ended before its answer was complete")

    async def _pass_events_on(self, call: Call, stream: Stream, connection: UpstreamConnection) -> None:
        """What follows the first content, as it comes, until the stream is through."""
        exchange, record = call.exchange, call.record

        def passed_on(piece: bytes, chunk: bytes) -> bool:
            out = stream.feed(piece)
            if chunk and out is piece:
                exchange.send_chunk(out, chunk)
            elif out:
                exchange.send(out)
            return not (stream.done or stream.error is not None or exchange.write_paused)

        straight_on = _passage(stream, exchange)
        if call.guarded is not None and exchange.write_paused:  # what was held back may have been enough
            connection.expect(call.deadline, "total")
            await exchange.drained()
        while not (stream.done or stream.error is not None):
            began = self._now()
            try:
                await connection.pour(passed_on, call.model.timeouts.stall_s, call.deadline, straight_on)
            finally:
                record.upstream_s += self._now() - began
            if exchange.write_paused:
                connection.expect(call.deadline, "total")  # the client is slow, not the upstream
                await exchange.drained()
            elif connection.ended:
                exchange.send(stream.close())
                return

    def _begin(self, call: Call, target: Target, connection: UpstreamConnection, opening: bytes) -> None:
        """The first content has come: from here on no fallback is possible, so only here the client sees a 200."""
        record = call.record
        if call.race is not None:
            call.race.claim(call)
        record.status = connection.status
        if record.first_token_at is None:
            record.first_token_at = record.finished_at = self._now()
            record.answer_id = record.answer_id or answer_id(opening)
            head = answer_head(record, target, b"text/event-stream; charset=utf-8")
            call.exchange.begin_events(connection.status, head)
        else:
            call.exchange.send(MARK)
        call.exchange.send(opening)


def _passage(stream: Stream, exchange: Exchange) -> Passage | None:
    """The short way of most chunks: from socket to socket, as nobody has to look into them or change them."""
    way = exchange.way()
    return (stream, way) if isinstance(way, Outlet) and isinstance(stream, ChatStream) and not stream.keeping else None


def _remembered(call: Call, stream: Stream) -> Stream:
    """The same stream, whose events are kept for the case that it breaks."""
    if call.continuation is None:
        if not continuable(call.body):
            return stream
        call.continuation = Continuation(call.body)
    return call.continuation.following(stream)


def _reported(error: errors.GatewayError) -> bool:
    """Whether the upstream says itself, instead of an answer, that it did no work."""
    return (
        isinstance(error, errors.UpstreamFailed | errors.UpstreamRefused | errors.Overloaded | errors.UpstreamTimeout)
        or error.code == "upstream_credentials"
    )


def _outgoing(call: Call, target: Target, name: str) -> tuple[bytes, bytes]:
    """Head, up to the lines of this call, and body. Raises BadRequest."""
    if target.dialect is None:
        head, body = target.head, _body(call, name)
    else:
        head, body = _translated(call, target, target.dialect, name)
    return head, body if target.spelling is None else target.spelling.body(body)


def _translated(call: Call, target: Target, dialect: Dialect, name: str) -> tuple[bytes, bytes]:
    """Head and body for a provider with an API of its own. Raises BadRequest for what it cannot do."""
    ticket = call.record.ticket
    body = call.body
    if ticket is not None and target.limited:
        body = prompt_bound.limited(body, call.request, ticket.offer.need.output_tokens)
    outgoing = dialect.request(call.endpoint.name, body, name, call.exchange.headers)
    return target.opening(outgoing.path, outgoing.headers), outgoing.body


def _body(call: Call, name: str) -> bytes:
    """The body for an upstream; the client's own bytes if nothing has to change."""
    body = call.body
    if not call.record.stream and name == call.request.model and wire.is_plain(body):
        return body
    return wire.rewrite(body, name, ask_usage=call.record.stream)


def _cost_head(nanousd: int | None, record: Record) -> bytes:
    """Of all attempts together."""
    if nanousd is None:
        return b""
    return b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(nanousd + record.earlier_nanousd, 1_000_000_000)


def _sooner(deadline: float, name: str, total: float) -> tuple[float, str]:
    """The deadline that comes first, and which limit that is."""
    return (deadline, name) if deadline < total else (total, "total")
