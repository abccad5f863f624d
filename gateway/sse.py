"""Follows a stream of server-sent events (WHATWG HTML 9.2) from an OpenAI-style upstream: passes events on, remembers what matters.

Pure: bytes in, bytes out, under any split of the bytes. Every event is read by a small typed decoder (about 1 µs), which tells content,
finish, usage, errors and damage apart without guessing from substrings.
"""

from typing import final

import msgspec

from gateway import errors
from gateway.bodies import NULL, Usage
from gateway.sse_events import Chunk, OpeningChoice, OpeningChunk
from gateway.usage import from_openai
from gateway.used import Usage as CanonicalUsage
from gateway.wire import present, read_fault, without_usage

DAMAGED = "The upstream sent an event that is not the JSON it should be"
MAX_EVENT_BYTES = 4 * 1024 * 1024
FRAME_BYTES = 350  # of an event around its text, at most
BYTES_PER_TOKEN = 4
_CR, _LF = (
    b"\r\n"  # numbers: for bytes, `in` raises an exception and forgets it before it looks, which costs more than looking
)


_chunk = msgspec.json.Decoder(Chunk)
_opening = msgspec.json.Decoder(OpeningChunk)
_BROKEN = "error"  # a finish_reason of OpenRouter's, beside an error object or without one
_TEXT = b'"content":"'
# What stands for itself in a JSON string becomes an `a`, anything else a `-`: a table is read in half the time of a set of deletions.
_PLAIN_TEXT = bytes(b"-a"[0x20 <= code < 0x7F and code not in b'"\\'] for code in range(256))
_PLAIN = b"a" * 8192  # what a text looks like then; longer ones are read
_MOST_HEADS = 64  # of one stream, some 400 bytes each
_LESSONS = 3  # shapes of events that are learnt: a stream with more of them has something new in each
_Head = tuple[bytes, int, int]  # what a chunk begins with, the length of that, and the length of the event in it
_NO_HEAD: _Head = (b"\r", 0, 0)  # no chunk begins so
_EMPTY_VALUES = frozenset((b"null", b'""', b"[]", b"{}"))


@final
class ChatStream:
    """The state of one stream. `keep_usage`: the client asked for the usage chunk."""

    __slots__ = (
        "_bytes",
        "_choices",
        "_close",
        "_end",
        "_heads",
        "_keep_usage",
        "_kept",
        "_lessons",
        "_open",
        "_room",
        "_tail",
        "content",
        "done",
        "error",
        "finished",
        "usage",
    )

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._tail = b""
        self.content = False  # an event with content, a tool call or a finish was seen
        self.finished = False  # a finish_reason was seen
        self.done = False  # [DONE] was seen
        self._choices = 0  # events with choices: about one per token, with most servers
        self._bytes = 0  # of these
        self.usage: Usage | None = None
        self.error: errors.GatewayError | None = None
        # The last event with a text, up to that text and from its end on; and what a chunk with such an event begins with, by its length.
        self._open = self._close = b""
        self._end = 1  # as long as no shape is known: what `_NO_HEAD` begins with is then the text, and no plain one
        self._heads: dict[int, _Head] = {}
        self._lessons = 0
        self._kept: list[bytes] | None = None
        self._room = 0  # for more of that

    def keep(self, most_bytes: int) -> None:
        """From now on what comes is kept as well, unless it is more than that."""
        self._kept = []
        self._room = most_bytes

    @property
    def keeping(self) -> bool:
        return self._kept is not None

    @property
    def kept(self) -> bytes:
        """All of the stream; empty if that was not wanted, or too much."""
        return b"" if self._kept is None else b"".join(self._kept)

    @property
    def reported(self) -> CanonicalUsage | None:
        """What the upstream says it used."""
        return None if self.usage is None else from_openai(self.usage)

    @property
    def events(self) -> int:
        """Tokens that came, for a stream that says nothing of its usage: one an event, more where events are longer than their frame."""
        return max(self._choices, (self._bytes - FRAME_BYTES * self._choices) // BYTES_PER_TOKEN)

    @property
    def whole(self) -> bool:
        """Whether the answer ended as an answer should: either sign is enough, as some servers leave out the other."""
        return (self.finished or (self.done and self.content)) and self.error is None

    def feed(self, data: bytes) -> bytes:
        """What to pass on of `data`: complete events, without `[DONE]` and without usage that nobody asked for.

        After the first damaged or failed event, `error` is set and nothing more is passed on.
        """
        if self.error is not None:
            return b""
        if self._kept is not None:
            self._remember(self._kept, data)
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if _CR in data:
            data = self._unify(data)
        if self.content and data.startswith(b"data: {") and data.find(b"\n") == len(data) - 2 and self._plain(data):
            return data
        if not data.endswith(b"\n\n"):
            cut = data.rfind(b"\n\n") + 2
            if cut == 1:
                self._keep(data)
                return b""
            self._keep(data[cut:])
            data = data[:cut]
        out = [passed + b"\n\n" for event in data.split(b"\n\n") if event and (passed := self._passed(event))]
        return out[0] if len(out) == 1 else b"".join(out)

    def _remember(self, kept: list[bytes], data: bytes) -> None:
        kept.append(data)
        self._room -= len(data)
        if self._room < 0:
            self._kept = None

    def passes(self, chunk: bytes) -> bool:
        """Whether `chunk`, framed as RFC 9112 7.1 has it, holds one event that differs from a former one by plain text alone, and so goes
        on as it is. Then it is noted, and nobody has to read it: nothing else but its text can be new in it. Otherwise `feed` is to.
        """
        size = len(chunk)
        head, start, length = self._heads.get(size) or self._head(size)
        if not (chunk.startswith(head) and chunk.endswith(self._close)) or self._tail or self.done or self.error:
            return False
        text = chunk[start : self._end].translate(_PLAIN_TEXT)
        if text != _PLAIN[: len(text)]:
            return False
        self._choices += 1
        self._bytes += length
        return True

    def close(self) -> bytes:
        """The end of the body: an event that only lacks its empty line still counts."""
        if not self._tail.strip():
            return b""
        return self.feed(b"\n\n")

    def _keep(self, tail: bytes) -> None:
        self._tail = tail + self._tail  # a CR that waits stands behind what came before it
        if len(self._tail) > MAX_EVENT_BYTES:
            self.error = errors.UpstreamError(f"The upstream sent an event of more than {MAX_EVENT_BYTES} bytes")

    def _unify(self, data: bytes) -> bytes:
        """CRLF and CR to LF. A CR at the end may be half of a CRLF and waits for what follows."""
        if data.endswith(b"\r"):
            self._tail = b"\r"
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _plain(self, data: bytes) -> bool:
        """Whether this is one event of one line that goes on as it is, which is then noted: what nearly every piece of a stream is."""
        if self.done or not data.endswith(b"\n"):
            return False
        try:
            chunk = _chunk.decode(data[6:-2])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        if chunk.usage is not None or chunk.error is not NULL:
            return False
        if chunk.choices:
            for choice in chunk.choices:
                if choice.finish_reason is not None:
                    if choice.finish_reason == _BROKEN:
                        return False  # `_read` says so
                    self.finished = True
            self._choices += 1
            self._bytes += len(data)
            if self._lessons < _LESSONS and not self.finished:
                self._learn(data)
        return True

    def _learn(self, event: bytes) -> None:
        """The shape of a plain event. Between its opening and its end another text changes nothing that is looked for in it."""
        start = event.find(_TEXT) + len(_TEXT)
        end = event.find(b'"', start)
        if start < len(_TEXT) or b"\\" in event[start:end] or event.find(_TEXT, end) >= 0:
            return
        opening, closing = event[:start], event[end:] + b"\r\n"
        if (opening, closing) != (self._open, self._close):
            self._lessons += 1
            self._open, self._close, self._end = opening, closing, -len(closing)
            self._heads = {}

    def _head(self, size: int) -> _Head:
        """What a chunk of `size` bytes, frame included, begins with if it holds an event of the known shape."""
        opening, known = self._open, _NO_HEAD
        if opening and size > 5 + len(opening):
            digits = len(b"%x" % (size - 5))
            length = size - 4 - digits
            if len(b"%x" % length) != digits:  # just below a power of 16
                digits, length = digits - 1, length + 1
            head = b"%x\r\n%b" % (length, opening)
            if len(head) == digits + 2 + len(opening) and length >= len(opening) + len(self._close) - 2:
                known = (head, len(head), length)
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[size] = known
        return known

    def _passed(self, event: bytes) -> bytes:
        """The event as the client gets it; empty if it does not."""
        if self.error is not None or self.done:
            return b""
        payload = event[6:] if event.startswith(b"data: ") and _LF not in event else _payload(event)
        if not payload:  # comments and bare fields: a heartbeat counts only once there is something to wait for
            return event if self.content else b""
        if payload == b"[DONE]":
            self.done = True
            return b""
        chunk = self._read(payload)
        if chunk is None:
            return b""
        if chunk.usage is None or self._keep_usage:
            return event
        return self._stripped(payload) if chunk.choices else b""

    def _stripped(self, payload: bytes) -> bytes:
        try:
            return b"data: " + without_usage(payload)
        except UnicodeDecodeError:
            self.error = errors.UpstreamError(DAMAGED)
            return b""

    def _read(self, payload: bytes) -> Chunk | OpeningChunk | None:
        """One event's object, noted; None if it is damaged or an error, which is then in `error`."""
        try:
            chunk = _chunk.decode(payload) if self.content else _opening.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return None
        if present(chunk.error):
            fault = read_fault(payload)
            self.error = errors.UpstreamFailed(fault.message or "The upstream reported an error inside its stream")
            return None
        if any(choice.finish_reason == _BROKEN for choice in chunk.choices):
            self.error = errors.UpstreamFailed("The upstream broke its answer off with an error")
            return None
        self._note(chunk, len(payload))
        return chunk

    def _note(self, chunk: Chunk | OpeningChunk, size: int) -> None:
        if chunk.usage is not None:
            self.usage = chunk.usage
        choices = chunk.choices
        if not choices:
            return
        self._choices += 1
        self._bytes += size
        for choice in choices:
            if choice.finish_reason is not None:
                self.finished = True
                self.content = True
            elif not self.content and isinstance(choice, OpeningChoice):
                self.content = _says_something(choice)


def _says_something(choice: OpeningChoice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and any(
        name != "role" and bytes(value) not in _EMPTY_VALUES for name, value in delta.items()
    )


def _payload(event: bytes) -> bytes:
    """The data of an event with several lines: `data` lines joined by LF, other fields and comments left out."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
