"""A stream of Claude's as OpenAI's chunks: any split of the bytes in, whole events out. Events and deltas that are new are skipped."""

from typing import final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.dialects.anthropic_answer import (
    READ,
    Block,
    Citation,
    Opening,
    RedactedThinking,
    StopDetails,
    ThinkingBlock,
    annotations,
    finish,
    usage_out,
)
from gateway.dialects.anthropic_faults import failed
from gateway.dialects.anthropic_tools import ANSWER_TOOL
from gateway.dialects.events import MAX_EVENT_BYTES, EventReader
from gateway.usage import from_anthropic
from gateway.usage_reports import AnthropicUsage
from gateway.used import Usage
from gateway.wire import present

DAMAGED = "The upstream sent an event that is not the JSON it should be"
HEARTBEAT = b": ping\n\n"
BYTES_PER_TOKEN = 4


class _Event(msgspec.Struct, gc=False):
    """Any event. What the other fields hold depends on the type."""

    type: str
    index: int = 0
    message: Raw = NULL
    content_block: Raw = NULL
    delta: Raw = NULL
    usage: AnthropicUsage | None = None


class _Typed(msgspec.Struct, gc=False):
    type: str


class _Delta(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    citation: Citation | None = None


class _End(msgspec.Struct, gc=False):
    """The delta of `message_delta`."""

    stop_reason: str | None = None
    stop_details: StopDetails | None = None


_event = msgspec.json.Decoder(_Event)
_typed = msgspec.json.Decoder(_Typed)
_block = msgspec.json.Decoder(Block)
_delta = msgspec.json.Decoder(_Delta)
_end = msgspec.json.Decoder(_End)
_opening = msgspec.json.Decoder(Opening)
_encode = msgspec.json.Encoder().encode


@final
class _Open:
    """A block that is being sent: its place among the calls or in the text, and what is only known at its end."""

    __slots__ = ("block", "call", "citations", "pieces", "said", "signature", "start")

    def __init__(self, block: Block, *, call: int, start: int) -> None:
        self.block = block
        self.call = call
        self.start = start
        self.said = False  # whether a call's arguments have begun
        self.pieces: list[str] = []
        self.signature = block.signature
        self.citations: list[Citation] = []


@final
class MessageStream:
    """The state of one stream. `model` is the client's name for it, `created` Unix seconds; `keep_usage`: the client asked for usage."""

    __slots__ = (
        "_calls",
        "_counted",
        "_created",
        "_ended",
        "_head",
        "_keep_usage",
        "_length",
        "_model",
        "_open",
        "_reader",
        "_thought",
        "_usage",
        "content",
        "done",
        "error",
        "events",
    )

    def __init__(self, model: str, created: int, *, keep_usage: bool) -> None:
        self._model = model
        self._created = created
        self._keep_usage = keep_usage
        self._reader = EventReader()
        self._head = b""  # what every chunk begins with, once the message's id is known
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._length = 0  # characters of text so far
        self._thought = 0
        self._ended = False  # a stop reason was seen
        self._counted = False  # the provider has said what the answer took
        self._usage: AnthropicUsage | None = None
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
        return self._ended and self.error is None

    def feed(self, data: bytes) -> bytes:
        if self.error is not None or self.done:
            return b""
        try:
            payloads = self._reader.feed(data)
        except errors.UpstreamError as error:
            self.error = error
            return b""
        return b"".join([self._chunks(payload) for payload in payloads])

    def close(self) -> bytes:
        """Without `message_stop` the answer is whole all the same, if it said why it ended."""
        if self.error is not None or self.done:
            return b""
        out = b"".join([self._chunks(payload) for payload in self._reader.close()])
        return out if self.done or not self.whole else out + self._stop()

    def _chunks(self, payload: bytes) -> bytes:
        if self.error is not None or self.done:
            return b""
        try:
            return self._translated(_event.decode(payload), payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = errors.UpstreamError(DAMAGED)
            return b""

    def _translated(self, event: _Event, payload: bytes) -> bytes:
        out = b""
        match event.type:
            case "content_block_delta":
                out = self._piece(event)
            case "content_block_start":
                out = self._begin(event)
            case "content_block_stop":
                out = self._finish_block(event)
            case "message_start":
                out = self._message(event)
            case "message_delta":
                out = self._end(event)
            case "message_stop":
                out = self._stop()
            case "ping" if self.content:
                out = HEARTBEAT
            case "error":
                self.error = failed(payload)
        return out

    def _message(self, event: _Event) -> bytes:
        if self._head:
            return b""
        opening = _opening.decode(event.message)
        self._usage = opening.usage
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(opening.id),
            self._created,
            _encode(self._model),
        )
        return self._chunk(b'{"role":"assistant","content":""}')

    def _begin(self, event: _Event) -> bytes:
        kind = _typed.decode(event.content_block).type
        if kind not in READ:
            return b""
        block = _block.decode(event.content_block)
        is_call = kind == "tool_use" and block.name != ANSWER_TOOL
        opened = self._open[event.index] = _Open(block, call=self._calls, start=self._length)
        if is_call:
            self._calls += 1
            function = {"name": block.name, "arguments": ""}
            return self._say(_call(opened.call, {"id": block.id, "type": "function", "function": function}), 8)
        if kind == "text" and block.text:
            return self._text(block.text)
        if kind == "thinking" and block.thinking:
            return self._think(opened, block.thinking)
        if kind == "redacted_thinking":
            return self._say(_encode({"thinking_blocks": [RedactedThinking(block.data)]}))
        return b""

    def _piece(self, event: _Event) -> bytes:
        opened = self._open.get(event.index)
        if opened is None:
            return b""
        delta = _delta.decode(event.delta)
        match delta.type:
            case "text_delta":
                return self._text(delta.text)
            case "input_json_delta":
                return self._argue(opened, delta.partial_json)
            case "thinking_delta":
                return self._think(opened, delta.thinking)
            case "signature_delta":
                opened.signature += delta.signature
            case "citations_delta" if delta.citation is not None:
                opened.citations.append(delta.citation)
        return b""

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        self._length += len(text)
        return self._say(_encode({"content": text}), len(text))

    def _argue(self, opened: _Open, part: str) -> bytes:
        if not part:
            return b""
        opened.said = True
        if opened.block.name == ANSWER_TOOL:
            return self._text(part)
        return self._say(_call(opened.call, {"function": {"arguments": part}}), len(part))

    def _think(self, opened: _Open, thought: str) -> bytes:
        if not thought:
            return b""
        self._thought += len(thought)
        if self._thought > MAX_EVENT_BYTES:  # it has to be kept until its signature comes
            self.error = errors.UpstreamError(f"The upstream thought more than {MAX_EVENT_BYTES} characters")
            return b""
        opened.pieces.append(thought)
        return self._say(_encode({"reasoning_content": thought}), len(thought))

    def _finish_block(self, event: _Event) -> bytes:
        """What can only be said of a whole block."""
        opened = self._open.pop(event.index, None)
        if opened is None:
            return b""
        block = opened.block
        if block.type == "tool_use" and not opened.said:  # arguments must be JSON, also where there are none
            return self._argue(opened, bytes(block.input).decode() if present(block.input) else "{}")
        if block.type == "thinking" and opened.signature:
            thinking = ThinkingBlock("".join(opened.pieces), opened.signature)
            return self._say(_encode({"thinking_blocks": [thinking]}))
        cited = annotations(opened.citations, opened.start, self._length)
        return self._say(_encode({"annotations": cited})) if cited else b""

    def _end(self, event: _Event) -> bytes:
        if event.usage is not None:
            self._usage = merged(self._usage, event.usage)
            self._counted = event.usage.output_tokens is not None
        end = _end.decode(event.delta) if present(event.delta) else _End()
        if end.stop_reason is None or self._ended:
            return b""
        self._ended = True
        reason = finish(end.stop_reason, answered=not self._calls)
        refused = end.stop_details is not None and reason == "content_filter" and end.stop_details.explanation
        delta = _encode({"refusal": refused}) if refused else b"{}"
        self.content = True
        return self._chunk(delta, b'"%b"' % reason.encode())

    def _stop(self) -> bytes:
        self.done = True
        used = self.reported
        if not self._keep_usage or used is None or not self._ended:
            return b""
        return b'%b],"usage":%b}\n\n' % (self._head, _encode(usage_out(used)))

    def _say(self, delta: bytes, length: int = 0) -> bytes:
        """A chunk with content. Claude sends several tokens at a time."""
        self.content = True
        self.events += max(1, length // BYTES_PER_TOKEN)
        return self._chunk(delta)

    def _chunk(self, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        if not self._head:
            self.error = errors.UpstreamError("The upstream's stream did not begin with 'message_start'")
            return b""
        return b'%b{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]%b}\n\n' % (
            self._head,
            delta,
            finish_reason,
            b',"usage":null' if self._keep_usage else b"",
        )


def _call(index: int, call: dict[str, object]) -> bytes:
    return _encode({"tool_calls": [{"index": index, **call}]})


def used_so_far(report: AnthropicUsage | None, events: int, *, counted: bool) -> Usage | None:
    """Until the provider says what the answer took (`counted`), what has come of it counts: the first report stands for a token or so."""
    if report is None:
        return None
    if not counted and (report.output_tokens or 0) < events:
        report = msgspec.structs.replace(report, output_tokens=events)
    return from_anthropic(report)


def merged(before: AnthropicUsage | None, after: AnthropicUsage) -> AnthropicUsage:
    """Counts are cumulative; what the later report leaves out stays as it was."""
    if before is None:
        return after
    said = {name: value for name, value in msgspec.structs.asdict(after).items() if value is not None}
    return msgspec.structs.replace(before, **said)
