"""Follows a stream of server-sent events that goes on as it came: whole events, byte for byte, with what matters remembered.

Speech, transcripts and pictures come as events with a `type`; some compatible servers stream a transcript in the shape of a chat.
"""

import re
from collections.abc import Callable
from typing import Final, final

import msgspec

from gateway import errors
from gateway.bodies import NULL
from gateway.used import Usage
from gateway.wire import present, read_fault

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024  # a picture in base64
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
DAMAGED: Final = "The upstream sent an event that is not the JSON it should be"

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r(?!\n)")
_LINE = re.compile(rb"\r\n|\n|\r")


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    choices: list[_Choice] = []
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL


_event = msgspec.json.Decoder(_Event)


@final
class Events:
    """The state of one stream. `read_usage` says what an event's `usage` means."""

    def __init__(self, read_usage: Callable[[msgspec.Raw], Usage | None]) -> None:
        self.content_type = EVENT_STREAM
        self.received = 0
        self._read_usage = read_usage
        self._waiting = bytearray()
        self._searched = 0
        self.content = False  # an event was seen that is no error
        self.whole = False  # one said that it is the last of its kind
        self.usage: Usage | None = None
        self.error: errors.GatewayError | None = None

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes. After the first damaged or failed one `error` is set, and nothing more comes out."""
        if self.error is not None:
            return b""
        waiting = self._waiting
        waiting += data
        last = passed = 0
        for end in _END.finditer(waiting, max(0, self._searched - 3)):
            if not self._note(bytes(waiting[last : end.start()])):
                break
            last = passed = end.end()
        out = bytes(waiting[:passed])
        del waiting[:passed]
        self._searched = len(waiting)
        if self.error is None and len(waiting) > MAX_EVENT_BYTES:
            self.error = errors.UpstreamError(f"The upstream sent an event of more than {MAX_EVENT_BYTES} bytes")
        return out

    def close(self) -> bytes:
        """The end of the body: an event that only lacks its empty line still counts."""
        return self.feed(b"\n\n") if bytes(self._waiting).strip() else b""

    def _note(self, event: bytes) -> bool:
        """Whether the event may go on."""
        payload = b"\n".join(line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:"))
        if not payload:
            return True
        if payload == b"[DONE]":
            self.whole = self.whole or self.content
            return True
        try:
            read = _event.decode(payload)
            used = self._read_usage(read.usage) if present(read.usage) else None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return False
        except errors.GatewayError as error:
            self.error = error
            return False
        if present(read.error) or read.type == "error":
            fault = read_fault(payload)
            self.error = errors.UpstreamFailed(fault.message or "The upstream reported an error inside its stream")
            return False
        self.content = True
        self.whole = self.whole or _last(read)
        if used is not None:  # several pictures of one call each say what they took
            self.usage = used if self.usage is None else self.usage + used
        return True


def _last(event: _Event) -> bool:
    named = event.type or ""
    return named.endswith((".done", ".completed")) or any(choice.finish_reason is not None for choice in event.choices)
