"""The Messages API for clients that speak it themselves: their bytes go out with another name for the model, the answer's come back.

What passes is read for its usage, its errors and its end alone.
"""

from collections.abc import Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors, wire
from gateway.bodies import NULL, UpstreamFault
from gateway.dialect import NO_HEADERS, Outgoing, Stream
from gateway.dialects.anthropic_answer import Opening
from gateway.dialects.anthropic_faults import failed, fault
from gateway.dialects.anthropic_stream import BYTES_PER_TOKEN, DAMAGED, merged, used_so_far
from gateway.dialects.events import EventReader, payload
from gateway.usage import from_anthropic
from gateway.usage_reports import AnthropicUsage
from gateway.used import NOTHING, Usage

VERSION: Final = "2023-06-01"
PATHS: Final[Mapping[str, str]] = {"messages": "/messages", "count_tokens": "/messages/count_tokens"}
CARRIED: Final = (b"anthropic-version", b"anthropic-beta")
UNSIGNED: Final = "penstock-unsigned"  # stands for the signature of thoughts that another provider had
SEALED: Final = "penstock-sealed-"  # begins the data of those that it had under a seal of its own
_OURS: Final = b'"penstock-'

_SAY_NOTHING: Final = frozenset({"text", "thinking"})  # blocks that begin empty


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    usage: AnthropicUsage | None = None


class _Delta(msgspec.Struct, gc=False):
    """Of a block, or of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""


class _Event(msgspec.Struct, gc=False):
    """Any event. What is not there for its type is empty."""

    type: str
    message: Raw = NULL
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: AnthropicUsage | None = None


class _Thought(msgspec.Struct, gc=False):
    type: str = ""
    signature: str = ""
    data: str = ""


_event: Final = msgspec.json.Decoder(_Event)
_message: Final = msgspec.json.Decoder(_Message)
_opening: Final = msgspec.json.Decoder(Opening)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_turns: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_blocks: Final = msgspec.json.Decoder(list[Raw])
_thought: Final = msgspec.json.Decoder(_Thought)
_encode: Final = msgspec.json.Encoder().encode


@final
class AnthropicNative:
    """The key's line alone comes from here: the version and the betas are the client's."""

    endpoints: frozenset[str] = frozenset(PATHS)

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", api_key),) if api_key else ()

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:
        carried = {name.decode(): headers[name].decode("latin-1") for name in CARRIED if name in headers}
        for name, value in carried.items():
            if not value.isascii():
                raise errors.BadRequest(f"The header '{name}' has letters that are not ASCII", param=name)
        carried.setdefault("anthropic-version", VERSION)
        if _OURS in body:
            body = _signed_alone(body)
        return Outgoing(PATHS[endpoint], wire.rewrite(body, model, ask_usage=False), tuple(carried.items()))

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:  # noqa: ARG002  # it is passed on unread
        if endpoint == "count_tokens":
            wire.read_answer(body)
            return body, NOTHING
        try:
            message = _message.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise errors.UpstreamError(f"The upstream's answer is not the message it should be: {error}") from None
        if message.type == "error":
            raise failed(body)
        if message.type != "message":
            raise errors.UpstreamError("The upstream's answer is not a message")
        return body, None if message.usage is None else from_anthropic(message.usage)

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # as above
        return PassedMessages()

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:  # noqa: ARG002  # the body says it all
        return fault(body)


@final
class PassedMessages:
    """The state of one stream. Whole events go on as they came; without `message_stop` it is not whole, whatever else it said."""

    __slots__ = ("_counted", "_reader", "_usage", "content", "done", "error", "events")

    def __init__(self) -> None:
        self._reader = EventReader()
        self._usage: AnthropicUsage | None = None
        self._counted = False  # the provider has said what the answer took
        self.content = False
        self.done = False
        self.events = 0
        self.error: errors.GatewayError | None = None

    @property
    def reported(self) -> Usage | None:
        """See `used_so_far`."""
        return used_so_far(self._usage, self.events, counted=self._counted)

    @property
    def whole(self) -> bool:
        return self.done and self.error is None

    def feed(self, data: bytes) -> bytes:
        if self.error is not None or self.done:
            return b""
        try:
            events = self._reader.events(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join([event + b"\n\n" for event in events if self._passes(event)])

    def close(self) -> bytes:
        """An event that only lacks its empty line still counts."""
        return self.feed(b"\n\n")

    def _passes(self, event: bytes) -> bool:
        if self.error is not None or self.done:
            return False
        data = payload(event)
        if not data:
            return self.content
        try:
            self._read(_event.decode(data), data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
        return self.error is None

    def _read(self, event: _Event, data: bytes) -> None:
        match event.type:
            case "content_block_delta" if event.delta is not None:
                self._piece(event.delta)
            case "content_block_start" if event.content_block is not None:
                if event.content_block.type not in _SAY_NOTHING:
                    self.content = True
                    self.events += 1
            case "message_start":
                self._usage = _opening.decode(event.message).usage
            case "message_delta":
                self._end(event)
            case "message_stop":
                self.done = True
            case "error":
                self.error = failed(data)

    def _piece(self, delta: _Delta) -> None:
        """A signature or a citation has no text that is billed, but says something; an empty piece of text says nothing."""
        said = delta.text if delta.text is not None else delta.thinking
        said = said if said is not None else delta.partial_json
        if said != "":
            self.content = True
            self.events += max(1, len(said or "") // BYTES_PER_TOKEN)

    def _end(self, event: _Event) -> None:
        if event.usage is not None:
            self._usage = merged(self._usage, event.usage)
            self._counted = event.usage.output_tokens is not None
        if event.delta is not None and event.delta.stop_reason is not None:
            self.content = True


def _signed_alone(body: bytes) -> bytes:
    """The request less the thoughts that another provider had: nobody signed them, and Anthropic refuses what is not signed."""
    try:
        fields = _fields.decode(body)
        turns = _turns.decode(fields["messages"])
        for turn in turns:
            if bytes(turn.get("content", NULL)).startswith(b"["):
                turn["content"] = Raw(_encode([raw for raw in _blocks.decode(turn["content"]) if not _unsigned(raw)]))
        fields["messages"] = Raw(_encode(turns))
    except (msgspec.DecodeError, KeyError):
        return body  # another shape, which Anthropic itself refuses
    return _encode(fields)


def _unsigned(block: Raw) -> bool:
    if _OURS not in bytes(block):
        return False
    read = _thought.decode(block)
    if read.type == "redacted_thinking":
        return read.data.startswith(SEALED)
    return read.type == "thinking" and read.signature == UNSIGNED
