"""A stream that broke after its first content goes on elsewhere: what the client has is given to another deployment to go on from.

Opt-in (`continue_streams` on a model), and only for a chat whose answer is one plain text: with tools, several choices, log probabilities
or a format that has to be whole, two halves are not one answer. The client sees a comment, `: penstock continued`, where the second half
begins; its events carry the identity of the first half.
"""

from typing import Final, final

import msgspec

from gateway.bodies import NULL
from gateway.dialect import Stream
from gateway.errors import GatewayError
from gateway.used import Usage
from gateway.wire import present

MARK: Final = b": penstock continued\n\n"
MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of events; a longer answer is not continued
CONTINUES_MESSAGE: Final = frozenset(
    ("vllm", "sglang")
)  # they go on with the last message instead of beginning a new one, if told to

Fields = dict[str, msgspec.Raw]


class _Asked(msgspec.Struct, gc=False):
    """What decides whether an answer can be continued."""

    n: int | None = None
    tools: msgspec.Raw = NULL
    functions: msgspec.Raw = NULL
    logprobs: bool | None = None
    response_format: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL
    modalities: msgspec.Raw = NULL


class _Said(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: msgspec.Raw = NULL


class _Chunk(msgspec.Struct, gc=False):
    id: msgspec.Raw = NULL
    created: msgspec.Raw = NULL
    model: msgspec.Raw = NULL
    choices: list[_Choice] = []


_asked = msgspec.json.Decoder(_Asked)
_said = msgspec.json.Decoder(_Said)
_chunk = msgspec.json.Decoder(_Chunk)
_fields = msgspec.json.Decoder(Fields)
_counts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[msgspec.Raw])
_choices = msgspec.json.Decoder(list[Fields])
_encode = msgspec.json.Encoder().encode
_TEXT_ONLY = frozenset(("content", "role", "refusal"))


def continuable(body: bytes) -> bool:
    """Whether the answer to this chat would be one plain text."""
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    special = (asked.tools, asked.functions, asked.response_format, asked.audio, asked.modalities)
    return (asked.n or 1) == 1 and not asked.logprobs and not any(present(one) for one in special)


@final
class Continuation:
    """What the client has of the answer to `body`. `following` wraps each stream of it."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._sent: list[bytes] = []
        self._size = 0
        self.halves = 0
        self.tokens = 0  # events with content before the half that is running

    def following(self, stream: Stream) -> Stream:
        return _Kept(stream, self)

    def keep(self, out: bytes) -> None:
        self._size += len(out)
        if self._size <= MAX_KEPT_BYTES:
            self._sent.append(out)

    def text(self) -> str | None:
        """All that was said; None if that is not everything, or not plain text, or nothing."""
        if self._size > MAX_KEPT_BYTES:
            return None
        said = []
        for payload in _payloads(b"".join(self._sent)):
            for choice in _chunk.decode(payload).choices:
                delta = {} if not present(choice.delta) else _counts.decode(choice.delta)
                if any(name not in _TEXT_ONLY and present(value) for name, value in delta.items()):
                    return None
                said.append(_said.decode(choice.delta).content or "" if delta else "")
        return "".join(said) or None

    def identity(self) -> Fields:
        """`id`, `created` and `model` of the first event."""
        for payload in _payloads(b"".join(self._sent)):
            first = _chunk.decode(payload)
            named = {"id": first.id, "created": first.created, "model": first.model}
            return {name: value for name, value in named.items() if present(value)}
        return {}


def resumed(body: bytes, text: str, provider: str, *, left_tokens: int | None) -> bytes:
    """The request for the rest of an answer. `left_tokens`: of the client's own limit."""
    fields = _fields.decode(body)
    messages = _messages.decode(fields["messages"])
    messages.append(msgspec.Raw(_encode({"role": "assistant", "content": text})))
    fields["messages"] = msgspec.Raw(_encode(messages))
    if provider in CONTINUES_MESSAGE:
        fields["continue_final_message"] = msgspec.Raw(b"true")
        fields["add_generation_prompt"] = msgspec.Raw(b"false")
    if left_tokens is not None:
        for name in ("max_tokens", "max_completion_tokens"):
            if name in fields and present(fields[name]):
                fields[name] = msgspec.Raw(b"%d" % left_tokens)
    return _encode(fields)


@final
class _Kept:
    """A stream whose events are remembered; from the second half on they also take the first one's identity."""

    __slots__ = ("_continuation", "_identity", "_stream")

    def __init__(self, stream: Stream, continuation: Continuation) -> None:
        self._stream = stream
        self._continuation = continuation
        self._identity = continuation.identity() if continuation.halves else None

    @property
    def content(self) -> bool:
        return self._stream.content

    @property
    def done(self) -> bool:
        return self._stream.done

    @property
    def events(self) -> int:
        return self._stream.events

    @property
    def error(self) -> GatewayError | None:
        return self._stream.error

    @property
    def reported(self) -> Usage | None:
        return self._stream.reported

    @property
    def whole(self) -> bool:
        return self._stream.whole

    def feed(self, data: bytes) -> bytes:
        return self._passed(self._stream.feed(data))

    def close(self) -> bytes:
        return self._passed(self._stream.close())

    def _passed(self, out: bytes) -> bytes:
        if out and self._identity is not None:
            out = b"".join(b"data: " + self._joined(payload) + b"\n\n" for payload in _payloads(out))
        if out:
            self._continuation.keep(out)
        return out

    def _joined(self, payload: bytes) -> bytes:
        """One event of a later half as one of the first's. What it had to read to go on, the first half has written."""
        fields = _fields.decode(payload) | (self._identity or {})
        if present(fields.get("choices", NULL)):
            choices = _choices.decode(fields["choices"])
            for choice in choices:
                if present(choice.get("delta", NULL)):
                    delta = _fields.decode(choice["delta"])
                    delta.pop("role", None)
                    choice["delta"] = msgspec.Raw(_encode(delta))
            fields["choices"] = msgspec.Raw(_encode(choices))
        if present(fields.get("usage", NULL)):
            fields["usage"] = msgspec.Raw(_moved(fields["usage"], self._continuation.tokens))
        return _encode(fields)


def _moved(usage: msgspec.Raw, tokens: int) -> bytes:
    """Usage with some tokens counted as answer instead of prompt."""
    counts = _counts.decode(usage)
    for name, by in (("prompt_tokens", -tokens), ("completion_tokens", tokens)):
        if name in counts:
            counts[name] = msgspec.Raw(b"%d" % max(0, int(bytes(counts[name])) + by))
    return _encode(counts)


def _payloads(events: bytes) -> list[bytes]:
    """The objects of whole events, comments left out. Every event here was read once already."""
    lines = [line[5:].strip() for line in events.split(b"\n") if line.startswith(b"data:")]
    return [line for line in lines if line and line != b"[DONE]"]
