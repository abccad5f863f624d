"""Requests and answers of the Messages API, and what Anthropic's own SDK makes of a stream's events."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from gateway.dialect import Stream
from gateway.front import Toward
from gateway.fronts.messages import Messages
from gateway.fronts.messages_chat import chat
from gateway.sse import ChatStream

FRONT = Messages(lambda: "new")
OPENAI = Toward("openai", "gpt-4o")
VLLM = Toward("vllm", "llama")
GEMINI = Toward("gemini", "gemini-2.5-pro")
BEDROCK = Toward("bedrock", "anthropic.claude-sonnet-4-5", bridged=True)

_events = TypeAdapter[RawMessageStreamEvent](RawMessageStreamEvent)


def asked(messages: Any = "hi", **fields: Any) -> bytes:
    """A request; text alone is one message of the user's."""
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return json.dumps({"model": "m", "max_tokens": 9, "messages": turns, **fields}).encode()


def made(messages: Any = "hi", toward: Toward = OPENAI, **fields: Any) -> Any:
    """The chat that comes of a request."""
    return json.loads(chat(asked(messages, **fields), toward))


def hear(out: bytes) -> Message:
    """A whole stream as the SDK puts it together. Every event has its name, and every block its end."""
    snapshot: Any = None
    bufs: dict[int, bytes] = {}
    opened: list[int] = []
    names: list[str] = []
    for event in out.split(b"\n\n"):
        if not event:
            continue
        name, _, data = event.partition(b"\n")
        value = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        names.append(value["type"])
        if value["type"] == "ping":
            continue
        if value["type"] == "content_block_start":
            assert value["index"] == len(opened)
            opened.append(value["index"])
        if value["type"] in {"content_block_delta", "content_block_stop"}:
            assert value["index"] == opened[-1]  # one after another
        read = _events.validate_python(value)
        snapshot = accumulate_event(event=read, current_snapshot=snapshot, json_bufs=bufs)
    assert names.count("content_block_start") == names.count("content_block_stop")
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    message: Message = Message.model_validate(snapshot.to_dict())
    return message


def follow(stream: Stream, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    """All that a stream passes on of the data, fed in pieces."""
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    return b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges)) + stream.close()


def translated(data: bytes, cuts: Sequence[int] = ()) -> tuple[Stream, bytes]:
    """A chat's stream as events."""
    stream = FRONT.stream(ChatStream(keep_usage=True), "m", b"")
    return stream, follow(stream, data, cuts)


def chunks(*deltas: Any, finish: str | None = "stop", usage: Any = None, done: bool = True, **choice: Any) -> bytes:
    """A chat's stream of these deltas."""
    said: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if finish is not None:
        said.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish, **choice}]})
    if usage is not None:
        said.append({"choices": [], "usage": usage})
    out = b"".join(b"data: %b\n\n" % msgspec.json.encode({"id": "chatcmpl-1", **one}) for one in said)
    return out + b"data: [DONE]\n\n" * done


def call(index: int | None, arguments: str, id_: str | None = None, name: str | None = None) -> Any:
    """A piece of a call."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"function": function, "index": index} | ({"id": id_, "type": "function"} if id_ else {})]}
