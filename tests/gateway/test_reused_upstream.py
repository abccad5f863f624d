"""An upstream connection that is used again shows nothing of the answer before, whichever way that one was read."""

import asyncio
import gzip
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chunked import unframed
from gateway.drive import Run
from gateway.errors import UpstreamError
from gateway.pool import Origin
from gateway.upstream import UpstreamConnection
from tests.fixtures.origin import nowhere

TEXT = b'{"n":"' + b"x" * 50 + b'"}'
LARGE = b"y" * 400_000


class Answer(NamedTuple):
    """What comes over the wire and what a caller has to see of it."""

    wire: bytes
    status: int
    body: bytes
    name: bytes | None = None  # the value of `x-name`


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer)


def answer(lines: bytes, body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body)


def frames(*events: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + last


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
STREAMED = (b"data: {}\n\n", b"data: " + b"z" * 250 + b"\n\n", b"data: [DONE]\n\n")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
ANSWERS = [
    Answer(answer(b"server: a\r\n", TEXT), 200, TEXT),
    Answer(answer(b"server: a\r\n", b"{}"), 200, b"{}"),
    Answer(answer(b"server: b\r\n", b""), 200, b""),
    Answer(answer(b"x-name: z\r\ncontent-encoding: gzip\r\n", gzip.compress(TEXT)), 200, TEXT, b"z"),
    Answer(CHUNKED + b"\r\n" + chunked(TEXT), 200, TEXT),
    Answer(CHUNKED + b"x-name: c\r\ncontent-encoding: gzip\r\n\r\n" + chunked(gzip.compress(TEXT)), 200, TEXT, b"c"),
    Answer(CHUNKED + b"trailer: x-name\r\n\r\n" + chunked(TEXT, b"x-name: t\r\n"), 200, TEXT),
    Answer(answer(b"x-name: e\r\n", b"no", b"404 Not Found"), 404, b"no", b"e"),
    Answer(b"HTTP/1.1 204 No Content\r\nx-name: n\r\n\r\n", 204, b"", b"n"),
    Answer(b"HTTP/1.1 103 Early\r\nx-name: i\r\n\r\n" + answer(b"", b"after"), 200, b"after"),
    Answer(answer(b"", LARGE), 200, LARGE),
    Answer(EVENTS + b"\r\n" + frames(*STREAMED), 200, b"".join(STREAMED)),
    Answer(EVENTS + b"\r\n" + frames(*STREAMED[1:]), 200, b"".join(STREAMED[1:])),
    Answer(EVENTS + b"x-name: s\r\n\r\n" + frames(*STREAMED), 200, b"".join(STREAMED), b"s"),
    Answer(EVENTS + b"\r\n" + frames(LARGE), 200, LARGE),
    Answer(EVENTS + b"\r\n" + frames(*STREAMED, last=b"000;x=1\r\n\r\n"), 200, b"".join(STREAMED)),
    Answer(EVENTS + b"\r\n" + frames(*STREAMED, last=b"0\r\nx-name: late\r\n\r\n"), 200, b"".join(STREAMED)),
    Answer(EVENTS + b"trailer: x-name\r\n\r\n" + frames(*STREAMED), 200, b"".join(STREAMED)),
    Answer(EVENTS + b"content-encoding: gzip\r\n\r\n" + chunked(gzip.compress(TEXT)), 200, TEXT),
]


class Transport(asyncio.Transport):
    """Takes everything and says nothing."""

    def is_closing(self) -> bool:
        return False

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(scope="module")
def origin() -> Origin:
    return nowhere()


def exchange(
    connection: UpstreamConnection, asked: Answer, how: str, cuts: list[int]
) -> tuple[int, bytes, bytes | None]:
    """One request and its answer, cut into segments, read in one of three ways."""
    found = b""
    failed: list[BaseException | None] = []

    async def whole() -> None:
        nonlocal found
        found = await connection.whole(1 << 20)

    async def pieces() -> None:
        nonlocal found
        await connection.head()
        while piece := await connection.piece():
            found += piece

    async def pour() -> None:
        await connection.head()
        while not connection.ended:
            await connection.pour(taken, 10.0, 100.0)

    def taken(piece: bytes, _: bytes) -> bool:
        nonlocal found
        found += piece
        return len(found) % 2 == 0

    connection.busy = True
    connection.send(b"POST / HTTP/1.1\r\n", b"{}")
    Run({"whole": whole, "pieces": pieces, "pour": pour}[how](), failed.append).step()
    edges = sorted({0, len(asked.wire), *(cut % len(asked.wire) for cut in cuts)})
    for start, end in pairwise(edges):
        connection.data_received(asked.wire[start:end])
    assert failed == [None]
    seen = connection.status, found, connection.header(b"x-name")
    connection.release()
    return seen


STEPS = st.lists(
    st.tuples(
        st.sampled_from(ANSWERS),
        st.sampled_from(["whole", "whole", "pieces", "pour"]),
        st.one_of(st.just([]), st.lists(st.integers(1, 500_000), max_size=4)),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=300)
@given(STEPS)
def test_every_answer_is_its_own(origin: Origin, steps: list[tuple[Answer, str, list[int]]]) -> None:
    """Plain, compressed, chunked, with trailers, without a body, refused, too large to wait: in any order, cut anywhere."""
    connection = UpstreamConnection(origin)
    transport = Transport()
    connection.connection_made(transport)
    for asked, how, cuts in steps:
        status, body, name = exchange(connection, asked, how, cuts)
        assert (status, body) == (asked.status, asked.body)
        assert name == asked.name
        assert transport.reading
        assert not transport.aborted
        assert origin.idle() is connection


def test_a_plain_answer_cut_at_every_byte_is_read_the_same(origin: Origin) -> None:
    """After one that was read at once, and before another one that is."""
    plain = ANSWERS[0]
    connection = UpstreamConnection(origin)
    connection.connection_made(Transport())
    for cut in range(1, len(plain.wire)):
        for cuts in ([cut], []):
            assert exchange(connection, plain, "whole", cuts) == (200, TEXT, None)
            assert origin.idle() is connection


def test_a_stream_cut_at_every_byte_is_read_the_same(origin: Origin) -> None:
    """Of a head that is known, so that the parser hears of it only where a segment is no whole chunks."""
    stream = next(one for one in ANSWERS if one.wire.startswith(EVENTS))
    connection = UpstreamConnection(origin)
    connection.connection_made(Transport())
    for cut in range(1, len(stream.wire)):
        for how in ("pieces", "pour"):
            for cuts in ([cut], [cut, cut + 7, cut + 20]):
                assert exchange(connection, stream, how, cuts) == (200, stream.body, None)
                assert origin.idle() is connection
    assert origin.known_stream is not None


@pytest.mark.parametrize(
    "wrong",
    [b"5\r\nabc\r\n", b"+3\r\nabc\r\n", b" 3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"\r\n", b"3_0\r\nabc\r\n", b"3\nabc\n"],
)
def test_what_is_no_chunk_is_refused_after_a_known_head(origin: Origin, wrong: bytes) -> None:
    stream = next(one for one in ANSWERS if one.wire.startswith(EVENTS))
    connection = UpstreamConnection(origin)
    connection.connection_made(Transport())
    exchange(connection, stream, "pieces", [])
    assert origin.idle() is connection
    failed: list[BaseException | None] = []

    async def pieces() -> None:
        await connection.head()
        while await connection.piece():
            pass

    connection.busy = True
    connection.send(b"POST / HTTP/1.1\r\n", b"{}")
    Run(pieces(), failed.append).step()
    connection.data_received(EVENTS + b"\r\n" + frames(STREAMED[0], last=b""))
    connection.data_received(wrong + wrong)
    assert isinstance(failed[0], UpstreamError)
    connection.release()
    assert origin.idle() is None


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4), st.booleans(), st.binary(max_size=20))
def test_whole_chunks_and_nothing_else_are_unframed(bodies: list[bytes], last: bool, more: bytes) -> None:
    data = frames(*bodies, last=b"0\r\n\r\n" if last else b"")
    assert unframed(data) == (b"".join(bodies), last)
    assert unframed(b"head" + data, 4) == (b"".join(bodies), last)
    if more and last:
        assert unframed(data + more) is None
    for cut in range(1, len(frames(bodies[-1])) if bodies and last else 0):
        assert (found := unframed(data[:-cut])) is None or not found[1]
