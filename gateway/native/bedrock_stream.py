"""Follows Bedrock's streams, whose frames go on as they came: Converse's, and those of `invoke`, whose chunks hold any model's events."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, final

import msgspec

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.dialects.anthropic_stream import merged, used_so_far
from gateway.dialects.failures import failed
from gateway.native.bedrock_usage import ConverseUsage, Metrics
from gateway.native.eventstream import Frame, Frames
from gateway.units.events import DAMAGED
from gateway.usage_reports import AnthropicUsage
from gateway.used import Usage

BYTES_PER_TOKEN: Final = 4
FRAME_BYTES: Final = 120  # of a delta around its text
_TYPES: Final[Mapping[str, str]] = {
    "throttlingException": "rate_limit_error",
    "serviceUnavailableException": "overloaded",
    "validationException": "invalid_request_error",
    "modelTimeoutException": "timeout_error",
}


class _Metadata(msgspec.Struct, gc=False):
    usage: ConverseUsage | None = None


class _Said(msgspec.Struct, gc=False):
    message: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    inner: bytes = msgspec.field(default=b"", name="bytes")  # base64, which the decoder takes off


class _Message(msgspec.Struct, gc=False):
    usage: AnthropicUsage | None = None


class _Event(msgspec.Struct, gc=False):
    """Anthropic's events, and what Bedrock puts into the last of any model's."""

    type: str = ""
    message: _Message | None = None
    usage: AnthropicUsage | None = None
    metrics: Metrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


_metadata: Final = msgspec.json.Decoder(_Metadata)
_said: Final = msgspec.json.Decoder(_Said)
_chunk: Final = msgspec.json.Decoder(_Chunk)
_event: Final = msgspec.json.Decoder(_Event)


class _FrameEvents(ABC):
    """What both have in common. See `gateway.units.door.Follower`."""

    def __init__(self) -> None:
        self.content_type = b"application/vnd.amazon.eventstream"
        self._frames = Frames()
        self.content = False
        self.whole = False
        self.received = 0
        self.error: errors.GatewayError | None = None

    @property
    @abstractmethod
    def usage(self) -> Usage | None:
        """What the stream says of its usage."""

    @abstractmethod
    def note(self, kind: str, payload: bytes) -> None:
        """One event. May raise what msgspec raises."""

    def feed(self, data: bytes) -> bytes:
        if self.error is not None:
            return b""
        passed = []
        try:
            for whole, frame in self._frames.feed(data):
                if not self._passes(frame):
                    break
                passed.append(whole)
        except errors.UpstreamError as error:
            self.error = error
        return b"".join(passed)

    def close(self) -> bytes:
        if self._frames.torn:
            self.whole = False
        return b""

    def _passes(self, frame: Frame) -> bool:
        headers = frame.headers
        if headers.get(":message-type", "event") != "event":
            self.error = _failed(headers, frame.payload)
            return False
        try:
            self.note(headers.get(":event-type", ""), frame.payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return False
        self.content = True
        return True


@final
class ConverseEvents(_FrameEvents):
    """`converse-stream`: the last event, `metadata`, has the usage."""

    _usage: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def note(self, kind: str, payload: bytes) -> None:
        match kind:
            case "contentBlockDelta":
                self.received += max(1, (len(payload) - FRAME_BYTES) // BYTES_PER_TOKEN)
            case "messageStop":
                self.whole = True
            case "metadata":
                report = _metadata.decode(payload).usage
                self._usage = None if report is None else report.used


@final
class InvokeEvents(_FrameEvents):
    """`invoke-with-response-stream`."""

    _report: AnthropicUsage | None = None
    _counted = False
    _metrics: Metrics | None = None

    @property
    def usage(self) -> Usage | None:
        """Anthropic's own report knows more than Bedrock's numbers."""
        if self._metrics is not None and not self._counted:
            return self._metrics.used
        return used_so_far(self._report, self.received, counted=self._counted)

    def note(self, kind: str, payload: bytes) -> None:
        if kind != "chunk":
            return
        inner = _chunk.decode(payload).inner
        read = _event.decode(inner)
        if read.metrics is not None:
            self._metrics = read.metrics
        if read.type == "message_start" and read.message is not None:
            self._report = read.message.usage
        elif read.type == "message_delta" and read.usage is not None:
            self._report = merged(self._report, read.usage)
            self._counted = read.usage.output_tokens is not None
        elif read.type in {"", "content_block_delta", "completion"}:
            self.received += max(1, (len(inner) - FRAME_BYTES) // BYTES_PER_TOKEN)
        self.whole = self.whole or read.metrics is not None or read.type == "message_stop"


def _failed(headers: Mapping[str, str], payload: bytes) -> errors.GatewayError:
    name = headers.get(":exception-type") or headers.get(":error-code") or ""
    try:
        message = _said.decode(payload).message
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        message = None
    said = message or headers.get(":error-message") or name
    return failed(UpstreamFault(said, _TYPES.get(name)), "The upstream reported an error inside its stream")
