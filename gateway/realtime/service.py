"""`/v1/realtime`: who may talk, to which deployment, and the secrets that browsers talk with. `conversation` is what follows."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, final

import msgspec
import structlog
from msgspec import Raw

from gateway import bodies, errors, wire
from gateway.authentication import Authenticator, Deputy
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.completion import permitted, tags_of
from gateway.endpoint import Endpoint
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.ids import RequestIds, new_id
from gateway.keys import Key
from gateway.metering import Meter
from gateway.native.families import OPENAI
from gateway.native.names import Names
from gateway.planner import Planner
from gateway.pool import OriginKey
from gateway.realtime import handshake, upstream
from gateway.realtime.bill import Bill, Party
from gateway.realtime.conversation import Conversation
from gateway.realtime.events import event, no_servers
from gateway.realtime.handshake import Asked
from gateway.realtime.limits import Limits
from gateway.realtime.secrets import LONGEST_S, PREFIX, SHORTEST_S, USUAL_S, Secret, Secrets
from gateway.realtime.websocket import WebSocket, opened
from gateway.record import LEFT, Record
from gateway.resilience.failures import failure_of, wait_asked_s
from gateway.resilience.health import Health
from gateway.routing.loads import Ticket
from gateway.secret_box import SecretBox
from gateway.snapshot import Current
from gateway.targets import where
from gateway.units.ask import Ask
from gateway.used import NOTHING

log = structlog.stdlib.get_logger(__name__)

REALTIME: Final = Endpoint("realtime", "/realtime", kind="realtime", providers=OPENAI.providers)
BELOW_OPENAI: Final = msgspec.structs.replace(REALTIME, mount="/openai/v1")
SECRETS: Final = "client_secrets"
SESSIONS: Final = ("sessions", "transcription_sessions")  # of the beta: the session itself, with a secret in it


class _After(msgspec.Struct):
    anchor: str | None = None
    seconds: int | None = None


class _Mint(msgspec.Struct):
    expires_after: _After | None = None
    session: Raw = bodies.NULL


class _Named(msgspec.Struct):
    type: str | None = None
    model: str | None = None


_mint: Final = msgspec.json.Decoder(_Mint)
_named: Final = msgspec.json.Decoder(_Named)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class _Caller(msgspec.Struct, frozen=True):
    """`now` tells whose conversation it is at any later moment, or raises."""

    key: Key
    now: Callable[[], Key]
    secret: Secret | None = None


@final
class Realtime:
    """One per process. `unix` and `now` are clocks, `finished` is given the record of each response, and of who was turned away."""

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        planner: Planner,
        health: Health,
        meter: Meter,
        finished: Callable[[Record], None],
        context: Callable[[OriginKey], ssl.SSLContext],
        box: SecretBox,
        limits: Limits,
        user_agent: str,
        unix: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._current = current
        self._authenticator = authenticator
        self._planner = planner
        self._health = health
        self._meter = meter
        self._finished = finished
        self._context = context
        self._secrets = Secrets(box, unix)
        self._limits = limits
        self._user_agent = user_agent
        self._unix = unix
        self._now = now
        self._names = Names()
        self._ids = RequestIds()
        self._conversations: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Whoever is still talking is told."""
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    # Conversations

    async def open(self, exchange: HttpExchange) -> None:
        """A WebSocket request: answered by a conversation, or by an error as on any other path."""
        at = self._unix()
        endpoint = BELOW_OPENAI if exchange.url.startswith(b"/openai/") else REALTIME
        record = Record(self._ids.at(at), endpoint.name, at, exchange.started_at)
        record.stream = True
        try:
            asked = handshake.asked(exchange.url, exchange.headers)
            caller = self._caller(asked, record)
            if not caller.key.may_call(endpoint.place):
                raise errors.AccessDenied(f"This key may not call {endpoint.place}", code="route_access_denied")
            if exchange.behind is None or not handshake.is_upgrade(exchange.headers):
                raise errors.BadRequest(
                    "This is a conversation over a WebSocket: ask to upgrade", code="upgrade_required"
                )
            lines = handshake.accepted(exchange.url, exchange.headers, asked.offered)
            call = self._call(endpoint, exchange, asked, caller, record)
            socket, deployment, ticket = await self._reach(call, asked)
        except errors.GatewayError as error:
            self._turn_away(exchange, record, error)
            return
        except asyncio.CancelledError:
            record.status, record.error_code = 499, LEFT
            self._note(record)
            raise
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.raw_items()).encode("latin-1")
        head += b"x-request-id: %b\r\n" % record.id.encode()
        client = WebSocket(opened(self._limits.message_bytes), self._now())
        exchange.switch(client, head + where(record.model or "", deployment.id, 1))
        self._begin(call, caller, client, socket, deployment, ticket)

    def _begin(
        self,
        call: Call,
        caller: _Caller,
        client: WebSocket,
        socket: WebSocket,
        deployment: Deployment,
        ticket: Ticket | None,
    ) -> None:
        wild = call.match or call.request.model
        bill = Bill(
            Party(call.request.model, call.model, deployment, wild, call.record.tags),
            owner=caller.key,
            key=caller.now,
            current=self._current,
            meter=self._meter,
            finished=self._finished,
            unix=self._unix,
            now=self._now,
        )
        theirs = deployment.target.replace("*", wild)
        talk = Conversation(
            client,
            socket,
            bill,
            key=caller.now,
            names=(call.request.model, theirs),
            limits=self._limits,
            now=self._now,
            opening=_opening(caller.secret, theirs),
        )
        task = asyncio.get_running_loop().create_task(talk.run())
        self._conversations.add(task)

        def over(done: "asyncio.Task[None]") -> None:
            self._conversations.discard(done)
            if ticket is not None:
                self._planner.let_go(call, ticket)
            if not done.cancelled() and done.exception() is not None:
                log.error("realtime.failed", exc_info=done.exception())

        task.add_done_callback(over)

    def _caller(self, asked: Asked, record: Record) -> _Caller:
        """Whoever shows a key, or a secret that stands for one. Raises Unauthenticated, AccessDenied."""
        shown = asked.headers.get(b"authorization", b"")[7:].strip().decode("latin-1")
        if shown.startswith(PREFIX):
            secret = self._secrets.read(shown)
            deputy = Deputy(secret.key_id)
            now: Callable[[], Key] = lambda: self._authenticator.of(self._current.snapshot, deputy)  # noqa: E731 — one line of two
        else:
            secret = None
            headers = asked.headers
            now = lambda: self._authenticator.caller(self._current.snapshot, headers)  # noqa: E731 — the other
        record.key = now()
        return _Caller(record.key, now, secret)

    def _call(self, endpoint: Endpoint, exchange: HttpExchange, asked: Asked, caller: _Caller, record: Record) -> Call:
        """What is planned: a call without a body. Raises BadRequest, NotFound, AccessDenied."""
        bound = None if caller.secret is None else caller.secret.model
        name = asked.model or bound
        if name is None:
            raise errors.BadRequest(
                "Missing required parameter: 'model'", param="model", code="missing_required_parameter"
            )
        if bound is not None and name != bound:
            raise errors.AccessDenied(f"This client secret is for the model '{bound}'", param="model")
        snapshot = self._current.snapshot
        name = self._names.find(snapshot.catalog, OPENAI, name, caller.key)
        model, match = permitted(snapshot, record, name)
        if model.router is not None:
            raise errors.BadRequest(
                f"'{name}' is a router, which cannot read a conversation: name one of its models",
                param="model",
                code="unsupported_endpoint",
            )
        if snapshot.guards is not None and snapshot.guards.of(caller.key, model) is not None:
            raise errors.BadRequest(
                f"'{name}' has guards, which cannot read a conversation", param="model", code="unsupported_by_guards"
            )
        record.model, record.metric_model = name, model.name
        tags = exchange.headers.get(b"x-penstock-tags")
        record.tags = None if tags is None else tags_of(tags)
        return Call(endpoint, exchange, b"", Ask(model=name, most=NOTHING, stream=True), model, match, snapshot, record)

    async def _reach(self, call: Call, asked: Asked) -> tuple[WebSocket, Deployment, Ticket | None]:
        """The first deployment that takes the conversation. Raises the first error if none does."""
        first: errors.GatewayError | None = None
        order = self._planner.order(call) or (self._health.least_bad(self._planner.eligible(call)),)
        for deployment in order[: call.model.retries.attempts + 1]:
            call.record.deployment, call.record.provider = deployment.id, deployment.provider
            began = self._now()
            ticket = None
            try:
                if call.model.steered:
                    await self._planner.borrow(deployment, self._planner.tokens(call))
                    ticket = self._planner.enter(call, deployment)
                socket = await upstream.connect(
                    deployment,
                    deployment.target.replace("*", call.match or call.request.model),
                    intent=asked.intent,
                    beta=asked.beta,
                    user_agent=self._user_agent,
                    context=self._context,
                    most_bytes=self._limits.message_bytes,
                    timeout_s=max(call.model.timeouts.connect_s, min(10.0, call.model.timeouts.first_token_s)),
                )
            except errors.GatewayError as error:
                first = first or error
                ours = call.model.steered and ticket is None  # a limit of ours, which says nothing of the deployment
                if not ours:
                    failure = failure_of(error, sent=True)
                    self._health.failed(call.model, deployment, failure, error.message, wait_asked_s(error), began)
                if ticket is not None:
                    self._planner.let_go(call, ticket)
                continue
            except BaseException:
                if ticket is not None:
                    self._planner.let_go(call, ticket)
                raise
            if self._health.troubled:
                self._health.succeeded(deployment, began)
            call.record.sent = True  # it counts for the deployment's minute, however long it lasts
            return socket, deployment, ticket
        raise first or errors.Overloaded(f"The model '{call.request.model}' has no deployment that could answer")

    def _turn_away(self, exchange: HttpExchange, record: Record, error: errors.GatewayError) -> None:
        record.status, record.error_code = error.status, error.code or error.type
        self._note(record)
        exchange.fail(error)

    def _note(self, record: Record) -> None:
        record.finished_at = self._now()
        self._meter.close(record, b"")
        self._finished(record)

    # Secrets

    async def below(self, exchange: HttpExchange) -> None:
        """What stands below `/v1/realtime/`."""
        try:
            path = exchange.url.partition(b"?")[0].decode("latin-1")
            what = path.removeprefix("/openai").removeprefix("/v1/realtime/")
            key = self._authenticator.caller(self._current.snapshot, exchange.headers)
            if not key.may_call(path):
                raise errors.AccessDenied(f"This key may not call {path}", code="route_access_denied")
            if what != SECRETS and what not in SESSIONS:
                raise _unknown(path, what)
            if exchange.method != b"POST":
                raise errors.MethodNotAllowed("Use POST here", headers=(("allow", "POST"),))
            exchange.respond(200, JSON_HEAD, self._minted(exchange.body, key, what))
        except errors.GatewayError as error:
            exchange.fail(error)

    def _minted(self, body: bytes, key: Key, what: str) -> bytes:
        whole = body.strip() or b"{}"
        asked = wire.parse(_mint, whole)
        session = asked.session if what == SECRETS else Raw(whole)
        if not wire.present(session):
            session = Raw(b'{"type":"realtime"}')
        named = wire.parse(_named, bytes(session))
        no_servers(session, "session" if what == SECRETS else "")
        if named.model is not None:
            permitted(
                self._current.snapshot,
                _nobody(key),
                self._names.find(self._current.snapshot.catalog, OPENAI, named.model, key),
            )
        lasts = USUAL_S if asked.expires_after is None else asked.expires_after.seconds or USUAL_S
        if not SHORTEST_S <= lasts <= LONGEST_S:
            raise errors.BadRequest(
                f"A client secret lasts {SHORTEST_S} to {LONGEST_S} s",
                param="expires_after.seconds",
                code="invalid_value",
            )
        until = int(self._unix()) + lasts
        value = self._secrets.mint(Secret(key.id, until, named.model, session))
        made: dict[str, Any] = {
            "id": new_id("sess"),
            "object": "realtime.transcription_session" if what == SESSIONS[1] else "realtime.session",
            **_fields.decode(session),
            "expires_at": until,
        }
        made.setdefault("type", "realtime")
        if what == SECRETS:
            return msgspec.json.encode({"value": value, "expires_at": until, "session": made})
        return msgspec.json.encode({**made, "client_secret": {"value": value, "expires_at": until}})


def _opening(secret: Secret | None, theirs: str) -> bytes | None:
    """The session that a secret was made for, as the first thing that the upstream hears."""
    if secret is None or not wire.present(secret.session):
        return None
    session = _fields.decode(secret.session)
    session.pop("expires_after", None)
    if "model" in session:
        session["model"] = Raw(msgspec.json.encode(theirs))
    return event("session.update", session=session)


def _nobody(key: Key) -> Record:
    record = Record("", "realtime", 0.0, 0.0)
    record.key = key
    return record


def _unknown(path: str, what: str) -> errors.GatewayError:
    if what == "calls" or what.startswith("calls/"):
        return errors.AccessDenied(
            f"{path} is not served: sound over WebRTC and SIP goes around the gateway, where nobody could bill or stop it. "
            "Use a WebSocket at /v1/realtime",
            code="unmetered_path",
        )
    return errors.NotFound(f"There is nothing at {path}", code="unknown_url")
