"""What was asked and what was answered, as bytes of the client's API, and as texts that can be kept and searched."""

from collections.abc import Callable
from typing import Final

import msgspec

from gateway.cache import words
from gateway.used import Usage

ENDPOINTS: Final = frozenset({"chat", "completions", "responses", "messages", "rerank", "embeddings", "moderations"})
_NUMBERS: Final = frozenset({"embeddings"})  # whose answers nobody reads


class Spoken(msgspec.Struct, frozen=True):
    """`answer` is what the client got, events of a stream one after another; empty where it got none, or too much.

    `hide` takes out of it what guards masked and gave back to the client.
    """

    endpoint: str
    request: bytes
    answer: bytes
    streamed: bool
    usage: Usage | None = None
    hide: Callable[[str], str] | None = None


def texts(spoken: Spoken) -> tuple[str, str | None]:
    """Request and answer. A stream is put together, if it is a whole one; in parts nothing can be hidden, so they are not kept then."""
    request = spoken.request.decode("utf-8", "replace")
    if not spoken.answer or spoken.endpoint in _NUMBERS:
        return request, None
    answer = _whole(spoken)
    if spoken.hide is None:
        return request, answer.decode("utf-8", "replace")
    if spoken.streamed and answer is spoken.answer:
        return request, None
    return request, spoken.hide(answer.decode("utf-8", "replace"))


def _whole(spoken: Spoken) -> bytes:
    answer = spoken.answer
    if spoken.streamed:
        kept = words.kept(spoken.endpoint, answer, spoken.usage, stream=True)
        if kept is not None:
            try:
                answer = words.as_whole(kept.words, kept.content, kept.report)
            except (ValueError, LookupError, TypeError):
                answer = spoken.answer
    return answer
