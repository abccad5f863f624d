"""The life of a model call, top to bottom: authenticate, resolve, dispatch, record.

Every endpoint takes this one path, streaming or not. Everything before the upstream call is plain functions on memory;
the coroutine is driven straight from the protocol's callbacks (`gateway.drive`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, final

from msgspec.structs import replace

from gateway import bodies, errors, wire
from gateway.authentication import ADMIN, Authenticator
from gateway.bills import Bills
from gateway.call import Call
from gateway.catalog import Model, Shadow
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange
from gateway.http_exchange import error_head
from gateway.ids import RequestIds
from gateway.journal_records import Routed
from gateway.keys import Key
from gateway.metering import Meter
from gateway.mirroring import Heard, agreement, mirror_of
from gateway.planner import regions_of
from gateway.record import LEFT, Record
from gateway.relief import fallback_model
from gateway.resilience.overrides import overrides
from gateway.resilience.wishes import Overrides
from gateway.routing.versions import Versions
from gateway.shadow import Original, Shadows
from gateway.snapshot import Current, Snapshot
from gateway.targets import where
from gateway.till import BudgetShort
from gateway.versioning import Caller, applied


class Answers(Protocol):
    """The stage that has a call answered. `gateway.dispatch` asks deployments; what can be told without them, others tell."""

    def answer(self, call: Call) -> Coroutine[Any, Any, None]: ...


@final
class Completions:
    """Everything that a call needs, by name. `unix` and `now` are clocks: Unix seconds, and monotonic ones.

    `finished` is given each record once, at the end.
    """

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        dispatch: Answers,
        meter: Meter,
        unix: Callable[[], float],
        now: Callable[[], float],
        shadows: Shadows,
        finished: Callable[[Record, Exchange], None],
        bills: Bills,
        begin: Callable[[str, str, float, float], Record] = Record,
    ) -> None:
        self._current = current
        self._authenticator = authenticator
        self.dispatch = dispatch  # the plane puts a cache before it where a model has one
        self._meter = meter
        self._unix = unix
        self._now = now
        self._shadows = shadows
        self._finished = finished
        self._begin = begin  # the record of a request
        self._bills = bills
        self._ids = RequestIds()

    def handler(self, endpoint: Endpoint) -> Callable[[Exchange], Coroutine[None, None, None]]:
        """The hot route's handler for one endpoint."""
        front = endpoint.front
        if front is not None:
            return lambda exchange: self.serve(endpoint, front.exchange(exchange))
        return lambda exchange: self.serve(endpoint, exchange)

    async def serve(  # noqa: C901, PLR0912, PLR0915 — every request's one path, which is to be read from top to bottom
        self, endpoint: Endpoint, exchange: Exchange, original: Original | None = None, answer_id: str | None = None
    ) -> None:
        """Answers one request, whatever happens, and records it. `original`: what this one is a shadow of. `answer_id`: the client's
        answer has an id of its own."""
        at = self._unix()
        record = self._begin(self._ids.at(at), endpoint.name, at, exchange.started_at)
        record.answer_id = answer_id
        body = exchange.body
        call: Call | None = None
        heard: Heard | None = None
        try:
            snapshot = self._current.snapshot
            if original is None:
                record.key = key = self._authenticator.caller(snapshot, exchange.headers)
            else:
                record.key = key = original.key
                record.routed = replace(original.routed, shadow_of=original.id)
            if key.routes is not None and not key.may_call(endpoint.place):
                raise errors.AccessDenied(f"This key may not call {endpoint.place}", code="route_access_denied")
            if snapshot.versions is not None and original is None and endpoint.providers is None:
                body = _versioned(snapshot.versions, endpoint, exchange, key, record)
                if (
                    snapshot.versions.mirrors
                    and (heard := self._heard(snapshot.versions, exchange, record)) is not None
                ):
                    exchange = heard
            door = endpoint.door
            request = endpoint.parse(body) if door is None else door.read(body, exchange.headers)
            model, match = self._resolve(snapshot, request, exchange, record)
            call = Call(endpoint, exchange, body, request, model, match, snapshot, record)
            if original is not None:
                call.behalf = original.behalf
            asked = overrides(exchange.headers)
            if asked is not None:
                _override(call, asked)
            try:
                await self.dispatch.answer(call)
            except BudgetShort as short:
                await self._fall_back(call, short)
            if model.shadow is not None and original is None:
                self.shadow(model.shadow, call, body)
            if heard is not None:
                self._mirror(snapshot.versions, call, heard)
        except errors.GatewayError as error:
            record.error_code = error.code or error.type
            self._fail(endpoint, exchange, error, record)
        except asyncio.CancelledError:  # the client has left, perhaps in the middle of a stream that began with a 200
            record.error_code = LEFT
            raise
        finally:
            record.finished_at = self._now()
            if not record.status:
                record.status, record.error_code = 499, LEFT
            if original is not None and original.heard is not None and isinstance(exchange, Heard):
                record.routed = replace(record.routed or Routed(), agreement=agreement(original.heard, exchange))
            self._bills.settle(self._meter, record, exchange.headers, body if call is None else call.body)
            self._finished(record, exchange)

    def _heard(self, versions: Versions, exchange: Exchange, record: Record) -> Heard | None:
        """The same exchange, if this is a request that is to be copied."""
        mirror = mirror_of(versions, record.routed)
        return Heard(exchange) if mirror is not None and self._shadows.wants(mirror.share) else None

    def _mirror(self, versions: Versions | None, call: Call, heard: Heard) -> None:
        """Asks once more, as if everybody had the version that is tried."""
        record = call.record
        mirror = None if versions is None else mirror_of(versions, record.routed)
        if mirror is None or record.key is None:
            return
        caller = Caller(record.key, heard.headers, record.id)
        made = applied(mirror.versions, call.endpoint, heard.body, record.key, caller)
        if made is not None:
            body, routed = made
            original = Original(record.id, regions_of(call), routed, heard, record.key)
            self._shadows.mirror(call, body, original, self.serve)

    def shadow(self, shadow: Shadow, call: Call, body: bytes) -> None:
        """Offers an answered call to be copied; `body` is what was asked, before guards and fallbacks."""
        self._shadows.offer(shadow, call, _asked_of_shadow(call, body, shadow.model), self.serve)

    def _resolve(
        self, snapshot: Snapshot, request: bodies.Request, exchange: Exchange, record: Record
    ) -> tuple[Model, str]:
        """The model behind a name, if this caller may use it, and what its wildcard stands for."""
        name = request.model
        routed = record.routed is not None and record.routed.route_version is not None
        found = snapshot.catalog.find(name) if routed else permitted(snapshot, record, name)
        if found is None:
            raise _unknown(name)
        record.model = name
        record.metric_model = found[0].name
        record.stream = request.stream is True
        record.user = request.user
        tags = exchange.headers.get(b"x-penstock-tags")
        if tags is not None:
            record.tags = tags_of(tags)
        return found

    async def _fall_back(self, call: Call, short: BudgetShort) -> None:
        """Answers with the model that a budget names for this case: one step. Raises `short` if that is not permitted or does not fit."""
        record = call.record
        name = None if record.relief or record.attempts else fallback_model(short.short)
        if name is None:
            raise short
        before = record.model, record.metric_model, record.deployment, record.provider
        try:
            call.becomes(name, *permitted(call.snapshot, record, name))
            record.relief = b"x-penstock-fallback: budget\r\n"
            await self.dispatch.answer(call)
        except (errors.NotFound, errors.AccessDenied, errors.BudgetExceeded, errors.RateLimited):
            if record.attempts:  # it is the upstream that says so
                raise
            record.model, record.metric_model, record.deployment, record.provider = before
            record.relief = b""
            raise short from None

    def _fail(self, endpoint: Endpoint, exchange: Exchange, error: errors.GatewayError, record: Record) -> None:
        """Before the first byte a status, after it an error inside the stream, which then ends without `[DONE]`."""
        face = endpoint.face or endpoint.front
        record.finished_at = self._now()
        if exchange.begun:
            exchange.send(wire.encode_error_event(error) if face is None else face.error_event(error, record.id))
            exchange.end()
            return
        native = error.native if endpoint.providers is not None else None
        record.status = error.status if native is None else native[0]
        head = error_head(error) + b"x-request-id: %b\r\n" % record.id.encode()
        if record.deployment is not None:
            head += where(record.model or "", record.deployment, record.attempts) + record.relief
        if native is not None:
            exchange.respond(record.status, head, native[1])
            return
        exchange.respond(error.status, head, error.body() if face is None else face.error(error, record.id))


def _asked_of_shadow(call: Call, body: bytes, name: str) -> bytes:
    """The client's body as guards let it through; with the passages that were found for it, where the shadow looks up none itself.

    Guards have read those, too.
    """
    if call.grounds is not None and call.grounds.body is not None:
        found = call.snapshot.catalog.find(name)
        if found is None or found[0].retrieval is None:
            return call.grounds.body
    return body if call.guarded is None else call.guarded.body


def _versioned(versions: Versions, endpoint: Endpoint, exchange: Exchange, key: Key, record: Record) -> bytes:
    """The body that routes and prompts make of the client's."""
    caller = Caller(key, exchange.headers, record.id)
    made = applied(versions, endpoint, exchange.body, key, caller)
    if made is None:
        return exchange.body
    body, record.routed = made
    return body


def permitted(snapshot: Snapshot, record: Record, name: str) -> tuple[Model, str]:
    """The model behind a name and what its wildcard stands for, if the caller may use it. Raises NotFound, AccessDenied."""
    found = snapshot.catalog.find(name)
    if found is None:
        raise _unknown(name)
    key = record.key
    if key is not None and (key.models is not None or key.models_above) and not key.may_use(name, found[0].admitted_by):
        raise errors.AccessDenied(f"This key may not use the model '{name}'", param="model")
    return found


def _unknown(name: str) -> errors.NotFound:
    return errors.NotFound(f"The model '{name}' does not exist; GET /v1/models lists what does", param="model")


def _override(call: Call, asked: Overrides) -> None:
    """What the client wants differently for this request. Raises AccessDenied, NotFound."""
    call.overrides = asked
    if asked.timeout_s is not None:
        call.deadline = min(call.deadline, call.record.started_at + asked.timeout_s)
    for name in asked.fallbacks or ():
        permitted(call.snapshot, call.record, name)
    if asked.deployment is not None:
        if call.record.key is not ADMIN:  # it goes around weights, limits and health
            raise errors.AccessDenied(
                "x-penstock-deployment is for the admin key", param="x-penstock-deployment", code="pin_denied"
            )
        if all(deployment.id != asked.deployment for deployment in call.model.deployments):
            raise errors.NotFound(
                f"The model '{call.model.name}' has no deployment '{asked.deployment}'",
                param="x-penstock-deployment",
                code="deployment_not_found",
            )


def tags_of(raw: bytes) -> list[str]:
    """`x-penstock-tags: a,b`."""
    return [tag.strip()[:64] for tag in raw.decode("latin-1").split(",")[:16] if tag.strip()]
