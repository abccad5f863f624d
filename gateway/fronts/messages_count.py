"""What a request of the Messages API says to a model, as texts to be counted, where the provider does not count itself."""

from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec
from msgspec import Raw

from gateway.bodies import NULL
from gateway.fronts.messages_request import parse_count
from gateway.wire import present

Method = Literal["tiktoken", "estimate"]

MESSAGE_TOKENS: Final = 4  # what a template puts around a message
ANSWER_TOKENS: Final = 3  # and before the answer
PICTURE_TOKENS: Final = 1_600  # Anthropic's count for the largest picture that it does not shrink
FILE_TOKENS: Final = 3_000  # a page or two
BYTES_PER_TOKEN: Final = 4
_WORDS: Final = frozenset({"content", "context", "input", "name", "text", "thinking", "title", "description"})


class _Asked(msgspec.Struct, gc=False):
    messages: list[dict[str, object]] = []
    system: object = None
    tools: list[Raw] = []
    tool_choice: Raw = NULL


_asked: Final = msgspec.json.Decoder(_Asked)


def count(body: bytes, counted: Callable[[Iterable[str]], int | None]) -> tuple[int, Method]:
    """Input tokens of a request that `parse_count` takes. `counted` counts texts, or knows no vocabulary and says None."""
    request = parse_count(body)
    asked = _asked.decode(body)
    texts = [*_said(asked.system), *(text for turn in asked.messages for text in _said(turn.get("content")))]
    texts += [bytes(tool).decode() for tool in asked.tools]
    frames = ANSWER_TOKENS + MESSAGE_TOKENS * (
        len(asked.messages) + present(asked.tool_choice) + (asked.system is not None)
    )
    beside = frames + request.pictures * PICTURE_TOKENS + request.files * FILE_TOKENS
    exact = counted(texts)
    if exact is not None:
        return exact + beside, "tiktoken"
    return -(-sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN) + beside, "estimate"


def _said(content: object) -> list[str]:
    """Everything in words: texts, thoughts, results, and the inputs of calls as JSON."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [text for block in content for text in _said(block)]
    if not isinstance(content, dict):
        return []
    if content.get("type") == "tool_use":
        return [str(content.get("name", "")), msgspec.json.encode(content.get("input")).decode()]
    source = content.get("source")
    inner = _said(source.get("content")) + _plain(source) if isinstance(source, dict) else []
    return inner + [text for name, value in content.items() if name in _WORDS for text in _said(value)]


def _plain(source: dict[str, object]) -> list[str]:
    data = source.get("data")
    return [data] if source.get("type") == "text" and isinstance(data, str) else []
