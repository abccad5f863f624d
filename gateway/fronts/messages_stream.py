"""A chat's stream as the Messages API's events. Blocks come one after another, as Claude's do, in whatever order the chat's pieces come.

A piece that belongs to a later block waits until the blocks before it have ended: text and thoughts end with whatever follows them, a call
once its arguments are a whole JSON object.
"""

from typing import Any, Final, Literal, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.dialect import Stream
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.dialects.events import MAX_EVENT_BYTES
from gateway.front import FrontStream
from gateway.fronts.messages_answer import (
    Block,
    ContentPart,
    Message,
    RedactedBlock,
    TextBlock,
    ThinkingBlock,
    ThoughtBlock,
    ToolUseBlock,
    UsageOut,
    message_id,
    pictured,
    spoken,
    stop,
    usage_out,
)
from gateway.fronts.messages_seals import Extra, Seal, closed, signature
from gateway.used import Usage

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Extra | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    thinking_blocks: list[ThoughtBlock] | None = None
    tool_calls: list[_Call] | None = None
    images: Raw = NULL
    audio: Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] = []
    service_tier: str | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk)
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode

Kind = Literal["text", "thinking", "redacted", "call"]


@final
class _Piece:
    """A block that is not over. `waiting` is what the client has not seen of it, `said` all of a call's arguments."""

    __slots__ = ("begun", "id", "key", "kind", "name", "plain", "said", "signature", "waiting")

    def __init__(self, kind: Kind, *, key: int = -1, id_: str = "", name: str = "") -> None:
        self.kind = kind
        self.key = key
        self.id = id_
        self.name = name
        self.begun = False
        self.waiting = ""
        self.said = ""
        self.signature = ""
        self.plain = False  # thoughts that come as text, beside the block that signs them

    def opening(self) -> Block:
        match self.kind:
            case "text":
                return TextBlock("")
            case "thinking":
                return ThinkingBlock("", "")
            case "redacted":
                return RedactedBlock(self.waiting)
            case "call":
                return ToolUseBlock(self.id, self.name, Raw(b"{}"))

    def delta(self) -> bytes:
        name, kind = {
            "text": ("text", "text_delta"),
            "thinking": ("thinking", "thinking_delta"),
            "call": ("partial_json", "input_json_delta"),
        }[self.kind]
        return _encode({"type": kind, name: self.waiting})

    def over(self) -> bool:
        """Whether nothing more can come of it, now that something else has."""
        if self.kind != "call":
            return True
        try:
            _object.decode(self.said)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        return True


@final
class MessagesFromChat(FrontStream):
    """The state of one stream. `model` is the client's name for it, `new_id` stands for an id that the upstream leaves out."""

    beat = PING

    def __init__(self, chat: Stream, model: str, new_id: str) -> None:
        super().__init__(chat)
        self._model = model
        self._new_id = new_id
        self._begun = False
        self._index = 0
        self._blocks: list[_Piece] = []  # in order; only the first of them is being sent
        self._called = False
        self._refused = False
        self._finish: str | None = None
        self._told: object = None
        self._tier: str | None = None

    def chunk(self, payload: bytes) -> bytes:
        read = _chunk.decode(payload)
        self._tier = read.service_tier or self._tier
        out = b"" if self._begun else self._message(read.id)
        for choice in read.choices[:1]:
            if choice.delta is not None:
                self._take(choice.delta)
            if choice.finish_reason is not None:
                self._finish, self._told = choice.finish_reason, choice.stop_reason
        return out + self._advance()

    def ending(self, used: Usage | None) -> bytes:
        out = b"" if self._begun else self._message(None)
        while self._blocks:
            out += self._show() + self._close()
        reason, sequence = stop(self._finish, self._told, called=self._called)
        usage = {"output_tokens": self.events} if used is None else usage_out(used, self._tier)
        delta = {"stop_reason": "refusal" if self._refused else reason, "stop_sequence": sequence}
        return out + _event("message_delta", {"delta": delta, "usage": usage}) + STOP

    def _message(self, id_: str | None) -> bytes:
        self._begun = True
        opening = Message(message_id(id_ or self._new_id), self._model, [], None, None, UsageOut(0, 0, 0, 0))
        return _event("message_start", {"message": opening})

    def _take(self, delta: _Delta) -> None:
        """Puts every piece where it belongs."""
        pictured(delta.images, delta.audio)
        thought, text = spoken(delta.content)
        thought = delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else "") or thought
        if thought:
            piece = self._open("thinking")
            piece.waiting += thought
            piece.plain = True
        for block in delta.thinking_blocks or ():
            self._think(block)
        text += delta.refusal or ""
        self._refused = self._refused or bool(delta.refusal)
        if text:
            self._open("text").waiting += text
        for call in delta.tool_calls or ():
            self._call(call)

    def _open(self, kind: Kind) -> _Piece:
        """The last block, if it is of this kind, or else a new one; signed thoughts are over."""
        if not self._blocks or self._blocks[-1].kind != kind or self._blocks[-1].signature:
            self._blocks.append(_Piece(kind))
        return self._blocks[-1]

    def _think(self, block: ThoughtBlock) -> None:
        """Signed thoughts; their text counts only where it has not come by itself."""
        if block.type == "redacted_thinking":
            self._seal(block.data)
            return
        piece = self._open("thinking")
        if not piece.plain:
            piece.waiting += block.thinking
        piece.signature += block.signature or ""

    def _seal(self, data: str) -> None:
        piece = _Piece("redacted")
        piece.waiting = data
        self._blocks.append(piece)

    def _call(self, call: _Call) -> None:
        self._called = True
        function = call.function or _Function()
        piece = self._meant(call)
        if piece is None and not (call.id or function.name):
            if (function.arguments or "").strip():
                raise errors.UpstreamError("The upstream went on with a call that was over")
            return
        if piece is None:
            id_ = call.id or f"call_{self._index + len(self._blocks)}"
            signed = signature(call.extra_content)
            if signed is not None:
                self._seal(closed(Seal(id_, signed)))
            key = call.index if call.index is not None else -1
            piece = _Piece("call", key=key, id_=id_, name=function.name or "")
            self._blocks.append(piece)
        piece.waiting += function.arguments or ""
        piece.said += function.arguments or ""

    def _meant(self, call: _Call) -> _Piece | None:
        """The call that a piece goes on with. Some servers count none, and an id that is new is a call that is new."""
        for piece in reversed(self._blocks):
            if piece.kind != "call":
                continue
            if call.id and call.id != piece.id and (call.index is None or call.index == piece.key):
                return None
            if call.index is None or call.index == piece.key:
                return piece
        return None

    def _advance(self) -> bytes:
        """Sends what can be sent by now."""
        out = b""
        while self._blocks:
            out += self._show()
            if len(self._blocks) == 1 or not self._blocks[0].over():
                break
            out += self._close()
        if sum(len(piece.said) + len(piece.waiting) for piece in self._blocks) > MAX_EVENT_BYTES:
            raise errors.UpstreamError(f"The upstream's calls have more than {MAX_EVENT_BYTES} characters")
        return out

    def _show(self) -> bytes:
        """What is new of the first block."""
        piece = self._blocks[0]
        out = b""
        if not piece.begun:
            piece.begun = True
            out = _event("content_block_start", {"index": self._index, "content_block": piece.opening()})
            if piece.kind == "redacted":
                piece.waiting = ""
        if piece.waiting:
            out += _event("content_block_delta", {"index": self._index, "delta": Raw(piece.delta())})
            piece.waiting = ""
        return out

    def _close(self) -> bytes:
        piece = self._blocks.pop(0)
        out = b""
        if piece.kind == "thinking":
            delta = {"type": "signature_delta", "signature": piece.signature or UNSIGNED}
            out = _event("content_block_delta", {"index": self._index, "delta": delta})
        out += _event("content_block_stop", {"index": self._index})
        self._index += 1
        return out


def _event(kind: str, fields: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))
