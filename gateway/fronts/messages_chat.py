"""A request of the Messages API as a chat. Nothing is lost in silence: what chat cannot express is refused by name.

`docs/messages.md` has the table of all fields; a test holds both together.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from gateway import errors, wire
from gateway.bodies import NULL
from gateway.front import Toward
from gateway.fronts import messages_tools, messages_turns
from gateway.fronts.chat_wire import Message, Tool
from gateway.fronts.messages_reach import Reach, reach
from gateway.fronts.messages_request import Metadata
from gateway.wire import present

TRANSLATED: Final = frozenset(
    {
        "max_tokens", "messages", "metadata", "model", "output_config", "output_format", "service_tier", "stop_sequences", "stream",
        "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip
# Hints to caches, and what asks for nothing.
LEFT_OUT: Final = frozenset({"betas", "cache_control", "diagnostics", "speed"})

MOST_USER: Final = 64  # characters that OpenAI takes for who is asking
LOW: Final = 4_096  # tokens of a budget for thinking below which little effort is meant
MEDIUM: Final = 16_384
_EFFORTS: Final[Mapping[str, str]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}
_TIERS: Final[Mapping[str, str]] = {"auto": "auto", "standard_only": "default"}
_HARMLESS_EDITS: Final = "clear_thinking"  # thoughts of earlier turns do not go out anyway


class _Format(msgspec.Struct, gc=False):
    type: str
    schema: Raw = NULL


class _OutputConfig(msgspec.Struct, gc=False):
    effort: str | None = None
    format: _Format | None = None


class _Thinking(msgspec.Struct, gc=False):
    type: str
    budget_tokens: int | None = None


class _Typed(msgspec.Struct, gc=False):
    type: str = ""


class _Edits(msgspec.Struct, gc=False):
    edits: list[_Typed] = []


class _Asked(msgspec.Struct, gc=False):
    """`POST /v1/messages`, whose bounds `messages_request` has checked."""

    max_tokens: int
    messages: list[messages_turns.Turn]
    system: Raw = NULL
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[messages_tools.AskedTool] | None = None
    tool_choice: messages_tools.AskedChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None


class _Schema(msgspec.Struct, frozen=True):
    schema: Raw
    name: str
    strict: bool


class _ResponseFormat(msgspec.Struct, frozen=True):
    json_schema: _Schema
    type: str


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool


class _Chat(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    user: str | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


_asked: Final = msgspec.json.Decoder(_Asked)
_edits: Final = msgspec.json.Decoder(_Edits)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def chat(body: bytes, toward: Toward) -> bytes:
    """The request as a chat for `toward.model`. Raises BadRequest."""
    asked = wire.parse(_asked, body)
    _check(_fields.decode(body))
    of = reach(toward)
    if not asked.max_tokens:
        raise errors.BadRequest(
            "'max_tokens' of 0 warms Anthropic's cache; this model's provider has nothing like it",
            param="max_tokens",
            code="unsupported_value",
        )
    instructions = messages_turns.system(asked.system, of)
    turns = messages_turns.conversation(asked.messages, of)
    tools = [
        messages_tools.tool(tool, f"tools.{index}", marked=of.marked) for index, tool in enumerate(asked.tools or ())
    ]
    choice = asked.tool_choice if tools else None
    begun = of.told and asked.messages[-1].role == "assistant"
    limits = {of.limit: asked.max_tokens}
    return _encode(
        _Chat(
            model=toward.model,
            messages=turns if instructions is None else [instructions, *turns],
            stream=asked.stream or None,
            stream_options=_StreamOptions(include_usage=True) if asked.stream else None,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            stop=asked.stop_sequences or None,
            tools=tools or None,
            tool_choice=None if choice is None else messages_tools.choice(choice),
            parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
            response_format=_response_format(asked),
            reasoning_effort=_effort(asked, of),
            service_tier=_tier(asked.service_tier),
            user=_user(asked.metadata),
            continue_final_message=True if begun else None,
            add_generation_prompt=False if begun else None,
            **limits,
        )
    )


def _check(fields: Mapping[str, Raw]) -> None:
    """Refuses what chat does not have; a name that is not known may mean anything."""
    for name, value in fields.items():
        if name in TRANSLATED or name in LEFT_OUT or not present(value):
            continue
        if name == "context_management":
            _check_edits(value)
            continue
        raise errors.BadRequest(
            f"'{name}': chat has nothing like it, and this model's provider speaks chat",
            param=name,
            code="unsupported_parameter",
        )


def _check_edits(value: Raw) -> None:
    for index, edit in enumerate(wire.parse(_edits, bytes(value)).edits):
        if not edit.type.startswith(_HARMLESS_EDITS):
            at = f"context_management.edits.{index}"
            raise errors.BadRequest(
                f"'{at}': {edit.type!r} is done by Anthropic alone", param=at, code="unsupported_parameter"
            )


def _response_format(asked: _Asked) -> _ResponseFormat | None:
    config = asked.output_config
    wanted = config.format if config is not None and config.format is not None else asked.output_format
    if wanted is None:
        return None
    if wanted.type != "json_schema" or not present(wanted.schema):
        at = "output_format" if wanted is asked.output_format else "output_config.format"
        raise errors.BadRequest(f"'{at}' is a 'json_schema' with its schema", param=at, code="invalid_value")
    return _ResponseFormat(_Schema(wanted.schema, "answer", strict=True), "json_schema")


def _effort(asked: _Asked, of: Reach) -> str | None:
    """An effort that is named goes on. A permission to think is one where the model is known to take an effort; others think as they do."""
    named = asked.output_config.effort if asked.output_config is not None else None
    if named is not None:
        effort = _EFFORTS.get(named)
        if effort is None:
            at = "output_config.effort"
            raise errors.BadRequest(f"'{at}' is none of {', '.join(_EFFORTS)}", param=at, code="invalid_value")
        return effort
    budget = asked.thinking.budget_tokens if asked.thinking is not None and asked.thinking.type == "enabled" else None
    if budget is None or not of.effort:
        return None
    return "low" if budget < LOW else "medium" if budget < MEDIUM else "high"


def _tier(given: str | None) -> str | None:
    if given is None:
        return None
    tier = _TIERS.get(given)
    if tier is None:
        raise errors.BadRequest(
            "'service_tier' is 'auto' or 'standard_only'", param="service_tier", code="invalid_value"
        )
    return tier


def _user(metadata: Metadata | None) -> str | None:
    """Who is asking; a name that is too long stays one name."""
    user = metadata.user_id if metadata is not None else None
    if user is None or len(user) <= MOST_USER:
        return user or None
    return hashlib.sha256(user.encode()).hexdigest()
