"""Kinds of endpoints, and which of them a deployment can serve: by what its configuration says, else by its provider."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from gateway.providers import DISTILLED, EMBEDDED, PROVIDERS, QUOTES, RERANKER, SENTENCE_TRANSFORMERS

Kind = Literal[
    "chat",
    "completion",
    "embedding",
    "rerank",
    "moderation",
    "speech",
    "transcription",
    "translation",
    "image",
    "image_edit",
    "image_variation",
    "realtime",
]
Kinds = frozenset[Kind]

EVERY: Final[Kinds] = frozenset(get_args(Kind))
TEXT: Final[Kinds] = frozenset(("chat", "completion", "embedding"))  # a provider that lacks one of these says so itself
AUDIO: Final[Kinds] = frozenset(("speech", "transcription", "translation"))

# What providers have beside text, behind the base URL of their OpenAI-compatible API. Who is not listed and not an engine has nothing.
_BESIDE_TEXT: Final[Mapping[str, Kinds]] = MappingProxyType(
    {
        "azure": AUDIO | {"image", "image_edit", "realtime"},
        "cohere": frozenset(("rerank",)),
        "deepinfra": AUDIO | {"image", "image_edit", "image_variation"},
        "fireworks": frozenset(("rerank",)),
        "groq": AUDIO,
        "mistral": frozenset(("moderation", "transcription")),
        "nebius": frozenset(("image",)),
        "novita": frozenset(("rerank",)),
        "sambanova": frozenset(("transcription", "translation")),
        "scaleway": frozenset(("rerank", "transcription")),
        "siliconflow": frozenset(("rerank", "speech", "transcription", "image")),
        "together": AUDIO | {"rerank", "image"},
        "xai": frozenset(("image", "image_edit")),
        "zai": frozenset(("image",)),
    }
)
# Those in this process.
_HERE: Final[Mapping[str, Kinds]] = MappingProxyType(
    {
        EMBEDDED: frozenset(("embedding",)),
        SENTENCE_TRANSFORMERS: frozenset(("embedding",)),
        QUOTES: frozenset(("chat",)),
        DISTILLED: frozenset(("chat",)),
        RERANKER: frozenset(("rerank",)),
    }
)
_ANY: Final = frozenset(
    ("openai", "vllm", "sglang", "llamacpp")
)  # "any compatible URL", and engines that serve whatever they load

# What LiteLLM's map calls a model's mode.
MODES: Final[Mapping[str, Kinds]] = MappingProxyType(
    {
        "chat": frozenset(("chat",)),
        "responses": frozenset(("chat",)),
        "completion": frozenset(("completion",)),
        "embedding": frozenset(("embedding",)),
        "rerank": frozenset(("rerank",)),
        "moderation": frozenset(("moderation",)),
        "audio_speech": frozenset(("speech",)),
        "audio_transcription": frozenset(("transcription", "translation")),
        "image_generation": frozenset(("image", "image_edit")),
        "image_edit": frozenset(("image_edit",)),
        "realtime": frozenset(("realtime",)),
    }
)

PATHS: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "chat": ("/v1/chat/completions", "/v1/messages", "/v1/responses"),
        "completion": ("/v1/completions",),
        "embedding": ("/v1/embeddings",),
        "rerank": ("/v1/rerank", "/v2/rerank"),
        "moderation": ("/v1/moderations",),
        "speech": ("/v1/audio/speech",),
        "transcription": ("/v1/audio/transcriptions",),
        "translation": ("/v1/audio/translations",),
        "image": ("/v1/images/generations",),
        "image_edit": ("/v1/images/edits",),
        "image_variation": ("/v1/images/variations",),
        "realtime": ("/v1/realtime",),
    }
)


def served_by(provider: str) -> Kinds | None:
    """What a provider has; None: whatever is asked of it. A name that is not known is a compatible server of somebody's own."""
    known = PROVIDERS.get(provider)
    if known is None or provider in _ANY:
        return None
    if provider in _HERE:
        return _HERE[provider]
    return TEXT | _BESIDE_TEXT.get(provider, frozenset())
