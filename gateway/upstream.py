"""One keep-alive connection to an upstream: a request out, an answer in, under deadlines. It never retries.

The caller is a driven coroutine: `whole()` for an answer that is wanted in one piece; `head()`, then `piece()` or `pour()` for a stream.
Between pieces the socket is paused once `HIGH_WATER` bytes wait, so a slow client slows its upstream instead of filling memory.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, final

import httptools

from gateway import errors
from gateway.chunked import StreamHead, stream_head, unframed
from gateway.drive import Signal
from gateway.outlet import Outlet
from gateway.repeated_head import learn_plain
from gateway.sse import ChatStream

if TYPE_CHECKING:  # the pool makes connections; the name is needed for types alone
    from gateway.pool import Origin

HIGH_WATER = 256 * 1024
MAX_HEADER_BYTES = 64 * 1024
NEVER = float("inf")
MOST_CHUNK_HEADS = 256  # of one connection, some 100 bytes each


# Takes a piece of a body and says whether it wants more. The second value, if not empty, is the very chunk (RFC 9112 7.1) that the
# piece came in, which can go on as it is.
Sink = Callable[[bytes, bytes], bool]
# Who says whether a whole chunk, frame included, may go on as it is; and the way out, which says whether more may follow at once.
Passage = tuple[ChatStream, Outlet]


@final
class UpstreamConnection:
    """The protocol (asyncio.Protocol's, without being one: see `gateway.compiled`) of a socket to an upstream. One exchange at a time."""

    __slots__ = (
        "_arrived",
        "_between_chunks",
        "_buffered",
        "_chunk_heads",
        "_closing",
        "_decoder",
        "_error",
        "_exit",
        "_fields",
        "_framed",
        "_outlet",
        "_paused",
        "_pieces",
        "_queue_limit",
        "_reading",
        "_received",
        "_sink",
        "_stall_s",
        "_stream",
        "_total",
        "_touched",
        "_transport",
        "_unparsed",
        "_whole",
        "busy",
        "complete",
        "deadline",
        "deadline_is",
        "headed",
        "headers",
        "idle_since",
        "lost",
        "moved",
        "origin",
        "parser",
        "status",
    )

    def __init__(self, origin: "Origin") -> None:
        self.origin = origin
        self._chunk_heads: dict[int, bytes] = {}  # by the length of a whole chunk
        self.parser = httptools.HttpResponseParser(self)
        self.deadline = NEVER
        self.deadline_is = ""
        self.idle_since = 0.0
        self._stall_s = self._total = 0.0
        self.lost = False
        self.busy = False
        self.moved = False  # a piece of a stream has come, and `deadline` does not know yet
        self._transport: asyncio.Transport | None = None
        self._outlet: Outlet | None = None
        self._arrived = Signal()
        self._closing = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headed = False
        self.complete = False
        self._error: errors.GatewayError | None = None
        self._pieces: list[bytes] = []
        self._received = 0
        self._whole = False
        self._reset_parsed()

    def _reset_parsed(self) -> None:
        """What only an answer that went through the parser has touched."""
        self.headers: list[tuple[bytes, bytes]] = []
        self._fields: Mapping[bytes, bytes] = {}
        self._buffered = 0
        self._framed = False
        self._paused = False
        self._decoder: zlib._Decompress | None = None
        self._sink: Sink | None = None
        self._stream: ChatStream | None = None
        self._exit: Outlet | None = None
        self._between_chunks = False  # what comes next is a chunk
        self._unparsed: StreamHead | None = None  # of a stream that the parser has seen nothing of yet
        self._touched = False

    # For the caller

    def send(self, head: bytes, body: bytes) -> None:
        """Writes one request. `head` lacks only the length, which is added here with the empty line."""
        outlet = self._outlet
        assert outlet is not None
        if self._touched or self._error is not None:
            self._reset()
        else:
            self.headed = self.complete = self._whole = False
            self._pieces = []
            self.status = self._received = 0
        size = len(body)
        if size < 65_536:
            outlet.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, size, body))
        else:
            outlet.write(b"%bcontent-length: %d\r\n\r\n" % (head, size))
            outlet.write(body)

    def send_pieces(self, head: bytes, body: Sequence[bytes | memoryview]) -> None:
        """As `send`, of a body that lies in pieces: nothing large is copied."""
        outlet = self._outlet
        assert outlet is not None
        self._reset()
        outlet.write(b"%bcontent-length: %d\r\n\r\n" % (head, sum(len(piece) for piece in body)))
        outlet.write_through(body)

    async def whole(self, limit: int) -> bytes:
        """The body of an answer of at most `limit` bytes, once it is complete. `status` and `headers` are set by then."""
        self._whole = True
        while not self.complete and self._error is None:
            await self._arrived
            if self._buffered > limit:
                raise errors.UpstreamError(f"The upstream's answer is longer than {limit} bytes")
        if self._error is not None:
            raise self._error
        pieces = self._pieces
        if len(pieces) > 1:
            self._pieces = pieces = [b"".join(pieces)]
        return pieces[0] if pieces else b""

    async def rest(self, limit: int) -> bytes:
        """As `whole`, once the header is there: what of the body came with it may have been enough to stop reading."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return await self.whole(limit)

    def collected(self) -> bytes:
        """What of the body has arrived and was not taken."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def expect(self, deadline: float, name: str) -> None:
        """Fails the exchange with UpstreamTimeout at `deadline`; `name` says which limit that was."""
        self.deadline = deadline
        self.deadline_is = name

    async def head(self) -> int:
        """The status, once the header is complete."""
        while not self.headed and self._error is None:
            await self._arrived
        if self._error is not None and not self.headed:
            raise self._error
        return self.status

    async def piece(self) -> bytes:
        """What has arrived of the body since the last call, at least one byte; empty at its end."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._arrived
        return self._take()

    async def pour(self, sink: Sink, stall_s: float, total: float, passage: Passage | None = None) -> None:
        """Hands the body's pieces to `sink` as they arrive, from the event loop's own callback: a wake-up for each would cost more than
        its work. Returns when the sink wants no more for now or the body has ended; may be called again. `passage` is offered chunks first.

        Fails with UpstreamTimeout `stall_s` after the last piece, and at `total`.
        """
        self.deadline_is = "stall"
        self._stall_s, self._total = stall_s, total
        self._touch()
        self._sink = sink
        self._stream, self._exit = passage or (None, None)
        try:
            while True:
                if self._pieces and not sink(self._take(), b""):
                    return
                if self._error is not None:
                    raise self._error
                if self._sink is None or self.complete:
                    return
                await self._arrived
        finally:
            self._sink = self._stream = self._exit = None
            self.note(self.origin.now())

    @property
    def ended(self) -> bool:
        """The body has ended, and all of it was taken."""
        return self.complete and not self._pieces

    def note(self, now: float) -> None:
        """Of a body that moved since somebody looked, the last piece came now: a look at the clock for each costs too much."""
        if self.moved:
            self.moved = False
            self.deadline = min(self._total, now + self._stall_s)

    def _touch(self) -> None:
        self.moved = True
        self.note(self.origin.now())

    def _take(self) -> bytes:
        """What waits, and room for more."""
        data = self.collected()
        self._pieces = []
        self._buffered = 0
        if self._paused:
            self._paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return data

    def header(self, name: bytes) -> bytes | None:
        return self._fields.get(name)

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """The answer's header, names in lower case."""
        return self._fields

    def release(self) -> None:
        """Gives the connection back; it is closed unless the answer ended cleanly and the upstream keeps it open."""
        if not self.busy:
            return
        self.busy = False
        self.deadline = NEVER
        self.origin.give_back(
            self, reusable=self.complete and not self.lost and not self._closing and self._error is None
        )

    def abort(self) -> None:
        """Breaks the connection at once: the upstream must stop working for nobody."""
        if self._transport is not None and not self.lost:
            if self._outlet is not None:
                self._outlet.drop()
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def time_out(self) -> None:
        """The watchdog saw the deadline pass."""
        if self.deadline_is == "stall" and self.deadline == self._total:
            self.deadline_is = "total"
        self.deadline = NEVER
        self._fail(errors.UpstreamTimeout(f"The upstream sent nothing within its {self.deadline_is} limit"))

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream: asyncio.Transport = transport  # type: ignore[assignment]  # the pool makes no other
        self._transport = stream
        self._outlet = Outlet(self.origin.outlets, stream)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True
        if self._outlet is not None:
            self._outlet.drop()
        if self.busy and not self.complete and self._error is None:
            if self.headed and not self._framed:
                self.complete = True  # the end of the connection is the end of the body (RFC 9112 6.3, rule 8)
                self._arrived.fire()
            else:
                self._fail(errors.UpstreamCut("The upstream closed the connection before its answer was complete"))
        self.origin.lost(self)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is not None and self._between_chunks:  # nearly all of a stream is segments that are exactly one chunk
            stream, way_out = self._stream, self._exit
            if stream is not None and way_out is not None and stream.passes(data):
                self.moved = True
                if not way_out.write(data):
                    self._sink = None
                    self._arrived.fire()
                return
            head = self._chunk_heads.get(len(data)) or self._chunk_head(len(data))
            if data.startswith(head) and data.endswith(b"\r\n"):
                self.moved = True
                if not sink(data[len(head) : -2], data):
                    self._sink = None
                    self._arrived.fire()
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if not self.busy or self.complete:  # nobody asked: what follows cannot be told from the next answer
            self._closing = True
            self.abort()
            return
        first = not self._received
        if first:
            if self._at_once(data) if self._whole else self._opens(data):
                return
        elif self._unparsed is not None:
            chunks = unframed(data)
            if chunks is not None:
                self._received += len(data)
                self._pass_unparsed(*chunks)
                return
            self.parser.feed_data(self._unparsed.head)  # it sees what it saw before, and then the rest
            self._unparsed = None
        self._received += len(data)
        self._touched = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._closing = True
            self._fail(_cause(error))
            return
        if self._between_chunks and not data.endswith(b"\r\n"):
            self._between_chunks = False  # the parser has the first digits of a chunk's size
        if not self.headed:
            if self._received > MAX_HEADER_BYTES:
                self._fail(errors.UpstreamError("The upstream's header is too large"))
            return
        if first and not (self._whole or self._closing):
            self.origin.known_stream = stream_head(data, self._fields) or self.origin.known_stream
        self._deliver()

    def _opens(self, data: bytes) -> bool:
        """The common beginning of a stream without the parser: a head that came before, and whole chunks."""
        known = self.origin.known_stream
        if known is None or not data.startswith(known.head):
            return False
        opening = unframed(data, known.size)
        if opening is None:
            return False
        self._received = len(data)
        self._touched = True
        self.status = 200
        self.headed = self._framed = self._between_chunks = True
        self._fields = known.fields
        self._unparsed = known
        self._pass_unparsed(*opening)
        return True

    def _pass_unparsed(self, body: bytes, last: bool) -> None:
        self.on_body(body)
        self.complete = last
        self._deliver()

    def _deliver(self) -> None:
        """Hands over what a segment brought."""
        if self._sink is not None and not self.complete:
            self._touch()
            if self._pieces and not self._sink(self._take(), b""):
                self._sink = None
                self._arrived.fire()
        elif self.complete or not self._whole or self._buffered > HIGH_WATER:
            self._arrived.fire()

    def _at_once(self, data: bytes) -> bool:
        """The common case without the parser: one segment that is exactly one 200 with a length. Anything else is left to it."""
        known = self.origin.known
        body = known.body(data) if known is not None else None
        if body is None:
            plain = learn_plain(data)
            if plain is None:
                return False
            self.origin.known, body = plain
        self._received = len(data)
        self.status = 200
        self.headed = self.complete = True
        self._pieces = [body]
        self._arrived.fire()
        return True

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """A request is sent whole: nothing more is written that could wait."""

    def resume_writing(self) -> None: ...

    # Called by the parser

    def on_message_begin(self) -> None:
        if self.complete:
            raise errors.UpstreamError("The upstream sent two answers to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        status = parser.get_status_code()
        if status < 200:  # interim (RFC 9110 15.2): the answer is yet to come
            self.headers = []
            if status == 101:
                raise errors.UpstreamError("The upstream switched protocols unasked")
            return
        self.status = status
        self.headed = True
        fields: dict[bytes, bytes] = dict(self.headers)
        self._fields = fields
        self.headers = []  # what follows are trailers
        if not parser.should_keep_alive():
            self._closing = True
        self._framed = b"content-length" in fields or b"transfer-encoding" in fields or status in (204, 304)
        if fields.get(b"content-encoding", b"").lower() in (b"gzip", b"deflate", b"x-gzip"):
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # detects gzip and zlib headers

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = self._decoder is None

    def on_body(self, part: bytes) -> None:
        if self._decoder is not None:
            try:
                part = self._decoder.decompress(part, 64 * 1024 * 1024)
            except zlib.error:
                raise errors.UpstreamError("The upstream's compressed answer is damaged") from None
        if not part:
            return
        self._pieces.append(part)
        self._buffered += len(part)
        if self._buffered > HIGH_WATER and not self._paused and not self._whole:
            self._paused = True
            assert self._transport is not None
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.headed:
            self.complete = True

    # Private

    def _chunk_head(self, length: int) -> bytes:
        """What a chunk of `length` bytes begins with, frame included (RFC 9112 7.1). Something longer, where there is no such chunk."""
        size = length - 4
        for digits in range(1, 9):
            head = b"%x\r\n" % max(0, size - digits)
            if len(head) == digits + 2 and size - digits > 0:
                break
        else:
            head = bytes(length + 1)
        if len(self._chunk_heads) >= MOST_CHUNK_HEADS:
            self._chunk_heads.clear()
        self._chunk_heads[length] = head
        return head

    def _fail(self, error: errors.GatewayError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._arrived.fire()


def _cause(error: httptools.HttpParserError) -> errors.GatewayError:
    """A refusal raised inside a callback, which the parser wraps, or the parser's own."""
    cause = error.__context__
    return (
        cause
        if isinstance(cause, errors.GatewayError)
        else errors.UpstreamError(f"The upstream's answer is not HTTP: {error}")
    )
