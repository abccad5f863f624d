"""Follows a stream of Gemini's that goes on as it is, as events or as the array that the API sends to who asks for no events."""

from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.dialects.events import EventReader
from gateway.dialects.gemini_faults import failed
from gateway.units.events import DAMAGED, EVENT_STREAM, MAX_EVENT_BYTES
from gateway.usage import from_gemini
from gateway.usage_reports import GeminiUsage
from gateway.used import Usage
from gateway.wire import present

BYTES_PER_TOKEN: Final = 4


class _Part(msgspec.Struct, gc=False):
    text: str | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: Raw = NULL
    usage_metadata: GeminiUsage | None = None
    error: Raw = NULL


_event: Final = msgspec.json.Decoder(_Event)


@final
class GeminiEvents:
    """The state of one stream; the upstream is always asked for events. See `gateway.units.door.Follower`."""

    def __init__(self, *, as_array: bool) -> None:
        self.content_type = b"application/json; charset=UTF-8" if as_array else EVENT_STREAM
        self._as_array = as_array
        self._reader = EventReader(MAX_EVENT_BYTES)
        self._report: GeminiUsage | None = None
        self._closed = False
        self.content = False
        self.whole = False
        self.received = 0
        self.error: errors.GatewayError | None = None

    @property
    def usage(self) -> Usage | None:
        """Until the end is there, what has come counts: reports in the midst of an answer may leave it out."""
        report = self._report
        if report is None:
            return None
        said = (report.candidates_token_count or 0) + (report.thoughts_token_count or 0)
        if not self.whole and said < self.received:
            report = msgspec.structs.replace(report, candidates_token_count=self.received, thoughts_token_count=0)
        return from_gemini(report)

    def feed(self, data: bytes) -> bytes:
        if self.error is not None:
            return b""
        try:
            payloads = self._reader.feed(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join([self._passed(payload) for payload in payloads])

    def close(self) -> bytes:
        """The end of the body: an event that only lacks its empty line still counts."""
        last = self.feed(b"\n\n")
        if self._as_array and self.whole and self.error is None and not self._closed:
            self._closed = True
            last += b"]"
        return last

    def _passed(self, payload: bytes) -> bytes:
        if self.error is not None:
            return b""
        try:
            read = _event.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return b""
        if present(read.error):
            self.error = failed(payload)
            return b""
        first = not self.content
        self._note(read)
        if self._as_array:
            return (b"[" if first else b",\n") + payload
        return b"data: %b\n\n" % payload

    def _note(self, read: _Event) -> None:
        self.content = True
        if read.usage_metadata is not None:
            self._report = read.usage_metadata
        if present(read.prompt_feedback) and b'"blockReason"' in bytes(read.prompt_feedback):
            self.whole = True
        for candidate in read.candidates or ():
            parts = (candidate.content.parts or ()) if candidate.content is not None else ()
            self.received += sum(max(1, len(part.text or "") // BYTES_PER_TOKEN) for part in parts)
            self.whole = self.whole or candidate.finish_reason is not None
