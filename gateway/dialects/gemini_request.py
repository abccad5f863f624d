"""OpenAI's chat request as the Gemini API takes it. Nothing is lost in silence: what Gemini cannot do is refused by name.

`docs/providers.md` has the table of all fields; a test holds both together.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw

from gateway import errors, wire
from gateway.bodies import NULL
from gateway.dialect import Outgoing
from gateway.dialects.chat import Chat
from gateway.dialects.gemini_contents import conversation
from gateway.dialects.gemini_models import thinking, traits
from gateway.dialects.gemini_tools import answer_format, toolbox
from gateway.dialects.gemini_wire import GenerateContentRequest, GenerationConfig, MaybeRaw, ThinkingConfig
from gateway.wire import present

MOST_STOPS: Final = 5


class GoogleBody(msgspec.Struct, frozen=True, gc=False):
    """What Google's compatible endpoint takes beside OpenAI's fields."""

    thinking_config: Raw = NULL
    cached_content: str | None = None
    safety_settings: Raw = NULL


class ExtraBody(msgspec.Struct, gc=False):
    google: GoogleBody = GoogleBody()


class GeminiChat(Chat, gc=False):
    """The last five are extensions."""

    n: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    thinking_config: Raw = NULL
    cached_content: str | None = None
    safety_settings: Raw = NULL
    extra_body: ExtraBody | None = None


# Anthropic's, and what is only good for OpenAI's own books.
_NOT_GEMINIS: Final = frozenset({"betas", "cache_control", "output_config", "safety_identifier", "thinking", "user"})
TRANSLATED: Final = frozenset(GeminiChat.__struct_fields__) - _NOT_GEMINIS

# Without effect on the answer: hints to caches, what is kept where, who asked, and a draft to be faster by.
LEFT_OUT: Final = frozenset(
    {
        "cache_control",
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream_options",
        "user",
    }
)

# What Gemini does not have, or not over chat, with the values that ask for nothing. Null never does.
REFUSED: Final[Mapping[str, tuple[object, ...]]] = {
    "audio": (),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "moderation": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}

_MODALITIES: Final[Mapping[str, str]] = {"text": "TEXT", "image": "IMAGE"}
_TIERS: Final[Mapping[str, str | None]] = {
    "auto": None,
    "default": "standard",
    "flex": "flex",
    "priority": "priority",
}
_chat: Final = msgspec.json.Decoder(GeminiChat)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def generate_request(body: bytes, model: str) -> Outgoing:
    """The request for the upstream's `model`. Raises BadRequest."""
    chat = wire.parse(_chat, body)
    _check(_fields.decode(body))
    of = traits(model)
    system, contents = conversation(chat.messages, of)
    box = toolbox(chat)
    google = GoogleBody() if chat.extra_body is None else chat.extra_body.google
    request = GenerateContentRequest(
        contents=contents,
        system_instruction=system,
        tools=box.tools,
        tool_config=box.config,
        safety_settings=_first(chat.safety_settings, google.safety_settings),
        generation_config=_config(chat, model, _first(chat.thinking_config, google.thinking_config)),
        cached_content=chat.cached_content or google.cached_content,
        service_tier=_tier(chat.service_tier),
    )
    method = "streamGenerateContent?alt=sse" if chat.stream is True else "generateContent"
    return Outgoing(f"/{resource(model)}:{method}", _encode(request))


def resource(model: str) -> str:
    """A model's name as part of a path: a tuned one says what it is itself. What clients can write into a name stays a name."""
    collection, slash, name = model.partition("/")
    if not slash or collection not in {"models", "tunedModels"}:
        collection, name = "models", model
    return f"{collection}/{quote(name, safe='')}"


def _config(chat: GeminiChat, model: str, given: MaybeRaw) -> GenerationConfig | None:
    wanted = answer_format(chat.response_format)
    thoughts: ThinkingConfig | MaybeRaw = given
    if given is UNSET and chat.reasoning_effort is not None:
        thoughts = thinking(chat.reasoning_effort, traits(model)) or UNSET
    config = GenerationConfig(
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        candidate_count=chat.n,
        max_output_tokens=max(chat.max_tokens or 0, chat.max_completion_tokens or 0) or None,
        stop_sequences=_stop(chat.stop),
        seed=chat.seed,
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
        response_logprobs=chat.logprobs is True,
        logprobs=(chat.top_logprobs or None) if chat.logprobs is True else None,
        response_mime_type=wanted.mime_type,
        response_json_schema=wanted.schema,
        response_modalities=_modalities(chat.modalities),
        thinking_config=thoughts,
    )
    return None if config == GenerationConfig() else config


def _check(fields: Mapping[str, Raw]) -> None:
    """Refuses what cannot be done. An unknown name may mean anything, and OpenAI refuses it as well."""
    for name, value in fields.items():
        if name in TRANSLATED or name in LEFT_OUT or not present(value):
            continue
        if name not in REFUSED:
            raise errors.BadRequest(f"Unknown parameter: '{name}'", param=name, code="unknown_parameter")
        if msgspec.json.decode(value) not in REFUSED[name]:
            raise errors.BadRequest(
                f"Gemini has nothing like '{name}'; leave it out", param=name, code="unsupported_parameter"
            )


def _first(*given: Raw) -> MaybeRaw:
    """The first that is there."""
    return next((value for value in given if present(value)), UNSET)


def _stop(given: str | list[str] | None) -> list[str] | None:
    sequences = [given] if isinstance(given, str) else given
    if sequences is not None and len(sequences) > MOST_STOPS:
        raise errors.BadRequest(f"Gemini stops at {MOST_STOPS} sequences at most", param="stop", code="invalid_value")
    return sequences or None


def _modalities(given: Sequence[str] | None) -> list[str] | None:
    """Text alone is what most models make anyway, and some refuse to be asked for it."""
    if not given or list(given) == ["text"]:
        return None
    for name in given:
        if name not in _MODALITIES:
            raise errors.BadRequest(
                f"Over chat Gemini answers in text and images, not {name!r}",
                param="modalities",
                code="unsupported_value",
            )
    return [_MODALITIES[name] for name in given]


def _tier(given: str | None) -> str | None:
    if given is None:
        return None
    if given not in _TIERS:
        raise errors.BadRequest(
            f"Gemini has no service tier {given!r}, only 'auto', 'default', 'flex' and 'priority'",
            param="service_tier",
            code="unsupported_value",
        )
    return _TIERS[given]
