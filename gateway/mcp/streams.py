"""Answers that may become streams, and streams of what changes: both kept alive by comments, both bounded."""

import asyncio
from collections.abc import Callable
from typing import Final, final

from gateway import errors
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.keys import Key
from gateway.mcp import replies, rpc
from gateway.mcp.links import Hear
from gateway.mcp.replies import Refusal, event
from gateway.mcp.rpc import Id, Progress
from gateway.mcp.upstreams import Upstreams

EVENT_HEAD: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\n"
BEAT: Final = b": \n\n"
BEAT_S: Final = 15.0
MOST: Final = 1000  # streams of one process
MOST_PER_KEY: Final = 32


@final
class Reply:
    """The answer to one request: JSON, unless it became a stream before. `streams`: the client can read one."""

    def __init__(self, exchange: HttpExchange, *, streams: bool, modern: bool) -> None:
        self._exchange = exchange
        self._streams = streams
        self._modern = modern
        self._beat: asyncio.TimerHandle | None = None

    def hearing(self, token: Id) -> Hear | None:
        """Progress goes on under the client's own token; what a slow client cannot take is left out."""
        if not self._streams:
            return None

        def hear(progress: Progress) -> None:
            told: dict[str, object] = {"progressToken": token, "progress": progress.progress}
            if progress.total is not None:
                told["total"] = progress.total
            if progress.message is not None:
                told["message"] = progress.message[:4000]
            self._send(event(rpc.notification("notifications/progress", told)))

        return hear

    def keep_alive(self) -> None:
        """A call that takes long becomes a stream, so that nobody between takes it for dead."""
        if self._streams:
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._tick)

    def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def result(self, id_: Id, result: object, head: bytes = b"") -> None:
        self._end(rpc.answer(id_, result), 200, head)

    def refuse(self, id_: Id | None, refusal: Refusal, status: int | None = None) -> None:
        usual = replies.STATUSES.get(refusal.code, 200) if self._modern else 200
        self._end(rpc.fault(id_, refusal.code, refusal.message, refusal.data), status or usual, b"")

    def _end(self, message: bytes, status: int, head: bytes) -> None:
        self.stop()
        if self._exchange.begun:
            self._exchange.send(event(message))
            self._exchange.end()
        else:
            self._exchange.respond(status, JSON_HEAD + head, message)

    def _tick(self) -> None:
        self._send(BEAT)
        self.keep_alive()

    def _send(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange.ended or exchange.write_paused:
            return
        if not exchange.begun:
            exchange.begin_events(200, EVENT_HEAD)
        exchange.send(data)


@final
class Streams:
    """Whoever listens for changes in this process."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._open: dict[str, int] = {}
        self._ending = False
        self._wakers: set[Callable[[], None]] = set()

    def end(self) -> None:
        """The process is about to end: nobody who only listens holds it up."""
        self._ending = True
        for wake in tuple(self._wakers):
            wake()

    async def listen(self, exchange: HttpExchange, key: Key, check: Callable[[], Key]) -> None:
        """Of a session. `check` raises a GatewayError once the key does not work any more."""
        if b"text/event-stream" not in exchange.headers.get(b"accept", b"").lower():
            raise errors.BadRequest("A GET has to accept text/event-stream", param="accept", code="invalid_value")
        await self._tell(exchange, key, check, b"", event(rpc.notification(replies.CHANGED)), b"")

    async def subscribe(self, exchange: HttpExchange, key: Key, id_: Id, check: Callable[[], Key]) -> None:
        """The same as the answer to a request, whose id is in each of its messages."""
        meta = {"_meta": {replies.SUBSCRIPTION: id_}}
        told = {"notifications": {"toolsListChanged": True}, **meta}
        opening = event(rpc.notification("notifications/subscriptions/acknowledged", told))
        closing = event(rpc.answer(id_, {"resultType": "complete", **meta}))
        await self._tell(exchange, key, check, opening, event(rpc.notification(replies.CHANGED, meta)), closing)

    async def _tell(
        self, exchange: HttpExchange, key: Key, check: Callable[[], Key], opening: bytes, changed: bytes, closing: bytes
    ) -> None:
        if sum(self._open.values()) >= MOST or self._open.get(key.id, 0) >= MOST_PER_KEY:
            raise errors.RateLimited("Too many streams are open", headers=(("retry-after", "5"),))
        self._open[key.id] = self._open.get(key.id, 0) + 1
        loop = asyncio.get_running_loop()
        rights = key.tools
        waiting: list[asyncio.Future[bool]] = []

        def wake(*, news: bool) -> None:
            if waiting and not waiting[0].done():
                waiting[0].set_result(news)

        def told() -> None:
            wake(news=True)

        self._upstreams.subscribe(told)
        self._wakers.add(told)
        try:
            exchange.begin_events(200, EVENT_HEAD)
            exchange.send(opening or BEAT)
            while not self._ending:
                waiting[:] = [loop.create_future()]
                timer = loop.call_later(BEAT_S, lambda: wake(news=False))
                try:
                    news = await waiting[0]
                finally:
                    timer.cancel()
                before, rights = rights, check().tools
                await exchange.drained()
                if not self._ending:
                    exchange.send(changed if news or rights != before else BEAT)
            exchange.send(closing)
            exchange.end()
        except errors.GatewayError:
            exchange.end()
        finally:
            self._upstreams.unsubscribe(told)
            self._wakers.discard(told)
            self._open[key.id] -= 1
            if not self._open[key.id]:
                del self._open[key.id]
