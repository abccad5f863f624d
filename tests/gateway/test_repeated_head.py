"""A head that comes again is read without the parser: only where it says byte for byte what the parsed one said."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.repeated_head import learn

LINES = st.lists(
    st.sampled_from([b"Host: x", b"accept: */*", b"authorization: Bearer k", b"x: content-length: 9"]), max_size=4
)
BODIES = st.binary(max_size=200)


def segment(before: list[bytes], after: list[bytes], body: bytes, length: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", *before, b"Content-Length: " + length, *after]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@given(LINES, LINES, BODIES, BODIES)
def test_the_next_body_is_found(before: list[bytes], after: list[bytes], first: bytes, second: bytes) -> None:
    """Whatever stands around the length, and whatever the bodies hold."""
    head = learn(segment(before, after, first, b"%d" % len(first)), len(first))
    assert head is not None
    assert head.body(segment(before, after, second, b"%d" % len(second))) == second


@given(LINES, BODIES, st.data())
def test_any_other_segment_is_left_to_the_parser(lines: list[bytes], body: bytes, data: st.DataObject) -> None:
    """One byte of the head changed, added or lost, a body too long or too short, two requests in one segment."""
    known = segment(lines, [b"x-last: 1"], body, b"%d" % len(body))
    head = learn(known, len(body))
    assert head is not None
    end = known.index(b"\r\n\r\n") + 4
    at = data.draw(st.integers(0, end - 1))
    byte = data.draw(st.binary(min_size=1, max_size=2))
    digits = re.search(rb"Content-Length: (\d+)\r", known)
    assert digits is not None
    for changed in (known[:at] + byte + known[at + 1 :], known[:at] + byte + known[at:], known[:at] + known[at + 1 :]):
        found = head.body(changed)
        if changed != known and found is not None:  # then it was the digits, and they are right
            again = re.search(rb"Content-Length: (\d+)\r", changed)
            assert again is not None
            assert int(again[1]) == len(found)
            assert changed[: again.start(1)] == known[: digits.start(1)]
    assert head.body(known + b"x") is None
    assert head.body(known * 2) is None
    assert not body or head.body(known[:-1]) is None


def test_odd_lengths_are_left_to_the_parser() -> None:
    """What `int` takes and HTTP does not."""
    head = learn(segment([], [], b"12345", b"5"), 5)
    assert head is not None
    for odd in (
        b"+5",
        b"5 ",
        b" 5",
        b"5_",
        b"",
        b"0x5",
        b"5, 5",
        b"-5",
        b"1_0",
        b"\t5",
        b"5\t",
        b"\x0b5",
        "\u0665".encode(),
    ):
        assert head.body(segment([], [], b"12345", odd)) is None


def test_a_segment_with_more_than_one_message_teaches_nothing() -> None:
    """And one without a length neither."""
    one = segment([], [], b"12345", b"5")
    assert learn(one + one, 5) is None
    assert learn(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 0) is None


def test_zeros_before_a_length_are_read_as_the_parser_reads_them() -> None:
    """RFC 9110 8.6 allows any digits; more than fifteen are left to the parser."""
    head = learn(segment([], [], b"12345", b"5"), 5)
    assert head is not None
    assert head.body(segment([], [], b"12345", b"005")) == b"12345"
    assert head.body(segment([], [], b"12345", b"5".zfill(15))) == b"12345"
    assert head.body(segment([], [], b"12345", b"5".zfill(16))) is None


@given(LINES, BODIES)
def test_a_body_that_looks_like_the_rest_of_the_head_is_a_body(after: list[bytes], noise: bytes) -> None:
    """The first end of the head counts, also where the body repeats it, digits and all."""
    head = learn(segment([], after, b"12345", b"5"), 5)
    assert head is not None
    rest = b"".join(b"\r\n" + line for line in after) + b"\r\n\r\n"
    for body in (rest, b"5" + rest, rest + noise, noise + rest + rest, b"12" + rest + b"12345"):
        whole = segment([], after, body, b"%d" % len(body))
        assert head.body(whole) == body
        assert all(head.body(whole[:cut]) is None for cut in range(len(whole)))
