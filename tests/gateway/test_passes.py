"""A chunk that goes on unread is one that would have gone on read, and leaves the same books."""

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.sse import ChatStream

SHAPES = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]}\n\n',
    b'data: {"id":"c","choices":[{"index":1,"delta":{"content":"%b"},"finish_reason":null}]}\n\n',
    b'data: {"id":"c","choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"c","choices":[{"delta":{"content":"%b"}}],"usage":{"completion_tokens":3}}\n\n',
    b'data: {"id":"c","choices":[{"delta":{"content":"%b","x":{"content":"y"}}}]}\n\n',
    b'data: {"id":"c","error":{"message":"no"},"choices":[{"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","note":"%b"}\n\n',
    b": %b\n\n",
    b"data: [DONE]\n\n",
)
TEXTS = st.one_of(
    st.sampled_from(
        (
            b" word",
            b"",
            b"a" * 300,
            b'\\"',
            b'"',
            b"\\",
            b"\n\n",
            b"\r",
            b"\xc3\xa9",
            b"\xc3",
            b'","usage":{}',
            b"\x7f",
            b"\t",
        )
    ),
    st.binary(max_size=12),
)
EVENTS = st.lists(st.tuples(st.sampled_from(SHAPES), TEXTS), max_size=12)
OPENING = SHAPES[0] % b"Once"


def said(shape: bytes, text: bytes) -> bytes:
    return shape.replace(b"%b", text)


def state(stream: ChatStream) -> tuple[object, ...]:
    return stream.events, stream.content, stream.finished, stream.done, stream.whole, str(stream.error), stream.reported


@given(EVENTS)
@example([(SHAPES[0], text) for text in (b"a", b"b", b'"}', b"c\n\n", b"d")])
def test_it_makes_no_difference_whether_a_chunk_was_read(events: list[tuple[bytes, bytes]]) -> None:
    """Against the same stream where every byte is read."""
    quick, read = ChatStream(keep_usage=False), ChatStream(keep_usage=False)
    for event in (OPENING, OPENING, *(said(shape, text) for shape, text in events)):
        expected = read.feed(event)
        out = event if quick.passes(b"%x\r\n%b\r\n" % (len(event), event)) else quick.feed(event)
        assert out == expected
        assert state(quick) == state(read)
    assert quick.close() == read.close()


@given(
    st.integers(0, 400),
    st.sampled_from(
        (b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"0%x\r\n%b\r\n", b"%x;a=b\r\n%b\r\n", b"%x\n%b\r\n", b"%x\r\n%b\r")
    ),
    st.integers(-2, 2),
)
def test_only_a_chunk_that_is_whole_and_nothing_else_goes_on_unread(size: int, frame: bytes, wrong: int) -> None:
    """A length that lies, two digits more, an extension: the parser has to see them."""
    stream = ChatStream(keep_usage=False)
    stream.feed(OPENING)
    stream.feed(OPENING)
    event = said(SHAPES[0], b"x" * size)
    chunk = frame.replace(b"%b", event) % (len(event) + wrong)
    assert stream.passes(chunk) == (chunk == b"%x\r\n%b\r\n" % (len(event), event))


def test_most_of_an_ordinary_stream_is_not_read() -> None:
    """The opening and two events teach what the others look like."""
    stream = ChatStream(keep_usage=False)
    unread = 0
    for number in range(50):
        event = said(SHAPES[0], b" word%d" % number)
        if stream.passes(b"%x\r\n%b\r\n" % (len(event), event)):
            unread += 1
        else:
            assert stream.feed(event) == event
    assert unread == 48
    assert stream.events == 50


def test_half_an_event_is_waited_for() -> None:
    """What follows it belongs to it, whatever it looks like."""
    stream = ChatStream(keep_usage=False)
    stream.feed(OPENING)
    stream.feed(OPENING)
    stream.feed(b"data: {")
    event = said(SHAPES[0], b"x")
    assert not stream.passes(b"%x\r\n%b\r\n" % (len(event), event))


def test_half_a_line_end_is_waited_for() -> None:
    """A CR at the end of a piece may be one of a CRLF."""
    stream = ChatStream(keep_usage=False)
    stream.feed(OPENING)
    stream.feed(OPENING)
    event = said(SHAPES[0], b"x")
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    assert stream.passes(chunk)
    assert stream.feed(event + b"\r") == event
    assert not stream.passes(chunk)


def test_nothing_goes_on_unread_before_there_is_an_event_to_compare_it_with() -> None:
    """Whatever it begins with."""
    stream = ChatStream(keep_usage=False)
    stream.feed(OPENING)
    assert not any(stream.passes(segment) for segment in (b"\r", b"\r\n", b"\rdata", b"", b"x"))
