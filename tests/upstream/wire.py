"""One connection of the scripted upstream: reads requests, answers them in order, notes what became of each."""

import asyncio
import socket
import struct
import time
from collections import deque
from typing import cast

import httptools

from tests.upstream import reply
from tests.upstream.behaviour import PLAIN
from tests.upstream.journal import Entry, Outcome
from tests.upstream.realtime_dialect import Talk
from tests.upstream.site import Reaction, Request, Site

NO_LINGER = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """The parser's callbacks build a request; a plain answer goes out at once, a scripted one from a task."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._entry: Entry | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._number = 0
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._parts: list[bytes] = []

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._site.journal.connections += 1
        self._number = self._site.journal.connections

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._waiting.clear()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        if self._entry is not None:
            self._end("client_left")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._talk(data[stop.args[0] :])
        except httptools.HttpParserError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Called by the parser

    def on_message_begin(self) -> None:
        self._url, self._headers, self._parts = b"", [], []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        old = self._parser.get_http_version() == "1.0"
        body = b"".join(self._parts)
        self._waiting.append(Request(self._number, method, self._url.decode("latin-1"), self._headers, body, old))
        if self._task is None and not self._parser.should_upgrade():
            self._next()

    def _talk(self, behind: bytes) -> None:
        """A WebSocket: from here on the connection is a conversation's."""
        request = self._waiting.popleft()
        behaviour, entry = self._site.talk(request)
        talk = Talk(request.path, dict(request.headers), behaviour, entry, self._site.journal)
        self._transport.set_protocol(talk)
        talk.connection_made(self._transport)
        if behind:
            talk.data_received(behind)

    # The answer's way out

    async def put(self, data: bytes) -> None:
        if self._entry is not None and self._entry.first_byte_at is None:
            self._entry.first_byte_at = time.monotonic()
        self._transport.write(data)
        await self._writable.wait()

    async def let_go(self) -> None:
        if self._entry is not None:
            await self._site.gates[self._entry.script].wait()

    def close(self) -> None:
        self._transport.close()

    def reset(self) -> None:
        """The client gets a RST instead of a FIN: what a killed process or a firewall looks like."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()

    def _next(self) -> None:
        while self._waiting and self._task is None:
            request = self._waiting.popleft()
            reaction = self._site.react(request)
            entry = self._entry = reaction.entry
            if reaction.behaviour is PLAIN and not reaction.answer.streams:
                self._quick(reaction, entry)
            else:
                assert entry is not None
                self._task = self._loop.create_task(self._slow(request, reaction, entry))

    def _quick(self, reaction: Reaction, entry: Entry | None) -> None:
        data = reply.quick(reaction.answer, entry)
        if entry is not None:
            entry.first_byte_at = time.monotonic()
            entry.bytes_sent = len(data)
        self._transport.write(data)
        self._end("finished")

    async def _slow(self, request: Request, reaction: Reaction, entry: Entry) -> None:
        gzip = "gzip" in request.header("accept-encoding")
        await reply.send(reaction.answer, reaction.behaviour, self, entry, old=request.old, gzip=gzip)
        self._task = None
        self._end("finished" if entry.outcome == "open" else entry.outcome)
        if reaction.behaviour.idle_close_s is not None:
            self._loop.call_later(reaction.behaviour.idle_close_s, self._close_idle)
        self._next()

    def _close_idle(self) -> None:
        if self._task is None:
            self._transport.close()

    def _end(self, outcome: Outcome) -> None:
        entry, self._entry = self._entry, None
        if entry is None:
            return
        entry.outcome = outcome
        entry.ended_at = time.monotonic()
        self._site.journal.charge(entry)
