"""Following a stream gives the same under any split of its bytes."""

import pytest

from gateway.sse import ChatStream

STREAM = (
    b": hello\n\n"
    b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}\n\n'
    b'event: x\ndata: {"choices":[{"delta":{"content":"a\\n\\nb"},"finish_reason":null}]}\n\n'
    b": still here\n\n"
    b'data: {"choices":[{"delta":{"content":"c"},"finish_reason":null}],"usage":{"completion_tokens":1}}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("keep_usage", [False, True])
def test_the_split_of_a_stream_changes_nothing(line_end: bytes, keep_usage: bool) -> None:
    """Every size of piece from one byte on, for each of the three line ends that the format allows."""
    data = STREAM.replace(b"\n", line_end)
    whole = ChatStream(keep_usage=keep_usage)
    expected = whole.feed(data) + whole.close()
    for size in range(1, len(data)):
        stream = ChatStream(keep_usage=keep_usage)
        pieces = [stream.feed(data[start : start + size]) for start in range(0, len(data), size)]
        assert b"".join(pieces) + stream.close() == expected
        assert stream.done
        assert stream.whole
        assert stream.events == 4
        assert stream.usage is not None
        assert stream.usage.completion_tokens == 2


def test_usage_that_nobody_asked_for_is_taken_out_wherever_it_stands() -> None:
    """A chunk of its own goes whole; from one with choices only the usage goes."""
    stream = ChatStream(keep_usage=False)
    out = stream.feed(STREAM)
    assert b"completion_tokens" not in out
    assert b'"content":"c"' in out
    assert ChatStream(keep_usage=True).feed(STREAM).count(b"completion_tokens") == 2


def test_a_damaged_name_beside_usage_is_a_damaged_event() -> None:
    """Taking the usage out must read every name."""
    stream = ChatStream(keep_usage=False)
    event = b'data: {"\x80":1,"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}\n\n'
    assert stream.feed(event) == b""
    assert stream.error is not None


def test_long_events_count_for_more_than_a_token() -> None:
    """Servers that put much into an event say no more of it when they break off."""
    stream = ChatStream(keep_usage=False)
    text = "word " * 800
    for _ in range(3):
        stream.feed(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode())
    assert 2400 <= stream.events <= 3000
    assert stream.usage is None


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_is_broken_off_with_an_error_is_not_whole(begun: bool) -> None:
    """OpenRouter's finish_reason, without the error object that it usually comes with; also where another choice has ended well."""
    stream = ChatStream(keep_usage=False)
    if begun:
        assert stream.feed(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n')
    broken = b'data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"error"}]}\n\n'
    assert stream.feed(broken + b"data: [DONE]\n\n") == b""
    assert stream.error is not None
    assert not stream.whole
