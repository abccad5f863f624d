"""A chat's whole answer as a message. What a stream and a whole answer have in common stands here as well."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway import bodies, errors
from gateway.bodies import NULL
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.fronts.messages_seals import Extra, Seal, closed, signature
from gateway.usage import from_openai
from gateway.used import Usage
from gateway.wire import present

# A reason that is not listed ended the answer in an orderly way.
STOPS: Final[Mapping[str, str]] = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_TIERS: Final[Mapping[str, str]] = {"default": "standard", "priority": "priority"}


class ThoughtBlock(msgspec.Struct, gc=False):
    """Signed thoughts, as Anthropic's dialect and LiteLLM have them in a chat."""

    type: str = "thinking"
    thinking: str = ""
    signature: str | None = None
    data: str = ""


class ContentPart(msgspec.Struct, gc=False):
    """Some servers answer in parts; Mistral's thoughts are one with parts of its own."""

    type: str
    text: str = ""
    thinking: list["ContentPart"] | str = ""


class _Function(msgspec.Struct, gc=False):
    name: str
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function
    id: str = ""
    extra_content: Extra | None = None


class _Said(msgspec.Struct, gc=False):
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    thinking_blocks: list[ThoughtBlock] | None = None
    tool_calls: list[_Call] | None = None
    images: Raw = NULL
    audio: Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    message: _Said
    finish_reason: str | None = None
    stop_reason: Any = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice]
    id: str = ""
    usage: bodies.Usage | None = None
    service_tier: str | None = None


class OutputDetails(msgspec.Struct, frozen=True):
    thinking_tokens: int


class UsageOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Anthropic's: the input is what was neither read from the cache nor written to it."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | UnsetType = UNSET
    cache_read_input_tokens: int | UnsetType = UNSET
    output_tokens_details: OutputDetails | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET


class TextBlock(msgspec.Struct, tag="text", frozen=True):
    text: str


class ThinkingBlock(msgspec.Struct, tag="thinking", frozen=True):
    thinking: str
    signature: str


class RedactedBlock(msgspec.Struct, tag="redacted_thinking", frozen=True):
    data: str


class ToolUseBlock(msgspec.Struct, tag="tool_use", frozen=True):
    id: str
    name: str
    input: Raw


Block = TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock


class Message(msgspec.Struct, frozen=True):
    """`stop_reason` is null in the opening of a stream."""

    id: str
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: UsageOut
    type: str = "message"
    role: str = "assistant"


_completion: Final = msgspec.json.Decoder(_Completion)
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode
_NO_INPUT: Final = Raw(b"{}")


def message(body: bytes, model: str, new_id: str) -> bytes:
    """The message under the client's name for the model. Raises UpstreamError."""
    try:
        made = _completion.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the completion it should be: {error}") from None
    if not made.choices:
        raise errors.UpstreamError("The upstream's answer has no choice in it")
    choice = made.choices[0]
    content = _blocks(choice)
    reason, sequence = stop(choice.finish_reason, choice.stop_reason, called=bool(choice.message.tool_calls))
    used = UsageOut(0, 0) if made.usage is None else usage_out(from_openai(made.usage), made.service_tier)
    if choice.message.refusal:
        reason = "refusal"
    return _encode(Message(message_id(made.id or new_id), model, content, reason, sequence, used))


def message_id(given: str) -> str:
    return given if given.startswith("msg_") else f"msg_{given}"


def stop(finish: str | None, told: object, *, called: bool) -> tuple[str, str | None]:
    """Why an answer ended, and the sequence that ended it: `told` is vLLM's word for it. Some say `stop` where they call tools."""
    reason = STOPS.get(finish or "", "end_turn")
    if called and reason == "end_turn":
        return "tool_use", None
    if reason == "end_turn" and isinstance(told, str) and told:
        return "stop_sequence", told
    return reason, None


def usage_out(used: Usage, service_tier: str | None = None) -> UsageOut:
    return UsageOut(
        used.input - used.cached_read - used.cache_write,
        used.output,
        used.cache_write,
        used.cached_read,
        OutputDetails(used.reasoning) if used.reasoning else UNSET,
        _TIERS.get(service_tier or "", UNSET),
    )


def spoken(content: str | list[ContentPart] | None) -> tuple[str, str]:
    """What was thought and what was said."""
    if content is None or isinstance(content, str):
        return "", content or ""
    thought = "".join(_thought(part) for part in content)
    return thought, "".join(part.text for part in content if part.type == "text")


def pictured(images: Raw, audio: Raw) -> None:
    """Raises UpstreamError for what a message of Claude's never has in it."""
    if any(present(raw) and bytes(raw) not in {b"[]", b"{}"} for raw in (images, audio)):
        raise errors.UpstreamError("The model answered with a picture or sound, which a message cannot carry")


def _thought(part: ContentPart) -> str:
    if isinstance(part.thinking, str):
        return part.thinking
    return "".join(inner.text for inner in part.thinking)


def _blocks(choice: _Choice) -> list[Block]:
    """Thoughts, then what was said, then the calls."""
    said = choice.message
    pictured(said.images, said.audio)
    thought, text = spoken(said.content)
    thought = said.reasoning_content or (said.reasoning if isinstance(said.reasoning, str) else "") or thought
    blocks: list[Block] = []
    if said.thinking_blocks:
        for one in said.thinking_blocks:
            kept = RedactedBlock(one.data) if one.type == "redacted_thinking" else None
            blocks.append(kept or ThinkingBlock(one.thinking, one.signature or UNSIGNED))
    elif thought:
        blocks.append(ThinkingBlock(thought, UNSIGNED))
    text += said.refusal or ""
    if text:
        blocks.append(TextBlock(text))
    for index, call in enumerate(said.tool_calls or ()):
        name = call.function.name
        given = _input(call.function.arguments, cut=choice.finish_reason == "length")
        id_ = call.id or f"call_{index}"
        signed = signature(call.extra_content)
        if signed is not None:
            blocks.append(RedactedBlock(closed(Seal(id_, signed))))
        blocks.append(ToolUseBlock(id_, name, given))
    return blocks


def _input(arguments: str | None, *, cut: bool) -> Raw:
    """A call's input. One that was cut off at the limit has none: the stop reason says so."""
    if not arguments or not arguments.strip():
        return _NO_INPUT
    try:
        _object.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        if cut:
            return _NO_INPUT
        raise errors.UpstreamError("The arguments of the model's call are not a JSON object") from None
    return Raw(arguments.encode())
