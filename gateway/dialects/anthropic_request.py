"""OpenAI's chat request as the Messages API takes it. Nothing is lost in silence: what Claude cannot do is refused by name.

`docs/providers.md` has the table of all fields; a test holds both together.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from gateway import errors, wire
from gateway.dialect import Outgoing
from gateway.dialects.anthropic_messages import cache_control, conversation
from gateway.dialects.anthropic_models import Traits, traits
from gateway.dialects.anthropic_thinking import Reasoning, Thinking, reasoning
from gateway.dialects.anthropic_tools import answer_format, toolbox
from gateway.dialects.anthropic_wire import MaybeRaw, MessagesRequest, Metadata
from gateway.dialects.chat import Chat, Message, chat_decoder
from gateway.wire import present

PATH: Final = "/messages"
DEFAULT_MAX_TOKENS: Final = 4096  # the API wants a limit; the gateway names the one that it holds money for
LEAST_TOP_P: Final = 0.95  # the least that goes with thinking

TRANSLATED: Final = frozenset(
    {
        "betas", "cache_control", "max_completion_tokens", "max_tokens", "messages", "model", "output_config", "parallel_tool_calls",
        "reasoning_effort", "response_format", "safety_identifier", "service_tier", "stop", "stream", "temperature", "thinking",
        "tool_choice", "tools", "top_k", "top_p", "user",
    }
)  # fmt: skip

# Without effect on the answer: hints to caches, what is kept where, a draft to be faster by, and a seed that promises nothing.
LEFT_OUT: Final = frozenset(
    {
        "metadata", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "seed", "store",
        "stream_options",
    }
)  # fmt: skip

# What Claude does not have, with the values that ask for nothing. Null never does.
REFUSED: Final[Mapping[str, tuple[object, ...]]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"], []),
    "moderation": (),
    "n": (1,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

_TIERS: Final[Mapping[str, str]] = {"auto": "auto", "default": "standard_only", "priority": "auto"}
_BETA: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def messages_request(body: bytes, model: str) -> Outgoing:
    """The request for the upstream's `model`. Raises BadRequest."""
    chat = wire.parse(chat_decoder, body)
    _check(_fields.decode(body))
    of = traits(model)
    wanted = answer_format(chat.response_format, of)
    box = toolbox(chat, of, wanted.tool)
    system, turns = conversation(chat.messages)
    if wanted.instruction is not None:
        system.append(wanted.instruction)
    max_tokens = max(chat.max_tokens or 0, chat.max_completion_tokens or 0) or DEFAULT_MAX_TOKENS
    given = _reasoning(chat, of, max_tokens, forced=box.forced)
    thinks = given.thinking is not None and given.thinking.on
    user = chat.user or chat.safety_identifier
    request = MessagesRequest(
        model=model,
        max_tokens=max_tokens,
        messages=turns,
        system=system or None,
        stream=chat.stream is True,
        temperature=None if thinks or chat.temperature is None else min(chat.temperature, 1.0),
        top_p=None if thinks and (chat.top_p or 0) < LEAST_TOP_P else chat.top_p,
        top_k=None if thinks else chat.top_k,
        stop_sequences=_stop(chat.stop),
        tools=box.tools,
        tool_choice=box.choice,
        thinking=_thinking(chat, given),
        output_config=_output_config(chat.output_config, given, wanted.schema),
        metadata=Metadata(user) if user else None,
        service_tier=_tier(chat.service_tier),
        cache_control=cache_control(chat.cache_control),
    )
    return Outgoing(PATH, _encode(request), _betas(chat.betas))


def _check(fields: Mapping[str, Raw]) -> None:
    """Refuses what cannot be done. An unknown name may mean anything, and OpenAI refuses it as well."""
    for name, value in fields.items():
        if name in TRANSLATED or name in LEFT_OUT or not present(value):
            continue
        if name not in REFUSED:
            raise errors.BadRequest(f"Unknown parameter: '{name}'", param=name, code="unknown_parameter")
        if msgspec.json.decode(value) not in REFUSED[name]:
            raise errors.BadRequest(
                f"Claude has nothing like '{name}'; leave it out", param=name, code="unsupported_parameter"
            )


def _reasoning(chat: Chat, of: Traits, max_tokens: int, *, forced: bool) -> Reasoning:
    if chat.reasoning_effort is None:
        return Reasoning()
    unsigned = _unsigned(chat.messages)
    return reasoning(chat.reasoning_effort, of, max_tokens, possible=not forced, unsigned=unsigned)


def _unsigned(messages: Sequence[Message]) -> bool:
    """Whether tool results answer calls that came without the thinking that led to them."""
    if not messages or messages[-1].role != "tool":
        return False
    calling = next((message for message in reversed(messages) if message.role == "assistant"), None)
    return calling is not None and not calling.thinking_blocks


def _thinking(chat: Chat, given: Reasoning) -> Thinking | MaybeRaw:
    """The client's own words go before what was made of `reasoning_effort`."""
    if present(chat.thinking):
        return chat.thinking
    return UNSET if given.thinking is None else given.thinking


def _output_config(given: Mapping[str, Raw] | None, made: Reasoning, schema: Raw | None) -> dict[str, Raw] | None:
    config = dict(given or {})
    if made.effort is not None:
        config.setdefault("effort", Raw(_encode(made.effort)))
    if schema is not None:
        config["format"] = Raw(b'{"type":"json_schema","schema":%b}' % bytes(schema))
    return config or None


def _stop(given: str | list[str] | None) -> list[str] | None:
    sequences = [given] if isinstance(given, str) else given
    for sequence in sequences or ():
        if not sequence.strip():
            raise errors.BadRequest("Claude does not stop at white space alone", param="stop", code="unsupported_value")
    return sequences or None


def _tier(given: str | None) -> str | None:
    if given is None:
        return None
    tier = _TIERS.get(given)
    if tier is None:
        raise errors.BadRequest(
            f"Anthropic has no service tier {given!r}, only 'auto', 'default' and 'priority'",
            param="service_tier",
            code="unsupported_value",
        )
    return tier


def _betas(given: str | list[str] | None) -> tuple[tuple[str, str], ...]:
    names = given.split(",") if isinstance(given, str) else given or ()
    wanted = [name.strip() for name in names if name.strip()]
    for name in wanted:
        if _BETA.fullmatch(name) is None:
            raise errors.BadRequest(f"{name!r} cannot be the name of a beta", param="betas", code="invalid_value")
    return (("anthropic-beta", ",".join(wanted)),) if wanted else ()
