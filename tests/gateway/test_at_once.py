"""The upstream connection's short cut reads only what the parser would have read in the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import UpstreamConnection
from tests.fixtures.origin import nowhere

BODY = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'


def connection() -> UpstreamConnection:
    made = UpstreamConnection(nowhere())
    made.busy = True
    made._whole = True
    return made


def answer(*lines: bytes, body: bytes = BODY, length: int | None = None) -> bytes:
    counted = len(body) if length is None else length
    head = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % counted))
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-Length"])
def test_a_plain_answer_is_read_at_once(name: bytes) -> None:
    """One segment, a 200, a length: complete without the parser, which stays at the start of a message."""
    one = connection()
    one.data_received(answer(b"Server: x", b"Connection: keep-alive").replace(b"Content-Length", name))
    assert (one.complete, one.status, one.collected()) == (True, 200, BODY)


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"Content-Encoding: gzip",
        b"Connection: close",
        b"Connection: Close",
        b"Content-Length: 7",
        b"X-Folded: a\r\n b",
    ],
)
def test_whatever_is_not_plain_is_left_to_the_parser(line: bytes) -> None:
    """Framing that two readers could read in two ways is never guessed at."""
    assert not connection()._at_once(answer(line))


@pytest.mark.parametrize("length", [0, len(BODY) - 1, len(BODY) + 1])
def test_a_length_that_does_not_fit_is_left_to_the_parser(length: int) -> None:
    """More to come, or more than asked for: both are the parser's to judge."""
    assert not connection()._at_once(answer(length=length))


@given(
    st.lists(st.sampled_from([b"Server: a", b"X-Strength: 3", b"x-length: 9", b"Date: now", b"Vary: *"]), max_size=4)
)
def test_the_short_cut_and_the_parser_agree(lines: list[bytes]) -> None:
    """Whatever it accepts, the parser reads to the same status and body."""
    data = answer(*lines)
    short, long = connection(), connection()
    if short._at_once(data):
        long._received = 1  # past its first byte: the parser's turn
        long.data_received(data)
        assert (long.complete, long.status, long.collected()) == (short.complete, short.status, short.collected())
