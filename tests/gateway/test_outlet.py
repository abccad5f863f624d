"""What waits for the end of a turn leaves in order, whole, and on its own connection, whoever reads it and however it ends."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.asgi import AsgiApp
from gateway.connection import Connection
from gateway.http_exchange import JSON_HEAD, HttpExchange
from gateway.http_limits import HttpLimits
from gateway.listener import Listener
from gateway.outlet import AT_ONCE, Outlet, Outlets
from gateway.route import Route

READ_BYTES = 256_000  # what uvloop reads at once: only a read that was full is followed by another one in the same turn
LIMITS = HttpLimits()

End = Literal["close", "eof"]
T = TypeVar("T")


class Way(asyncio.Protocol):
    """A connection that is nothing but its outlet."""

    def __init__(self, outlets: Outlets) -> None:
        self._outlets = outlets
        self.paused = False
        self.lost = False
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's are none by name
        self.outlet = Outlet(self._outlets, self.transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self.outlet.drop()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False


async def opened(outlets: Outlets) -> tuple[Way, socket.socket]:
    """A connection on a real transport with small buffers, and its other end."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end.setblocking(False)
    loop = asyncio.get_running_loop()
    _, way = await loop.connect_accepted_socket(lambda: Way(outlets), ours)
    return way, theirs


async def rest(theirs: socket.socket) -> bytes:
    """Everything up to the end."""
    loop = asyncio.get_running_loop()
    found = b""
    while part := await loop.sock_recv(theirs, 1 << 20):
        found += part
    return found


def on_uvloop(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


SIZES = st.one_of(st.integers(1, 400), st.sampled_from([AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE]))
TURNS = st.lists(st.tuples(st.lists(SIZES, max_size=6), st.sampled_from([0, 1, 5_000, 300_000])), max_size=12)


@settings(max_examples=150)
@given(TURNS, st.booleans(), st.sampled_from(["close", "eof"]))
def test_any_writes_against_any_reader_arrive_in_order(
    turns: list[tuple[list[int], int]], flushed: bool, end: End
) -> None:
    """Small pieces, large ones, a reader that takes nothing, a byte or everything between two turns, an end in the turn of a write."""
    data = random.Random(0).randbytes(sum(sum(sizes) for sizes, _ in turns))

    async def talk() -> bytes:
        way, theirs = await opened(Outlets(asyncio.get_running_loop()))
        at, found = 0, b""
        for sizes, read in turns:
            for size in sizes:
                way.outlet.write(data[at : at + size])
                at += size
            if flushed:
                way.outlet.flush()
            await asyncio.sleep(0)
            enough = len(found) + read
            with suppress(BlockingIOError):
                while len(found) < enough:
                    found += theirs.recv(enough - len(found))
        way.outlet.flush()
        if end == "close":
            way.transport.close()
        else:
            way.transport.write_eof()
        found += await rest(theirs)
        way.transport.abort()
        theirs.close()
        return found

    assert on_uvloop(talk()) == data


def test_a_writer_that_never_lets_the_loop_turn_hears_that_its_reader_is_slow() -> None:
    """What waits in one turn is bounded too: `pause_writing` comes during the writes, not after them."""

    async def flood() -> int:
        way, theirs = await opened(Outlets(asyncio.get_running_loop()))
        written = 0
        while not way.paused and written < 64 * 1024 * 1024:
            way.outlet.write(bytes(16_384))
            written += 16_384
        way.transport.abort()
        theirs.close()
        return written

    assert on_uvloop(flood()) < 2 * 1024 * 1024


def test_what_waits_for_a_lost_connection_never_reaches_the_next_one_on_its_file() -> None:
    """The file number is free again as soon as the connection is lost, and the kernel gives out the lowest."""

    async def hammer() -> tuple[int, list[bytes]]:
        outlets = Outlets(asyncio.get_running_loop())
        reused, ghosts = 0, []
        for turn in range(200):
            way, theirs = await opened(outlets)
            file = way.transport.get_extra_info("socket").fileno()
            way.outlet.write(b"ghost")
            if turn % 2:
                theirs.close()
            way.transport.abort()
            way.outlet.write(b"ghost")
            while not way.lost:
                way.outlet.write(b"ghost")
                await asyncio.sleep(0)
            theirs.close()
            following, other = await opened(outlets)
            reused += file in (following.transport.get_extra_info("socket").fileno(), other.fileno())
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                ghosts.append(other.recv(100))
            if following.received:
                ghosts.append(following.received)
            following.transport.abort()
            other.close()
        return reused, ghosts

    reused, ghosts = on_uvloop(hammer())
    assert reused > 10
    assert ghosts == []


async def at_once(exchange: HttpExchange) -> None:
    """Answers in the turn in which its request arrived."""
    exchange.respond(200, JSON_HEAD, b"%d" % len(exchange.body))


async def nowhere(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("no test of these asks for it")


@asynccontextmanager
async def listening(app: AsgiApp = nowhere) -> AsyncIterator[Callable[[], Coroutine[Any, Any, socket.socket]]]:
    """Makes clients of one listener whose `/hot` answers at once."""
    listener = Listener({b"/hot": Route(b"POST", at_once)}, {}, app, LIMITS)
    port = await listener.start("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    clients = []

    async def client() -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", port))
        clients.append(one)
        return one

    try:
        yield client
    finally:
        for one in clients:
            one.close()
        await listener.drain(0.1)


def asked(body: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"host: x", *lines, b"content-length: %d" % len(body)))
    return b"POST /hot HTTP/%b\r\n%b\r\n%b" % (version, head, body)


def test_an_answer_reaches_a_client_whose_end_was_read_in_the_same_turn() -> None:
    """A full read is followed by another one at once: the answer still waits when the transport closes itself at the client's end."""
    padding = READ_BYTES - len(asked(bytes(READ_BYTES)))
    request = asked(bytes(READ_BYTES + padding))
    assert len(request) == READ_BYTES

    async def talk() -> bytes:
        listener = Listener({b"/hot": Route(b"POST", at_once)}, {}, nowhere, LIMITS)
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(request)
        theirs.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: cast("asyncio.Protocol", Connection(listener)), ours
        )
        found = await rest(theirs)
        theirs.close()
        return found

    assert on_uvloop(talk()).endswith(b"\r\n\r\n%d" % (READ_BYTES + padding))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(b"{}", b"connection: close"), 200),
        (asked(b"{}", version=b"1.0"), 200),
        (asked(b"{}", b"x: " + b"x" * 300_000), 431),
        (b"POST /hot HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n" + bytes(300_000), 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_an_answer_that_ends_its_connection_arrives_behind_others(request_: bytes, status: int) -> None:
    """Pipelined behind answers that the client does not read yet, then closed in the turn of its write: all arrive, whole."""
    before = 300

    async def talk() -> bytes:
        async with listening() as client:
            one = await client()
            loop = asyncio.get_running_loop()
            sending = loop.create_task(loop.sock_sendall(one, asked(b"12") * before + request_))
            await asyncio.sleep(0.05)
            found = await rest(one)
            with suppress(OSError):
                await sending
            return found

    found = on_uvloop(talk())
    assert found.count(b"HTTP/1.1 ") == before + 1
    last = found.rpartition(b"HTTP/1.1 ")[2]
    head, _, body = last.partition(b"\r\n\r\n")
    assert last.startswith(b"%d " % status)
    assert b"content-length: %d" % len(body) in head


def test_an_application_that_never_waits_is_held_back_by_its_reader() -> None:
    """An ASGI stream whose pieces are all there already: without a bound it would lie in memory whole before the first byte left."""
    sent = 0
    reading = True

    async def stream(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while reading and sent < 64 * 1024 * 1024:
            await send({"type": "http.response.body", "body": bytes(8192), "more_body": True})
            sent += 8192

    async def talk() -> None:
        nonlocal reading
        async with listening(stream) as client:
            one = await client()
            await asyncio.get_running_loop().sock_sendall(one, b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.sleep(0.3)
            reading = False

    on_uvloop(talk())
    assert 0 < sent < 16 * 1024 * 1024
