"""The life of a model call, top to bottom: authenticate, resolve, plan, dispatch, relay, record.

Chat, completions and embeddings take this one path, streaming or not. Everything before the upstream call is plain functions on memory;
the coroutine is driven straight from the protocol's callbacks (`gateway.drive`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, final

import msgspec
import structlog

from gateway import allowance, errors, usage, wire
from gateway.authentication import Authenticator
from gateway.catalog import Deployment, Model
from gateway.exchange import Exchange
from gateway.http_exchange import error_head
from gateway.ids import RequestIds
from gateway.metering import Meter
from gateway.record import LEFT, Record
from gateway.refusal import refusal
from gateway.relief import fallback_model, relief
from gateway.routing import plan
from gateway.snapshot import Current, Snapshot
from gateway.sse import ChatStream
from gateway.targets import Target, Targets, where
from gateway.till import BudgetShort
from gateway.upstream import UpstreamConnection

log = structlog.stdlib.get_logger(__name__)

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_FAULT_BYTES = 1024 * 1024
MAX_HELD_BYTES = 256 * 1024  # of a stream's opening that has no content yet
AFTER_DONE_S = 1.0  # how long an upstream may take to end its body after [DONE] before its connection is given up
BYTES_PER_TOKEN = 4  # of an answer whose upstream says nothing about its usage
CUTS = 2  # tries to fit an answer into what is left, while others spend it too
DONE = b"data: [DONE]\n\n"


class Local(Protocol):
    """A model that runs in this process: an OpenAI request body in, an OpenAI answer out. Raises GatewayError."""

    async def answer(self, endpoint: str, body: bytes, model: str) -> bytes: ...


class Endpoint(msgspec.Struct, frozen=True):
    """One of the OpenAI API's paths. `path` is its part behind a base URL."""

    name: str
    path: str
    parse: Callable[[bytes], wire.Request]


CHAT = Endpoint("chat", "/chat/completions", lambda body: wire.parse(wire.chat_decoder, body))
COMPLETIONS = Endpoint("completions", "/completions", lambda body: wire.parse(wire.completion_decoder, body))
EMBEDDINGS = Endpoint("embeddings", "/embeddings", lambda body: wire.parse(wire.embedding_decoder, body))


@final
class Call:
    """One request that was understood, on its way to an answer. `match` is what the model's wildcard stood for.

    `body` is the client's, or what a budget made of it.
    """

    __slots__ = ("body", "endpoint", "exchange", "match", "model", "record", "request", "snapshot")

    def __init__(
        self,
        endpoint: Endpoint,
        exchange: Exchange,
        request: wire.Request,
        model: Model,
        match: str,
        snapshot: Snapshot,
        record: Record,
    ) -> None:
        self.body = exchange.body
        self.endpoint = endpoint
        self.exchange = exchange
        self.request = request
        self.model = model
        self.match = match
        self.snapshot = snapshot
        self.record = record


@final
class Completions:
    """Everything that a call needs, by name. `unix` and `now` are clocks: Unix seconds, and monotonic ones.

    `spawn` runs code in a task that was not written for a driven coroutine. `finished` is given each record once, at the end.
    """

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        targets: Targets,
        meter: Meter,
        local: Mapping[str, Local],
        random: Callable[[], float],
        unix: Callable[[], float],
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, bytes]], Awaitable[bytes]],
        finished: Callable[[Record], None],
    ) -> None:
        self._current = current
        self._authenticator = authenticator
        self._targets = targets
        self._meter = meter
        self._local = local
        self._random = random
        self._unix = unix
        self._now = now
        self._spawn = spawn
        self._finished = finished
        self._ids = RequestIds()

    def handler(self, endpoint: Endpoint) -> Callable[[Exchange], Coroutine[Any, None, None]]:
        """The hot route's handler for one endpoint."""
        return lambda exchange: self.serve(endpoint, exchange)

    async def serve(self, endpoint: Endpoint, exchange: Exchange) -> None:
        """Answers one request, whatever happens, and records it."""
        at = self._unix()
        record = Record(self._ids.at(at), endpoint.name, at, exchange.started_at)
        try:
            snapshot = self._current.snapshot
            record.key = key = self._authenticator.caller(snapshot, exchange.headers)
            if key.routes is not None and not key.may_call(f"/v1{endpoint.path}"):
                raise errors.AccessDenied(f"This key may not call /v1{endpoint.path}", code="route_access_denied")
            request = endpoint.parse(exchange.body)
            model, match = self._resolve(snapshot, request, exchange, record)
            await self._answer(Call(endpoint, exchange, request, model, match, snapshot, record))
        except errors.GatewayError as error:
            record.error_code = error.code or error.type
            self._fail(exchange, error, record)
        except asyncio.CancelledError:  # the client has left, perhaps in the middle of a stream that began with a 200
            record.error_code = LEFT
            raise
        finally:
            record.finished_at = self._now()
            if not record.status:
                record.status, record.error_code = 499, LEFT
            self._meter.close(record, exchange.body)
            self._finished(record)

    def _resolve(
        self, snapshot: Snapshot, request: wire.Request, exchange: Exchange, record: Record
    ) -> tuple[Model, str]:
        """The model behind a name, if this caller may use it, and what its wildcard stands for."""
        name = request.model
        found = _permitted(snapshot, record, name)
        record.model = name
        record.metric_model = found[0].name
        record.stream = request.stream is True
        record.user = request.user
        tags = exchange.headers.get(b"x-penstock-tags")
        if tags is not None:
            record.tags = _tags(tags)
        return found

    async def _answer(self, call: Call) -> None:
        """Tries the plan's deployments in order; the first error is the one to report.

        Goes on only where the request cannot have been worked on: no connection, or no capacity.
        """
        record = call.record
        first: errors.GatewayError | None = None
        for deployment in plan(call.model, self._random):
            record.deployment, record.provider = deployment.id, deployment.provider
            record.attempts += 1
            wild = call.match or call.request.model
            offer = self._meter.offer(deployment, wild, call.request, call.body)
            try:
                await self._meter.open(call.snapshot.rules, record, offer)
            except BudgetShort as short:
                if not await self._cut(call, deployment, wild, short):
                    await self._fall_back(call, short)
                    return
            try:
                if deployment.provider in self._local:
                    await self._run_local(call, deployment)
                else:
                    await self._run(call, deployment, deployment.target.replace("*", wild))
            except (errors.UpstreamUnreachable, errors.Overloaded) as error:
                if call.exchange.begun:
                    raise
                first = first or error
                self._meter.release(record)  # no connection, or a refusal: nothing was done, nothing is owed
                record.sent = record.refused = False
            else:
                return
        raise first or errors.Overloaded(f"The model '{call.request.model}' has no deployment that could answer")

    async def _cut(self, call: Call, deployment: Deployment, wild: str, short: BudgetShort) -> bool:
        """Opens the call with fewer tokens for its answer, where its budgets want that; says whether that helped."""
        for _ in range(CUTS):
            if call.record.relief or relief(short.short) != "cut":
                return False
            smaller = self._meter.affordable(deployment, wild, call.request, call.body, short.short)
            if smaller is None:
                return False
            tokens, request, body = smaller
            offer = self._meter.offer(deployment, wild, request, body)
            try:
                await self._meter.open(call.snapshot.rules, call.record, offer)
            except BudgetShort as taken:  # by somebody else in the meantime
                short = taken
            else:
                call.request, call.body = request, body
                call.record.relief = b"x-penstock-max-tokens: %d\r\n" % tokens
                return True
        return False

    async def _fall_back(self, call: Call, short: BudgetShort) -> None:
        """Answers with the model that a budget names for this case: one step. Raises `short` if that is not permitted or does not fit."""
        record = call.record
        name = None if record.relief else fallback_model(short.short)
        if name is None:
            raise short
        before = record.model, record.metric_model, record.deployment, record.provider, record.attempts
        try:
            call.model, call.match = _permitted(call.snapshot, record, name)
            call.request.model = name
            call.body = wire.rewrite(call.body, name, ask_usage=False)
            record.model, record.metric_model, record.attempts = name, call.model.name, 0
            record.relief = b"x-penstock-fallback: budget\r\n"
            await self._answer(call)
        except (errors.NotFound, errors.AccessDenied, errors.BudgetExceeded, errors.RateLimited):
            if record.sent:  # it is the upstream that says so
                raise
            record.model, record.metric_model, record.deployment, record.provider, record.attempts = before
            record.relief = b""
            raise short from None

    async def _run(self, call: Call, deployment: Deployment, name: str) -> None:
        """One attempt on one deployment over HTTP.

        What was sent is not sent again, not even on a kept connection that breaks before the first byte: whether the upstream had begun,
        and bills it, nobody can know here. Connections are given up before servers do (`PoolLimits.idle_s`), so that this is rare.
        """
        target = self._targets.of(deployment, call.endpoint.path, call.model.name)
        connection = target.origin.idle() or await target.origin.acquire(call.model.timeouts.connect_s)
        await self._exchange(call, target, connection, name)

    async def _exchange(self, call: Call, target: Target, connection: UpstreamConnection, name: str) -> None:
        """Sends the request on a connection and relays what comes. The connection is given back whatever happens."""
        record = call.record
        timeouts = call.model.timeouts
        try:
            sent_at = self._now()
            record.sent = True
            connection.send(target.head + _own_head(call.exchange, record), _body(call, name))
            if record.stream:
                total = record.started_at + timeouts.total_s
                connection.expect(*_sooner(sent_at + timeouts.first_token_s, "first-token", total))
                await connection.head()
                if not 200 <= connection.status < 300:
                    await connection.whole(MAX_FAULT_BYTES)
            else:
                connection.expect(record.started_at + timeouts.total_s, "total")
                await connection.whole(MAX_ANSWER_BYTES)
            record.upstream_s += self._now() - sent_at
            if not 200 <= connection.status < 300:
                record.refused = True
                raise refusal(connection, target)
            if record.stream:
                await self._relay(call, target, connection)
            else:
                self._pass_on(call, target, connection)
        finally:
            connection.release()

    def _pass_on(self, call: Call, target: Target, connection: UpstreamConnection) -> None:
        """A complete answer: its usage is read, its bytes go on unchanged."""
        record = call.record
        body = connection.collected()
        reported = wire.read_answer(body).usage
        if reported is not None:
            record.usage, record.usage_source = usage.from_openai(reported), "provider"
        else:
            record.received = max(1, len(body) // BYTES_PER_TOKEN)
        record.status = connection.status
        record.finished_at = self._now()
        head = _answer_head(record, target, b"application/json") + _cost_head(self._meter.cost(record))
        call.exchange.respond(connection.status, head, body)

    async def _relay(self, call: Call, target: Target, connection: UpstreamConnection) -> None:
        """A stream: held back until its first content, then passed on event by event, ended truthfully."""
        record = call.record
        content_type = connection.header(b"content-type") or b""
        if not content_type.startswith(b"text/event-stream"):
            kind = content_type.decode("latin-1") or "no content type"
            raise errors.UpstreamError(f"The upstream answered a stream with {kind}")
        stream = ChatStream(keep_usage=wire.wants_usage(call.request))
        try:
            await self._follow(call, stream, target, connection)
        finally:
            record.received = stream.events
            if stream.usage is not None:
                record.usage, record.usage_source = usage.from_openai(stream.usage), "provider"
        if stream.done and not connection.complete:  # the upstream only has to end its body, and nobody waits for that
            connection.expect(self._now() + AFTER_DONE_S, "end")
            try:
                await connection.piece()
            except errors.GatewayError:
                log.debug("upstream.unended", upstream=connection.origin.key.host)

    async def _follow(self, call: Call, stream: ChatStream, target: Target, connection: UpstreamConnection) -> None:
        exchange, record = call.exchange, call.record
        held = b""
        stall_s, total = call.model.timeouts.stall_s, record.started_at + call.model.timeouts.total_s
        while not stream.done:
            asked = self._now()
            piece = await connection.piece()
            now = self._now()
            record.upstream_s += now - asked
            out = stream.feed(piece) if piece else stream.close()
            if exchange.begun:
                if out:
                    exchange.send(out)
                    if exchange.write_paused:
                        connection.expect(total, "total")  # the client is slow, not the upstream
                        await exchange.drained()
                        now = self._now()
            elif stream.content:
                self._begin(call, target, connection, held + out)
            else:
                held += out
                if len(held) > MAX_HELD_BYTES:
                    raise errors.UpstreamError("The upstream sent a lot of stream without any content")
            if stream.error is not None:
                raise stream.error
            if not piece:
                break
            if exchange.begun:
                connection.expect(*_sooner(now + stall_s, "stall", total))
        if not stream.whole:
            raise errors.UpstreamError("The upstream's stream ended before its answer was complete")
        exchange.send(DONE)
        exchange.end()

    def _begin(self, call: Call, target: Target, connection: UpstreamConnection, opening: bytes) -> None:
        """The first content has come: from here on no fallback is possible, so only here the client sees a 200."""
        record = call.record
        record.status = connection.status
        record.first_token_at = record.finished_at = self._now()
        head = _answer_head(record, target, b"text/event-stream; charset=utf-8")
        call.exchange.begin_events(connection.status, head)
        call.exchange.send(opening)

    async def _run_local(self, call: Call, deployment: Deployment) -> None:
        """One attempt on a model in this process."""
        record = call.record
        record.sent = True
        began = self._now()
        local = self._local[deployment.provider]
        body = await self._spawn(local.answer(record.endpoint, call.body, call.request.model))
        record.upstream_s += self._now() - began
        reported = wire.read_answer(body).usage
        if reported is not None:
            record.usage, record.usage_source = usage.from_openai(reported), "provider"
        record.status = 200
        record.finished_at = self._now()
        call.exchange.respond(200, _answer_head(record, None, b"application/json"), body)

    def _fail(self, exchange: Exchange, error: errors.GatewayError, record: Record) -> None:
        """Before the first byte a status, after it an error inside the stream, which then ends without `[DONE]`."""
        record.finished_at = self._now()
        if exchange.begun:
            exchange.send(wire.encode_error_event(error))
            exchange.end()
            return
        record.status = error.status
        head = error_head(error) + b"x-request-id: %b\r\n" % record.id.encode()
        if record.deployment is not None:
            head += where(record.model or "", record.deployment, record.attempts) + record.relief
        exchange.respond(error.status, head, error.body())


def _permitted(snapshot: Snapshot, record: Record, name: str) -> tuple[Model, str]:
    """The model behind a name and what its wildcard stands for. Raises NotFound, AccessDenied."""
    found = snapshot.catalog.find(name)
    if found is None:
        raise errors.NotFound(f"The model '{name}' does not exist; GET /v1/models lists what does", param="model")
    key = record.key
    if key is not None and (key.models is not None or key.models_above) and not key.may_use(name):
        raise errors.AccessDenied(f"This key may not use the model '{name}'", param="model")
    return found


def _body(call: Call, name: str) -> bytes:
    """The body for an upstream; the client's own bytes if nothing has to change."""
    body = call.body
    if not call.record.stream and name == call.request.model and wire.is_plain(body):
        return body
    return wire.rewrite(body, name, ask_usage=call.record.stream)


def _cost_head(nanousd: int | None) -> bytes:
    return b"" if nanousd is None else b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(nanousd, 1_000_000_000)


def _sooner(deadline: float, name: str, total: float) -> tuple[float, str]:
    """The deadline that comes first, and which limit that is."""
    return (deadline, name) if deadline < total else (total, "total")


def _own_head(exchange: Exchange, record: Record) -> bytes:
    """The header lines of this request alone: its id, and the trace that it belongs to (W3C Trace Context)."""
    headers = exchange.headers
    trace = headers.get(b"traceparent")
    if trace is None:
        return b"x-request-id: %b\r\n" % record.id.encode()
    state = headers.get(b"tracestate")
    more = b"" if state is None else b"tracestate: %b\r\n" % state
    return b"x-request-id: %b\r\ntraceparent: %b\r\n%b" % (record.id.encode(), trace, more)


def _answer_head(record: Record, target: Target | None, content_type: bytes) -> bytes:
    if target is not None and record.attempts == 1 and record.model == record.metric_model:
        place = target.where
    else:
        place = where(record.model or "", record.deployment or "", record.attempts)
    ticket = record.ticket
    return b"content-type: %b\r\nx-request-id: %b\r\n%b%b%bx-penstock-overhead-ms: %.3f\r\n" % (
        content_type,
        record.id.encode(),
        place,
        record.relief,
        allowance.headers(ticket.hold) if ticket is not None and ticket.hold else b"",
        record.overhead_s * 1000,
    )


def _tags(raw: bytes) -> list[str]:
    """`x-penstock-tags: a,b`."""
    return [tag.strip()[:64] for tag in raw.decode("latin-1").split(",")[:16] if tag.strip()]
