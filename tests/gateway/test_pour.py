"""A stream's chunks go on from the event loop's callback, read by hand where a segment is one chunk: under any split the same bytes."""

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.drive import Run
from gateway.errors import GatewayError
from gateway.upstream import UpstreamConnection
from tests.fixtures.origin import nowhere

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Poured:
    """What a relay would see of one stream: whole pieces, and the chunks that would go on as they are."""

    def __init__(self, segments: list[bytes], stop_after: int | None = None) -> None:
        self.connection = UpstreamConnection(nowhere())
        self.connection.busy = True
        self.body = b""
        self.pieces = 0
        self.error: BaseException | None = None
        self._stop_after = stop_after
        Run(self._read(), self._ended).step()
        for segment in segments:
            self.connection.data_received(segment)

    async def _read(self) -> None:
        await self.connection.head()
        while not self.connection.ended:
            await self.connection.pour(self._take, 10.0, time.monotonic() + 10)

    def _take(self, piece: bytes, chunk: bytes) -> bool:
        assert not chunk or chunk == b"%x\r\n%b\r\n" % (len(piece), piece)
        self.body += piece
        self.pieces += 1
        return self._stop_after is None or self.pieces % self._stop_after != 0

    def _ended(self, error: BaseException | None) -> None:
        self.error = error


def framed(chunks: list[bytes], size: str) -> bytes:
    return b"".join((size % len(chunk)).encode() + b"\r\n" + chunk + b"\r\n" for chunk in chunks)


CHUNKS = st.lists(
    st.sampled_from([b"a\r\n", b"1\r\nx\r\n", b"data: {}\n\n", b"0\r\n\r\n", b"x" * 26, b"\r\n" * 9, b"y"]),
    min_size=1,
    max_size=12,
)


@given(
    CHUNKS,
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from(["%x", "%X", "0%x", "%x;n=v"]),
    st.sampled_from([None, 1, 2]),
)
def test_any_split_gives_the_same_bytes(
    chunks: list[bytes], cuts: list[int], size: str, stop_after: int | None
) -> None:
    """In the middle of a chunk's size, of its end, of its data; whether the client pauses or not."""
    wire = framed(chunks, size) + b"0\r\n\r\n"
    places = sorted({cut for cut in cuts if cut < len(wire)} | {0, len(wire)})
    segments = [wire[start:end] for start, end in pairwise(places)]
    poured = Poured([HEAD, *segments], stop_after)
    assert poured.error is None
    assert poured.body == b"".join(chunks)
    assert poured.connection.complete


@given(CHUNKS)
def test_a_chunk_a_segment_gives_the_same_bytes(chunks: list[bytes]) -> None:
    """As servers write them, which needs no parser, and the head in front of the first."""
    segments = [framed([chunk], "%x") for chunk in chunks]
    for wire in ([HEAD, *segments, b"0\r\n\r\n"], [HEAD + segments[0], *segments[1:], b"0\r\n\r\n"]):
        poured = Poured(wire)
        assert poured.error is None
        assert poured.body == b"".join(chunks)


def test_a_segment_that_looks_like_a_chunk_in_the_middle_of_one_is_not_taken_for_it() -> None:
    """The size's first digit came with the segment before: `1` and `a` are 26 bytes, not ten."""
    poured = Poured([HEAD, framed([b"first"], "%x"), b"1", b"a\r\n0123456789\r\n", b"fourteen bytes\r\n", b"0\r\n\r\n"])
    assert poured.error is None
    assert poured.body == b"first0123456789\r\nfourteen bytes"


def test_what_is_no_chunk_is_an_error_after_what_was() -> None:
    """Damage is the parser's to find; what came before it has been passed on."""
    poured = Poured([HEAD, framed([b"good"], "%x"), b"zz\r\nbad\r\n"])
    assert poured.body == b"good"
    assert isinstance(poured.error, GatewayError)


def test_a_body_that_stops_is_an_error() -> None:
    """The connection is lost between two chunks."""
    poured = Poured([HEAD, framed([b"good"], "%x")])
    poured.connection.connection_lost(None)
    assert poured.body == b"good"
    assert isinstance(poured.error, GatewayError)
