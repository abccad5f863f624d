"""OpenAI's bodies as types: what is read of a request and of an answer, and what reads it."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
ModelName = Annotated[str, Meta(min_length=1, max_length=512)]

NULL = msgspec.Raw(b"null")  # the default of a raw field: `Raw | None` would make the decoder take null alone


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class Message(msgspec.Struct, gc=False):
    role: str


class ChatRequest(msgspec.Struct, gc=False):
    """`POST /v1/chat/completions`."""

    model: ModelName
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None
    service_tier: str | None = None
    prediction: msgspec.Raw = NULL  # what of it is not in the answer is billed as output
    tools: msgspec.Raw = NULL
    functions: msgspec.Raw = NULL


class ResponsesRequest(ChatRequest, gc=False, kw_only=True):
    """`POST /v1/responses`, read as the chat that it stands for: it has `input` instead of messages, and another name for its limit."""

    messages: list[Message] = []
    max_completion_tokens: Positive | None = msgspec.field(default=None, name="max_output_tokens")


class CompletionRequest(msgspec.Struct, gc=False):
    """`POST /v1/completions`."""

    model: ModelName
    prompt: str | list[Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    n: Positive | None = None
    best_of: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    user: str | None = None
    service_tier: str | None = None


class EmbeddingRequest(msgspec.Struct, gc=False):
    """`POST /v1/embeddings`."""

    model: ModelName
    input: str | list[Any]
    dimensions: Positive | None = None
    user: str | None = None
    stream: None = None  # embeddings do not stream


class Counted(msgspec.Struct, kw_only=True):
    """A request whose answer has no length that could be limited, and that is billed by other units: `gateway.units`."""

    model: str
    stream: bool | None = None
    user: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """`cache_write_tokens` is OpenRouter's name for what went into the cache, `cache_creation_tokens` LiteLLM's."""

    cached_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """As OpenAI reports it: cached ⊆ prompt, reasoning ⊆ completion. The last three are what compatible servers say instead of details.

    `gateway.usage` makes the canonical form of it.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None


class Answer(msgspec.Struct, gc=False):
    """What is read of a complete answer. Some upstreams report an error inside a 200, and some an id that is no text."""

    usage: Usage | None = None
    error: msgspec.Raw = NULL
    id: Any = None


class UpstreamFault(msgspec.Struct, gc=False):
    """An upstream's error object; vLLM and others put the same fields at the top. `retry_after_s`: some say it here, not in a header."""

    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    retry_after_s: float | None = None


class ErrorEnvelope(msgspec.Struct, gc=False):
    error: UpstreamFault | str | None = None
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    detail: Any = None


class Asked(msgspec.Struct, gc=False):
    model: str | None = None


Request = ChatRequest | CompletionRequest | EmbeddingRequest | Counted

chat_decoder = msgspec.json.Decoder(ChatRequest)
responses_decoder = msgspec.json.Decoder(ResponsesRequest)
completion_decoder = msgspec.json.Decoder(CompletionRequest)
embedding_decoder = msgspec.json.Decoder(EmbeddingRequest)

RawObject = dict[str, msgspec.Raw]
