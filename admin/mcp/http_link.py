"""A server over streamable HTTP: each message is a POST, whose answer is one message or a stream of events.

Redirects are not followed: an address is what an admin has registered, and nothing that a server says sends the gateway elsewhere.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Final, final

import httpx
import structlog
from msgspec import Raw

from admin.mcp.oauth import Tokens
from admin.mcp.web import EVENTS, JSON, body, client, kind_of, pieces, unreachable
from gateway import errors
from gateway.dialects.events import EventReader
from gateway.mcp import rpc
from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import Events, Hear
from gateway.mcp.peer import Peer
from gateway.mcp.rpc import Message

log = structlog.stdlib.get_logger(__name__)

LISTEN_AGAIN_S: Final = 5.0
MAX_LISTEN_AGAIN_S: Final = 300.0
MAX_FAULT_BYTES: Final = 64 * 1024
SESSION: Final = "mcp-session-id"
VERSION: Final = "mcp-protocol-version"


@final
class HttpLink:
    """`tokens` logs the gateway in, where the server wants OAuth."""

    def __init__(self, server: Server, events: Events, tokens: Tokens | None) -> None:
        self._server = server
        self._events = events
        self._tokens = tokens
        self._where = f"The MCP server '{server.name}'"
        self._client = client(server)
        self._peer = Peer(self._where, self, events, start_s=server.start_s, timeout_s=server.timeout_s)
        self._session: str | None = None
        self._open = False
        self._listener: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._peer.initialize()
        self._open = True
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def tools(self) -> list[Raw]:
        return await self._peer.tools()

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:
        return await self._peer.call(tool, arguments, hear, sent)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._peer.close()
        if self._session is not None:
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._client.delete(self._server.url, headers=self._headers())
        if self._tokens is not None:
            await self._tokens.close()
        await self._client.aclose()

    async def deliver(self, message: bytes, answered: "asyncio.Future[Message] | None") -> None:
        try:
            await self._post(message, answered, again=self._tokens is not None)
        except httpx.HTTPError as error:
            raise unreachable(self._where, error) from None

    async def _post(self, message: bytes, answered: "asyncio.Future[Message] | None", *, again: bool) -> None:
        headers = {**self._headers(), "content-type": JSON, "accept": f"{JSON}, {EVENTS}"}
        if self._tokens is not None:
            headers["authorization"] = await self._tokens.bearer()
        async with self._client.stream("POST", self._server.url, content=message, headers=headers) as answer:
            if answer.status_code == 401 and again and self._tokens is not None:
                self._tokens.refused(headers["authorization"], answer.headers.get("www-authenticate"))
            else:
                await self._take(answer, answered)
                return
        await self._post(message, answered, again=False)

    async def _take(self, answer: httpx.Response, answered: "asyncio.Future[Message] | None") -> None:
        if answer.status_code == 404 and self._session is not None:
            self._events.lost(f"{self._where} has forgotten its session")
        if not 200 <= answer.status_code < 300:
            if answered is None or not await self._fault(answer, answered):
                raise self._refusal(answer.status_code)
            return
        if not self._open:
            self._session = answer.headers.get(SESSION) or self._session
        if answered is None:
            return
        kind = kind_of(answer)
        if kind == EVENTS:
            async with contextlib.aclosing(self._events_of(answer)) as events:
                async for payload in events:
                    self._peer.hear(payload)
                    if answered.done():
                        return
        elif kind == JSON:
            self._peer.hear(await body(answer, self._server.max_answer_bytes, self._where))
        else:
            raise errors.UpstreamError(f"{self._where} answered with {kind[:100] or 'no content type'}")
        if not answered.done():
            raise errors.UpstreamError(f"{self._where} ended its answer without one to the question")

    async def _fault(self, answer: httpx.Response, answered: "asyncio.Future[Message]") -> bool:
        """Whether a failure is the protocol's own: a JSON-RPC error in the body is the server's word on the question."""
        if kind_of(answer) != JSON or answer.status_code in {401, 403, 404}:
            return False
        try:
            message = rpc.read(await body(answer, MAX_FAULT_BYTES, self._where))
        except ValueError:
            return False
        if message.error is None or answered.done():
            return False
        answered.set_result(message)
        return True

    def _refusal(self, status: int) -> errors.GatewayError:
        if status in {401, 403}:
            return ServerDown(f"{self._where} refuses the gateway's credentials ({status})", unsent=True)
        if status == 404 and self._session is not None:
            return ServerDown(f"{self._where} has forgotten its session: call again", unsent=True)
        if 300 <= status < 400:
            return ServerDown(f"{self._where} redirects to another address, which is not followed", unsent=True)
        if status in {404, 405, 429, 503}:
            return ServerDown(f"{self._where} answered with status {status}", unsent=True)
        return errors.UpstreamError(f"{self._where} answered with status {status}")

    async def _events_of(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The data of each event that has some, none larger than an answer may be."""
        limit = self._server.max_answer_bytes
        reader = EventReader(limit)
        async for piece in pieces(answer, limit, self._where):
            for payload in reader.feed(piece):
                if payload:
                    yield payload

    def _headers(self) -> dict[str, str]:
        headers = {VERSION: self._peer.version} if self._open or self._session is not None else {}
        return headers if self._session is None else {**headers, SESSION: self._session}

    async def _listen(self) -> None:
        """What the server says unasked, for as long as it has a stream for that. One that is always cut is asked less and less often."""
        wait_s = LISTEN_AGAIN_S
        while True:
            try:
                headers = {**self._headers(), "accept": EVENTS}
                if self._tokens is not None:
                    headers["authorization"] = await self._tokens.bearer()
                timeout = httpx.Timeout(self._server.start_s, read=None)
                async with self._client.stream("GET", self._server.url, headers=headers, timeout=timeout) as answer:
                    if answer.status_code != 200 or kind_of(answer) != EVENTS:
                        if answer.status_code < 500:
                            return  # it has no such stream
                    else:
                        async with contextlib.aclosing(self._unasked(answer)) as events:
                            async for payload in events:
                                wait_s = LISTEN_AGAIN_S
                                self._peer.hear(payload)
            except (httpx.HTTPError, errors.GatewayError) as error:
                log.debug("mcp.stream_ended", server=self._server.name, reason=type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(MAX_LISTEN_AGAIN_S, wait_s * 2)

    async def _unasked(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        """As `_events_of`, of a stream without an end: only what waits for its end is bounded."""
        reader = EventReader()
        async for piece in answer.aiter_raw():
            for payload in reader.feed(piece):
                if payload:
                    yield payload
