"""A message of Claude's as OpenAI's chat completion. What a stream and a whole answer have in common stands here as well."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.dialects.anthropic_tools import ANSWER_TOOL
from gateway.usage import from_anthropic
from gateway.usage_reports import AnthropicUsage
from gateway.used import Usage
from gateway.wire import present

Finish = Literal["stop", "length", "tool_calls", "content_filter"]

# A reason that is not listed ended the answer in an orderly way: the API adds some now and then.
FINISHES: Final[Mapping[str, Finish]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
_TIERS: Final[Mapping[str, str]] = {"standard": "default", "priority": "priority"}


class Citation(msgspec.Struct, gc=False):
    type: str
    url: str | None = None
    title: str | None = None


class Block(msgspec.Struct, gc=False):
    """Any block of an answer. Which fields there are depends on the type."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = NULL
    citations: list[Citation] | None = None


class _AnyBlock(msgspec.Struct, gc=False):
    type: str


class StopDetails(msgspec.Struct, gc=False):
    """Why an answer was refused."""

    explanation: str | None = None


class Opening(msgspec.Struct, gc=False):
    """What a stream begins with."""

    id: str
    usage: AnthropicUsage | None = None


class _Message(msgspec.Struct, gc=False):
    id: str
    content: list[Raw]
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: AnthropicUsage | None = None


class UrlCitation(msgspec.Struct, frozen=True):
    """Characters of the answer from `start_index` up to `end_index` rest on the page."""

    end_index: int
    start_index: int
    title: str
    url: str


class Annotation(msgspec.Struct, frozen=True):
    url_citation: UrlCitation
    type: str = "url_citation"


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: _Function
    type: str = "function"


class ThinkingBlock(msgspec.Struct, tag="thinking", frozen=True):
    """As it must come back, for the provider to take it."""

    thinking: str
    signature: str


class RedactedThinking(msgspec.Struct, tag="redacted_thinking", frozen=True):
    data: str


class _AnswerMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[ThinkingBlock | RedactedThinking] | None = None
    annotations: list[Annotation] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _AnswerMessage
    finish_reason: Finish
    index: int = 0
    logprobs: None = None


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int
    cache_creation_tokens: int


class _CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class UsageOut(msgspec.Struct, frozen=True):
    """OpenAI's usage: what was read from the cache and written to it is part of the prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class _Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]
    usage: UsageOut | None = None
    service_tier: str | None = None


READ: Final = frozenset(
    {"redacted_thinking", "text", "thinking", "tool_use"}
)  # blocks of other types are not for the client
_any_block: Final = msgspec.json.Decoder(_AnyBlock)
_block: Final = msgspec.json.Decoder(Block)
_message: Final = msgspec.json.Decoder(_Message)
_encode: Final = msgspec.json.Encoder().encode


def completion(body: bytes, model: str, created: int) -> tuple[bytes, Usage | None]:
    """The answer under the client's name for the model, and what it used. Raises UpstreamError."""
    try:
        message = _message.decode(body)
        blocks = [_block.decode(raw) for raw in message.content if _any_block.decode(raw).type in READ]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the message it should be: {error}") from None
    if message.stop_reason is None:
        raise errors.UpstreamError("The upstream's answer does not say why it ended")
    used = None if message.usage is None else from_anthropic(message.usage)
    made = _Completion(
        id=message.id,
        object="chat.completion",
        created=created,
        model=model,
        choices=[_choice(message, blocks)],
        usage=None if used is None else usage_out(used),
        service_tier=_TIERS.get((message.usage.service_tier if message.usage is not None else None) or ""),
    )
    return _encode(made), used


def finish(stop_reason: str, *, answered: bool) -> Finish:
    """`answered`: the call that the model stopped for is its answer in a schema."""
    reason = FINISHES.get(stop_reason, "stop")
    return "stop" if answered and reason == "tool_calls" else reason


def usage_out(used: Usage) -> UsageOut:
    return UsageOut(
        used.input,
        used.output,
        used.input + used.output,
        _PromptDetails(used.cached_read, used.cache_write),
        _CompletionDetails(used.reasoning),
        used.cached_read,
        used.cache_write,
    )


def annotations(citations: Sequence[Citation], start: int, end: int) -> list[Annotation]:
    """Pages on the web that a block of text rests on; places in documents have no counterpart."""
    return [
        Annotation(UrlCitation(end, start, citation.title or "", citation.url))
        for citation in citations
        if citation.url is not None
    ]


def _choice(message: _Message, blocks: Sequence[Block]) -> _Choice:
    content, cited = _content(blocks)
    calls = [
        _ToolCall(block.id, _Function(block.name, _arguments(block)))
        for block in blocks
        if block.type == "tool_use" and block.name != ANSWER_TOOL
    ]
    thought = "".join(block.thinking for block in blocks if block.type == "thinking")
    reason = finish(message.stop_reason or "", answered=not calls)
    details = message.stop_details
    said = _AnswerMessage(
        role="assistant",
        content=content if content or not calls else None,
        refusal=details.explanation if details is not None and reason == "content_filter" else None,
        tool_calls=calls or None,
        reasoning_content=thought or None,
        thinking_blocks=_thinking_blocks(blocks) or None,
        annotations=cited or None,
    )
    return _Choice(said, reason)


def _content(blocks: Sequence[Block]) -> tuple[str, list[Annotation]]:
    """All text, an answer in a schema included, and what it rests on."""
    texts: list[str] = []
    cited: list[Annotation] = []
    at = 0
    for block in blocks:
        if block.type == "text":
            text = block.text
            cited.extend(annotations(block.citations or (), at, at + len(text)))
        elif block.type == "tool_use" and block.name == ANSWER_TOOL:
            text = _arguments(block)
        else:
            continue
        texts.append(text)
        at += len(text)
    return "".join(texts), cited


def _arguments(block: Block) -> str:
    return bytes(block.input).decode() if present(block.input) else "{}"


def _thinking_blocks(blocks: Sequence[Block]) -> list[ThinkingBlock | RedactedThinking]:
    kept: list[ThinkingBlock | RedactedThinking] = []
    for block in blocks:
        if block.type == "thinking":
            kept.append(ThinkingBlock(block.thinking, block.signature))
        elif block.type == "redacted_thinking":
            kept.append(RedactedThinking(block.data))
    return kept
