"""Sends an answer the way a script wants it: when, in which pieces and segments, framed how, broken off where."""

import asyncio
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from itertools import pairwise
from typing import Protocol

from tests.upstream.answer import Answer, Piece
from tests.upstream.behaviour import Behaviour, Casing
from tests.upstream.journal import Entry

CUT_OFF_JSON = b'data: {"id":"chatcmpl-scripted","choices":[{"ind\n\n'


class Output(Protocol):
    """The connection that an answer goes out on."""

    async def put(self, data: bytes) -> None:
        """Writes and waits until the client takes more."""

    async def let_go(self) -> None:
        """Returns once the script of this answer has been let go."""

    def close(self) -> None: ...

    def reset(self) -> None: ...


async def send(answer: Answer, behaviour: Behaviour, output: Output, entry: Entry, *, old: bool, gzip: bool) -> None:
    """One whole answer. `old`: the client speaks HTTP/1.0; `gzip`: it accepts that encoding. Returns when the script is done."""
    await Reply(answer, behaviour, output, entry, old=old, gzip=gzip).run()


def quick(answer: Answer, entry: Entry | None) -> bytes:
    """A healthy plain answer in one piece of bytes: what most requests get, and the control routes, which have no entry."""
    piece = next(answer.pieces)
    if entry is not None:
        entry.pieces_sent, entry.completion_tokens, entry.prompt_tokens = 1, piece.tokens, answer.prompt_tokens
    head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (
        answer.status,
        _phrase(answer.status),
        answer.content_type.encode(),
        len(piece.data),
    )
    return head + piece.data


class Reply:
    """The state of one answer on its way."""

    def __init__(
        self, answer: Answer, behaviour: Behaviour, output: Output, entry: Entry, *, old: bool, gzip: bool
    ) -> None:
        self._answer = answer
        self._script = behaviour
        self._output = output
        self._entry = entry
        framing = behaviour.framing
        if framing == "auto":
            framing = "length" if not answer.streams else "close" if old else "chunked"
        self._framing = framing
        wanted = behaviour.gzip
        self._gzip = zlib.compressobj(wbits=31) if wanted == "always" or (wanted == "asked" and gzip) else None
        self._bodiless = answer.status in (204, 304)

    async def run(self) -> None:
        script = self._script
        await asyncio.sleep(script.headers_after_s)
        if script.held_after is not None and script.held_after < 0:
            await self._output.let_go()
        if script.fault != "none" and script.fault_after < 0:
            await self._break()
            return
        for status in script.interim:
            await self._put(b"HTTP/1.1 %d %b\r\nlink: </x>; rel=preload\r\n\r\n" % (status, _phrase(status)))
        if script.raw is not None:
            await self._put(script.raw.encode("latin-1"))
            self._close_if_asked()
            return
        pieces = self._pieces()
        length = None
        if self._framing == "length":
            kept = list(pieces)
            length = sum(len(piece.data) for piece in kept)
            pieces = iter(kept)
        head = self._head(length)
        if self._answer.streams:
            await self._put(head)
            head = b""
        self._entry.prompt_tokens = self._answer.prompt_tokens
        if await self._body(head, pieces):
            self._close_if_asked()

    def _close_if_asked(self) -> None:
        if not self._script.keep_alive or self._framing == "close" or self._script.length_excess:
            self._output.close()

    async def _body(self, head: bytes, pieces: Iterator[Piece]) -> bool:
        """Sends head and pieces; False if the script broke it off."""
        script, entry = self._script, self._entry
        waiting, count, tokens, talked, number = head, 0, 0, False, 0
        for number, piece in enumerate(pieces, 1):  # the count is needed behind the loop
            if script.fault != "none" and number - 1 == script.fault_after:
                await self._put(waiting)
                return await self._break()
            if number - 1 == script.held_after:
                await self._output.let_go()
            if piece.content and not talked:
                talked = True
                await asyncio.sleep(script.first_token_after_s)
            elif number > 1 and script.gap_s:
                await asyncio.sleep(script.gap_s)
            waiting += self._framed(piece.data)
            count += 1
            tokens += piece.tokens
            if count >= script.join:
                await self._put(waiting)
                entry.pieces_sent += count
                entry.completion_tokens += tokens
                waiting, count, tokens = b"", 0, 0
        entry.pieces_sent += count
        entry.completion_tokens += tokens
        if script.fault != "none" and script.fault_after >= number:
            await self._put(waiting)
            return await self._break()
        await self._put(waiting + self._end())
        return True

    async def _break(self) -> bool:
        """What goes wrong. True if the answer ends in an orderly way all the same."""
        entry = self._entry
        match self._script.fault:
            case "silence":
                await asyncio.Event().wait()
            case "fin":
                entry.outcome = "broken"
                self._output.close()
            case "rst":
                entry.outcome = "broken"
                self._output.reset()
            case "bad_json_event":
                await self._put(self._framed(CUT_OFF_JSON) + self._end())
                return True
            case "bad_framing":
                entry.outcome = "broken"
                await self._put(b"zz\r\nnot a chunk\r\n")
            case "error_event":
                await self._put(self._framed(self._answer.error_event) + self._end())
                return True
            case "none":
                return True
        return False

    def _pieces(self) -> Iterator[Piece]:
        script = self._script
        pieces: Iterator[Piece] = iter(()) if self._bodiless else self._answer.pieces
        if script.crlf:
            pieces = (piece._replace(data=piece.data.replace(b"\n", b"\r\n")) for piece in pieces)
        if script.splits:
            pieces = _cut(pieces, script.splits)
        packer = self._gzip
        if packer is not None:
            pieces = _packed(pieces, packer)
        return pieces

    def _head(self, length: int | None) -> bytes:
        answer, script = self._answer, self._script
        lines: list[tuple[str, str]] = []
        kind = answer.content_type if script.content_type is None else script.content_type
        if kind and not self._bodiless:
            lines.append(("content-type", kind))
        if self._gzip is not None:
            lines.append(("content-encoding", "gzip"))
        if self._bodiless:
            pass
        elif length is not None:
            lines.append(("content-length", str(length + script.length_excess)))
        elif self._framing == "chunked":
            lines.append(("transfer-encoding", "chunked"))
        if script.trailers:
            lines.append(("trailer", ", ".join(name for name, _ in script.trailers)))
        if not script.keep_alive or self._framing == "close":
            lines.append(("connection", "close"))
        lines.extend(script.headers)
        head = b"HTTP/1.1 %d %b\r\n" % (answer.status, _phrase(answer.status))
        return head + b"".join(_line(name, value, script.casing) for name, value in lines) + b"\r\n"

    def _framed(self, data: bytes) -> bytes:
        if self._framing != "chunked" or self._bodiless or not data:
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)

    def _end(self) -> bytes:
        if self._framing != "chunked" or self._bodiless:
            return b""
        return b"0\r\n" + b"".join(_line(*trailer, self._script.casing) for trailer in self._script.trailers) + b"\r\n"

    async def _put(self, data: bytes) -> None:
        if not data:
            return
        size = self._script.segment_bytes or len(data)
        for start in range(0, len(data), size):
            segment = data[start : start + size]
            await self._output.put(segment)
            self._entry.bytes_sent += len(segment)
            if self._script.segment_bytes:
                await asyncio.sleep(self._script.segment_gap_s)


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status in HTTPStatus._value2member_map_ else b"Scripted"


def _line(name: str, value: str, casing: Casing) -> bytes:
    return f"{_cased(name, casing)}: {value}\r\n".encode("latin-1")


def _cased(name: str, casing: Casing) -> str:
    match casing:
        case "lower":
            return name
        case "title":
            return name.title()
        case "upper":
            return name.upper()
        case "odd":
            return "".join(char.upper() if index % 2 else char for index, char in enumerate(name))


def _cut(pieces: Iterator[Piece], offsets: tuple[int, ...]) -> Iterator[Piece]:
    """The same bytes, cut elsewhere; all tokens count once the last piece has gone."""
    every = list(pieces)
    whole = b"".join(piece.data for piece in every)
    tokens = sum(piece.tokens for piece in every)
    edges = [0, *(offset for offset in offsets if 0 < offset < len(whole)), len(whole)]
    for start, end in pairwise(edges):
        yield Piece(whole[start:end], tokens if end == len(whole) else 0)


def _packed(pieces: Iterator[Piece], packer: "zlib._Compress") -> Iterator[Piece]:
    for piece in pieces:
        yield piece._replace(data=packer.compress(piece.data) + packer.flush(zlib.Z_SYNC_FLUSH))
    yield Piece(packer.flush(), content=False)
