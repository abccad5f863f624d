"""`/mcp` and `/mcp/{server}`: MCP over streamable HTTP for clients, with virtual keys.

A POST carries one message (or several, as the revision of March 2025 has it); a call's answer is one JSON object, or a stream of events
once there is progress to tell or it takes long. A GET hears what changes. A client that leaves ends its call.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, final
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.authentication import Authenticator
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.keys import Key
from gateway.mcp import documents, replies, rpc
from gateway.mcp.calls import Asked, Calls, Done, parted
from gateway.mcp.documents import Documents
from gateway.mcp.inflight import Inflight
from gateway.mcp.replies import Refusal
from gateway.mcp.sessions import Sessions
from gateway.mcp.streams import Reply, Streams
from gateway.mcp.upstreams import Spawn
from gateway.snapshot import Current

PREFIX: Final = b"/mcp/"
MAX_BATCH: Final = 20
INSTRUCTIONS: Final = "Tools of several servers; a tool's name begins with its server's and two underscores."
HERE: Final = frozenset(("localhost", "127.0.0.1", "::1"))

_batch: Final = msgspec.json.Decoder(list[Raw])


class Caller(msgspec.Struct, frozen=True):
    """Who asks, for which server (None: all), in which session and revision. `modern`: each request stands for itself.

    `own`: it is for the key's documents, of one store (`scope`) or of all of them.
    """

    key: Key
    server: str | None
    own: bool
    scope: str | None
    session: str | None
    modern: bool


@final
class Endpoint:
    """One per process. `spawn` makes tasks that end with the process; `origins` are web pages that may speak to it."""

    def __init__(
        self,
        *,
        current: Current,
        authenticator: Authenticator,
        calls: Calls,
        sessions: Sessions,
        streams: Streams,
        spawn: Spawn,
        origins: Collection[str],
        documents_: Documents | None = None,
    ) -> None:
        self._current = current
        self._documents = documents_
        self._authenticator = authenticator
        self._calls = calls
        self._sessions = sessions
        self._streams = streams
        self._spawn = spawn
        self._origins = frozenset(origins)
        self._inflight = Inflight()

    async def serve(self, exchange: HttpExchange) -> None:
        """Answers one HTTP request, whatever it is."""
        try:
            caller = self._caller(exchange)
            match exchange.method:
                case b"POST":
                    await self._post(exchange, caller)
                case b"GET" if not caller.modern:
                    await self._streams.listen(
                        exchange,
                        caller.key,
                        lambda: self._authenticator.caller(self._current.snapshot, exchange.headers),
                    )
                case b"DELETE" if caller.session is not None:
                    self._sessions.end(caller.session)
                    exchange.respond(204, b"", b"")
                case _:
                    raise errors.MethodNotAllowed(
                        "Use POST for messages, GET to listen, DELETE to end a session",
                        headers=(("allow", "POST, GET, DELETE"),),
                    )
        except errors.GatewayError as error:
            if isinstance(error, errors.Unauthenticated):
                error.headers = (*error.headers, ("www-authenticate", "Bearer"))  # RFC 9110 11.6.1
            exchange.fail(error)

    def _caller(self, exchange: HttpExchange) -> Caller:
        """Raises GatewayError for who may not come in at all."""
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is not None and not self._known(origin.decode("latin-1")):
            raise errors.AccessDenied("This page's origin is not among mcp.origins", code="origin_denied")
        key = self._authenticator.caller(self._current.snapshot, headers)
        path = exchange.url.partition(b"?")[0]
        if not (key.may_call("/mcp") or key.may_call(path.decode("latin-1"))):
            raise errors.AccessDenied("This key may not call /mcp", code="route_access_denied")
        server = unquote_to_bytes(path[len(PREFIX) :]).decode("utf-8", "replace") if path.startswith(PREFIX) else None
        own, scope = self._own(key, server)
        if server is not None and not own and not self._calls.may_see(key, server):
            raise errors.NotFound(f"There is no MCP server '{server}'", code="mcp_server_not_found")
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        if version and version not in rpc.HANDSHAKE_VERSIONS and version not in rpc.STATELESS_VERSIONS:
            raise errors.BadRequest(
                f"Unknown protocol version '{version[:40]}'", param="mcp-protocol-version", code="unsupported_value"
            )
        session = headers.get(b"mcp-session-id", b"").decode("latin-1") or None
        if session is not None and not self._sessions.valid(session, key.id):
            raise errors.NotFound(
                "There is no such session: begin a new one", param="mcp-session-id", code="session_not_found"
            )
        return Caller(key, server, own, scope, session, version in rpc.STATELESS_VERSIONS)

    def _own(self, key: Key, server: str | None) -> tuple[bool, str | None]:
        """Whether the key's documents are meant, and of which store. A server that is registered under that name goes before."""
        name, _, scope = (server or "").partition("/")
        if self._documents is None or name != documents.NAME or self._calls.may_see(key, name):
            return False, None
        return True, scope or None

    def _known(self, origin: str) -> bool:
        """Against pages that make a browser speak to a server of this machine under their own name."""
        if origin in self._origins:
            return True
        try:
            return (urlsplit(origin).hostname or "") in HERE
        except ValueError:  # no address at all
            return False

    async def _post(self, exchange: HttpExchange, caller: Caller) -> None:
        body = exchange.body
        if body.lstrip()[:1] == b"[" and not caller.modern:
            await self._several(exchange, caller, body)
            return
        reply = Reply(
            exchange, streams=b"text/event-stream" in exchange.headers.get(b"accept", b"").lower(), modern=caller.modern
        )
        try:
            message = rpc.read(body)
        except ValueError as error:
            reply.refuse(None, Refusal(rpc.PARSE_ERROR, f"The body is no message: {error}"), status=400)
            return
        if message.key is None or message.method is None:
            self._note(caller, message)
            exchange.respond(202, b"", b"")
            return
        try:
            if caller.modern:
                replies.check_envelope(message, exchange.headers)
            if message.method == "subscriptions/listen" and caller.modern:
                await self._streams.subscribe(
                    exchange,
                    caller.key,
                    message.key,
                    lambda: self._authenticator.caller(self._current.snapshot, exchange.headers),
                )
                return
            result, head = await self._answer(exchange, caller, message, reply)
        except Refusal as refusal:
            reply.refuse(message.key, refusal)
        else:
            reply.result(message.key, replies.complete(result) if caller.modern else result, head)
        finally:
            reply.stop()

    async def _several(self, exchange: HttpExchange, caller: Caller, body: bytes) -> None:
        """A batch: requests at the same time, their answers as one list."""
        try:
            given = _batch.decode(body)
            messages = [rpc.read(one) for one in given]
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            exchange.respond(
                400, JSON_HEAD, rpc.fault(None, rpc.PARSE_ERROR, f"The body is no list of messages: {error}")
            )
            return
        requests = [one for one in messages if one.key is not None and one.method is not None]
        if not messages or len(messages) > MAX_BATCH or any(one.method == "initialize" for one in messages):
            exchange.respond(
                400,
                JSON_HEAD,
                rpc.fault(None, rpc.INVALID_REQUEST, f"A batch has 1 to {MAX_BATCH} messages, and no handshake"),
            )
            return
        for one in messages:
            if one.key is None or one.method is None:
                self._note(caller, one)
        if not requests:
            exchange.respond(202, b"", b"")
            return
        made = await self._spawn(self._answers(exchange, caller, requests))
        exchange.respond(200, JSON_HEAD, b"[%b]" % b",".join(made))

    async def _answers(self, exchange: HttpExchange, caller: Caller, requests: Sequence[rpc.Message]) -> list[bytes]:
        async def one(message: rpc.Message) -> bytes:
            assert message.key is not None
            try:
                result, _ = await self._answer(exchange, caller, message, None)
            except Refusal as refusal:
                return rpc.fault(message.key, refusal.code, refusal.message, refusal.data)
            return rpc.answer(message.key, result)

        return list(await asyncio.gather(*map(one, requests)))

    async def _answer(
        self, exchange: HttpExchange, caller: Caller, message: rpc.Message, reply: Reply | None
    ) -> tuple[object, bytes]:
        """The result of one request, and header lines for it. Raises Refusal."""
        params = rpc.params_of(message)
        if not bytes(params).startswith(b"{"):
            raise Refusal(rpc.INVALID_PARAMS, "Invalid params: not an object")
        match message.method:
            case "initialize" if not caller.modern:
                made = replies.initialized(params, _instructions(caller))
                return made, b"mcp-session-id: %b\r\n" % self._sessions.begin(caller.key.id).encode()
            case "server/discover" if caller.modern:
                return replies.discovered(_instructions(caller)), b""
            case "ping" if not caller.modern:
                return {}, b""
            case "tools/list" if caller.own:
                return replies.page(documents.TOOLS, params, plain=True), b""
            case "tools/list":
                tools = await self._spawn(self._calls.visible(caller.key, caller.server))
                return replies.page(tools, params, plain=caller.server is not None), b""
            case "tools/call":
                return await self._call(exchange, caller, message, reply)
            case _:
                raise Refusal(rpc.METHOD_NOT_FOUND, f"Method not found: {(message.method or '')[:100]}")

    async def _call(
        self, exchange: HttpExchange, caller: Caller, message: rpc.Message, reply: Reply | None
    ) -> tuple[object, bytes]:
        asked = replies.call_params(rpc.params_of(message))
        server, tool = parted(asked.name) if caller.server is None else (caller.server, asked.name)
        wanted = Asked(server, tool, asked.name, asked.arguments, exchange.headers, exchange.started_at)
        hear = None if reply is None or asked.token is None else reply.hearing(asked.token)
        if not self._inflight.free(caller.session, message.key):
            raise Refusal(rpc.INVALID_REQUEST, "There is a request with this id already, which is not answered yet")
        if caller.own and self._documents is not None:
            task = self._spawn(self._documents.call(caller.key, wanted, caller.scope, _base(exchange)))
        else:
            task = self._spawn(self._calls.call(caller.key, wanted, hear))
        if reply is not None:
            reply.keep_alive()
        with self._inflight.running(caller.session, message.key, task) as running:
            try:
                done: Done = await task
            except errors.GatewayError as error:
                raise replies.refusal_of(error) from None
            except asyncio.CancelledError:
                if not running.cancelled:  # the client has left
                    raise
                raise Refusal(rpc.SERVER_ERROR, "Request cancelled") from None
        return done.result, _head(done)

    def _note(self, caller: Caller, message: rpc.Message) -> None:
        """Notifications, and answers to questions that nobody asked."""
        if message.method == "notifications/cancelled" and not caller.modern:
            self._inflight.cancel(caller.session, rpc.params_of(message))


def _instructions(caller: Caller) -> str:
    return documents.INSTRUCTIONS if caller.own else INSTRUCTIONS


def _base(exchange: HttpExchange) -> str:
    """The address under which the client knows this server."""
    scheme = exchange.headers.get(b"x-forwarded-proto", b"https" if exchange.tls else b"http").decode("latin-1")
    return f"{scheme}://{exchange.headers.get(b'host', b'localhost').decode('latin-1')}"


def _head(done: Done) -> bytes:
    cost = done.record.cost_nanousd
    told = b"" if cost is None else b"x-penstock-cost-usd: %d.%09d\r\n" % divmod(cost, 1_000_000_000)
    return b"x-request-id: %b\r\n" % done.record.id.encode() + told
