"""What a scripted upstream does with one request: when it answers, what it says, what it looks like on the wire, what breaks.

Every field has a default that stands for "as a healthy server would"; a script names only what it changes.
"""

from typing import Literal

import msgspec

Usage = Literal["asked", "always", "with_choices", "cumulative", "absent"]
Framing = Literal["auto", "length", "chunked", "close"]
Casing = Literal["lower", "title", "upper", "odd"]
Fault = Literal[
    "none",
    "silence",  # nothing at all from this point on, the connection stays open
    "fin",  # the connection is closed in an orderly way
    "rst",  # the connection is reset
    "bad_json_event",  # an event whose data is cut-off JSON
    "bad_framing",  # a chunk size that is no number
    "error_event",  # an error object inside the stream, which then ends without [DONE]
]


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` is the JSON text that a model would write."""

    name: str
    arguments: str


class Behaviour(msgspec.Struct, frozen=True):
    """One answer. Times are seconds, sizes bytes; a stream's pieces are its events, any other body is one piece."""

    # When
    headers_after_s: float = 0.0
    first_token_after_s: float = 0.0
    gap_s: float = 0.0  # between two pieces
    held_after: int | None = None  # pieces (-1: before the head), until the script is let go
    idle_close_s: float | None = None  # closes the connection, unannounced, so long after the answer

    # What
    status: int = 200
    text: str | None = None  # default: `user|last user message`
    chunks: int | None = None  # content events of a stream (a plain answer has the same text)
    chunk_bytes: int = 0  # pads each content event of a stream with so many more bytes
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage = "asked"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None  # Anthropic's dialect
    reasoning_tokens: int | None = None
    thinking: str | None = None  # what Anthropic's and Gemini's dialects think before they speak
    done: bool = True  # whether a stream ends with [DONE]
    heartbeats: int = 0  # comment lines before the first event
    error_message: str = "scripted failure"
    error_type: str | None = None
    error_code: str | None = None
    error_param: str | None = None
    retry_delay: str | None = None  # Gemini says in the body how long to wait: "7s"
    body: str | None = None  # instead of the dialect's answer
    sound: bool = False  # a conversation answers with sound
    vad: bool = False  # a conversation answers by itself whoever falls silent
    unasked: bool = False  # a conversation begins with an answer that nobody asked for
    deaf: bool = False  # a conversation answers no pings and takes no cancellation
    by_token: bool = False  # sound and pictures are billed by the token, not by the unit
    pad_bytes: int = 0  # makes a plain answer's content so much longer

    # How it looks on the wire
    content_type: str | None = None  # "" leaves the header out
    headers: tuple[tuple[str, str], ...] = ()
    casing: Casing = "lower"
    framing: Framing = "auto"
    keep_alive: bool = True  # False announces and does a close
    interim: tuple[int, ...] = ()  # 1xx answers first
    trailers: tuple[tuple[str, str], ...] = ()
    gzip: Literal["never", "asked", "always"] = "never"
    crlf: bool = False  # SSE lines end in CRLF
    splits: tuple[int, ...] = ()  # cuts the whole body at these offsets instead of between events
    join: int = 1  # so many pieces per write
    segment_bytes: int = 0  # cuts what goes on the wire, head included, into writes of this size
    segment_gap_s: float = 0.0
    length_excess: int = 0  # promises so much more body than there is, then closes
    raw: str | None = None  # latin-1: the whole answer, head included

    # What breaks, and after how many pieces (-1: instead of the head)
    fault: Fault = "none"
    fault_after: int = -1


PLAIN = Behaviour()


class Script(msgspec.Struct, frozen=True):
    """Behaviours for the requests of one script id in order of arrival; the last one goes on for ever."""

    id: str
    behaviours: tuple[Behaviour, ...]
