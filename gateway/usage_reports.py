"""How each dialect reports usage: what the decoder reads of it. OpenAI's own, which is on the hot path, is in `gateway.wire`."""

import msgspec


class Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None


class ResponsesUsage(msgspec.Struct, gc=False):
    """`/v1/responses`, `/v1/images/*`. The second name of the details is the one that audio endpoints use."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: Details | None = None
    input_token_details: Details | None = None
    output_tokens_details: Details | None = None


class TranscriptionUsage(msgspec.Struct, gc=False):
    """`/v1/audio/transcriptions`: `type` is `duration` or `tokens`."""

    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: Details | None = None


class CacheCreation(msgspec.Struct, gc=False):
    """What was written to Anthropic's cache, by how long it is kept."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class ServerTools(msgspec.Struct, gc=False):
    web_search_requests: int | None = None


class OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class AnthropicUsage(msgspec.Struct, gc=False):
    """`/v1/messages`. On a stream, `message_start` has the input and the last `message_delta` the output."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerTools | None = None
    output_tokens_details: OutputDetails | None = None
    service_tier: str | None = None


class Modality(msgspec.Struct, gc=False, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class GeminiUsage(msgspec.Struct, gc=False, rename="camel"):
    """`usageMetadata` of generateContent."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    prompt_tokens_details: list[Modality] | None = None
    candidates_tokens_details: list[Modality] | None = None
