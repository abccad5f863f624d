"""Answers in the words of each API: what may be kept of one, and a stream made of a whole answer or the other way round.

Kept is what is complete in itself: it ended by itself and not at a limit, in every choice, with arguments of calls that are whole.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from gateway.cache import chat_words, message_words, response_words
from gateway.cache.entry import Words
from gateway.cache.events import event, payloads
from gateway.used import Usage


class Kept(msgspec.Struct, frozen=True):
    """What is kept of an answer; `report` is its usage object, where the words have it apart from the rest."""

    words: Words
    content: bytes
    report: bytes = b""


_PLAIN: Final = frozenset({"embeddings", "rerank"})
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def kept(endpoint: str, content: bytes, used: Usage | None, *, stream: bool) -> Kept | None:
    """None for what is not complete, or not in words that are known. `used`: for a stream whose client did not ask."""
    try:
        if stream:
            return _kept_stream(endpoint, [_decode(one) for one in payloads(content)], used)
        return _kept_whole(endpoint, _decode(content), content)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
    ):
        return None  # whoever asked got it as it is; nobody else shall


def streamed(words: Words, content: bytes, report: bytes, *, keep_usage: bool) -> bytes:
    """A kept stream as the client gets it, without its last mark."""
    if words in ("chat", "completion") and keep_usage and report:
        return content + chat_words.usage_event(content, report)
    return content


def as_stream(words: Words, content: bytes, *, keep_usage: bool) -> bytes:
    """A kept whole answer as a stream, without its last mark. Raises ValueError where its words have none."""
    answer = _decode(content)
    match words:
        case "chat" | "completion":
            events = chat_words.told(answer, words)
            out = b"".join(event(one) for one in events)
            return out + (chat_words.usage_event(out, _encode(answer.get("usage"))) if keep_usage else b"")
        case "message":
            return b"".join(event(one, one["type"]) for one in message_words.told(answer))
        case "response":
            return b"".join(event(one, one["type"]) for one in response_words.told(answer))
        case "plain":
            raise ValueError("these answers do not stream")


def as_whole(words: Words, content: bytes, report: bytes) -> bytes:
    """A kept stream as a whole answer. Raises ValueError where its words have none."""
    events = [_decode(one) for one in payloads(content)]
    match words:
        case "chat" | "completion":
            return _encode(chat_words.gathered(events, words) | ({"usage": msgspec.Raw(report)} if report else {}))
        case "message":
            return _encode(message_words.gathered(events))
        case "response":
            return _encode(response_words.gathered(events))
        case "plain":
            raise ValueError("these answers do not stream")


def _kept_whole(endpoint: str, answer: Any, content: bytes) -> Kept | None:
    if endpoint in _PLAIN:
        return Kept("plain", content)
    words = _words(endpoint, answer)
    if not _complete(words, answer):
        return None
    as_stream(words, content, keep_usage=True)  # what cannot be told as a stream fails here, not when it is wanted
    return Kept(words, content)


def _kept_stream(endpoint: str, events: Sequence[Any], used: Usage | None) -> Kept | None:
    words = _words(endpoint, events[0])
    match words:
        case "chat" | "completion":
            content, report = chat_words.apart(events, used)
            whole: Any = chat_words.gathered(events, words)
        case "message":
            content, report = [event(one, one["type"]) for one in events], b""
            whole = message_words.gathered(events)
        case _:
            content, report = [event(one, one["type"]) for one in events], b""
            whole = response_words.gathered(events)
    return Kept(words, b"".join(content), report) if _complete(words, whole) else None


def _words(endpoint: str, first: Any) -> Words:
    """A response comes in a chat's words, where the deployment speaks chat."""
    if endpoint == "messages":
        return "message"
    if endpoint == "completions":
        return "completion"
    if endpoint == "responses" and (
        first.get("object") == "response" or str(first.get("type", "")).startswith("response.")
    ):
        return "response"
    return "chat"


def _complete(words: Words, answer: Any) -> bool:
    match words:
        case "chat" | "completion":
            return chat_words.complete(answer)
        case "message":
            return message_words.complete(answer)
        case _:
            return response_words.complete(answer)


def texts(words: Words, content: bytes, report: bytes, *, stream: bool) -> Iterator[str]:
    """What an answer says in words, for who compares answers."""
    answer = _decode(as_whole(words, content, report) if stream else content)
    match words:
        case "chat":
            yield from (str(one["message"].get("content") or "") for one in answer["choices"])
        case "completion":
            yield from (str(one.get("text") or "") for one in answer["choices"])
        case "message":
            yield from (str(one.get("text") or "") for one in answer["content"])
        case _:
            parts = (part for item in answer.get("output") or () for part in item.get("content") or ())
            yield from (str(part.get("text") or "") for part in parts)
