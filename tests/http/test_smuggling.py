"""Requests that two servers could read in two ways are refused and the connection is closed (RFC 9112 11.2)."""

import pytest

from tests.fixtures.raw import Raw, chat, whole
from tests.fixtures.server import Server

POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
CHUNKED = POST + HOST + b"transfer-encoding: chunked\r\n\r\n"

SHAPES = {
    "length and chunks": POST + HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and length": POST + HOST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" + CHUNKS,
    "chunks and length zero": POST + HOST + b"transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n" + CHUNKS,
    "two lengths": POST + HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "the same length twice": POST + HOST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": POST + HOST + b"content-length: 5, 5\r\n\r\nhello",
    "an unknown coding": POST + HOST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked, then identity": POST + HOST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "identity, then chunked": POST + HOST + b"transfer-encoding: identity, chunked\r\n\r\n" + CHUNKS,
    "gzip, then chunked": POST + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked twice": POST + HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "an empty coding": POST + HOST + b"transfer-encoding:\r\n\r\n" + CHUNKS,
    "a space before the colon": POST + HOST + b"content-length : 5\r\n\r\nhello",
    "a tab before the colon": POST + HOST + b"transfer-encoding\t: chunked\r\n\r\n" + CHUNKS,
    "a folded line": POST + HOST + b"x-a: 1\r\n folded\r\ncontent-length: 5\r\n\r\nhello",
    "a line that starts with a space": POST + b" host: x\r\ncontent-length: 5\r\n\r\nhello",
    "a bare LF between lines": POST + HOST + b"x-a: 1\ncontent-length: 5\r\n\r\nhello",
    "a bare LF after the first line": b"POST /v1/chat/completions HTTP/1.1\n" + HOST + b"\r\n",
    "a bare CR in a value": POST + HOST + b"x-a: 1\rcontent-length: 5\r\n\r\nhello",
    "a NUL in a value": POST + HOST + b"x-a: a\x00b\r\n\r\n",
    "a NUL in a name": POST + HOST + b"x\x00a: b\r\n\r\n",
    "a control character in a value": POST + HOST + b"x-a: a\x07b\r\n\r\n",
    "a plus sign": POST + HOST + b"content-length: +5\r\n\r\nhello",
    "a hexadecimal length": POST + HOST + b"content-length: 0x5\r\n\r\nhello",
    "a negative length": POST + HOST + b"content-length: -5\r\n\r\nhello",
    "an empty length": POST + HOST + b"content-length:\r\n\r\nhello",
    "a length beyond 64 bits": POST + HOST + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "a length in other digits": POST + HOST + "content-length: \u0665\r\n\r\nhello".encode(),
    "spaces in a chunk size": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "a sign in a chunk size": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a prefix in a chunk size": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "no line end behind a chunk": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "a bare LF behind a chunk size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "a bare LF in a chunk extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a NUL in a trailer": CHUNKED + b"5\r\nhello\r\n0\r\nx: \x00\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /v1/chat/completions HTTP/1.0\r\n"
    + HOST
    + b"transfer-encoding: chunked\r\n\r\n"
    + CHUNKS,
    "no host": POST + b"content-length: 5\r\n\r\nhello",
    "two hosts": POST + HOST + HOST + b"content-length: 5\r\n\r\nhello",
    "a space in the target": b"POST /v1/chat completions HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"POST /v1/chat/completions\r\n" + HOST + b"\r\n",
    "another version": b"POST /v1/chat/completions HTTP/3.0\r\n" + HOST + b"\r\n",
    "an old version": b"POST /v1/chat/completions HTTP/0.9\r\n" + HOST + b"\r\n",
    "a version with other framing": b"POST /v1/chat/completions HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2 unasked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW /v1/chat/completions HTTP/1.1\r\n" + HOST + b"\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_closed(server: Server, shape: str) -> None:
    """A 400 in the usual shape, nothing of what follows is taken for a request, and the connection ends."""
    with Raw(server) as raw:
        reply = raw.send(SHAPES[shape]).reply()
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert reply.code == "bad_request"
        assert raw.closed()


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_behind_a_refused_request_is_answered(server: Server, shape: str) -> None:
    """A good request before it still gets its answer, a good one behind it gets none."""
    good = whole(server, chat(server))
    with Raw(server) as raw:
        raw.send(good + SHAPES[shape] + good)
        assert raw.reply().status == 200
        assert raw.reply().status == 400
        assert raw.closed()
