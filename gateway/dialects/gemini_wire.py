"""What goes to the Gemini API: contents, tools and the request around them. Fields that are not set are left out."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

MaybeRaw = Raw | UnsetType


class Blob(msgspec.Struct, frozen=True, rename="camel"):
    """`data` is base64."""

    mime_type: str
    data: str


class FileData(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    file_uri: str
    mime_type: str | None = None


class FunctionCall(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    args: Raw
    id: str | None = None


class FunctionResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """`response` is an object; `parts` are the pictures that belong to it."""

    name: str
    response: Raw
    id: str | None = None
    parts: "list[Part] | None" = None


class Part(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One of the first five, and what sealed thoughts go with it."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought_signature: str | None = None


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    parts: list[Part]
    role: str | None = None


class FunctionDeclaration(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    name: str
    description: str | None = None
    parameters_json_schema: MaybeRaw = UNSET


class Tool(msgspec.Struct, frozen=True, rename="camel"):
    function_declarations: list[FunctionDeclaration]


class FunctionCallingConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    mode: str
    allowed_function_names: list[str] | None = None


class ToolConfig(msgspec.Struct, frozen=True, rename="camel"):
    function_calling_config: FunctionCallingConfig


class ThinkingConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Thoughts are asked for, as a stream that thinks in silence looks stalled."""

    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_json_schema: MaybeRaw = UNSET
    response_modalities: list[str] | None = None
    thinking_config: ThinkingConfig | MaybeRaw = UNSET


class GenerateContentRequest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """`POST models/{model}:generateContent`, and `:streamGenerateContent`."""

    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None
    safety_settings: MaybeRaw = UNSET
    generation_config: GenerationConfig | None = None
    cached_content: str | None = None
    service_tier: str | None = None


class EmbedContentRequest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    model: str
    content: Content
    output_dimensionality: int | None = None
    task_type: str | None = None


class BatchEmbedContentsRequest(msgspec.Struct, frozen=True):
    """`POST models/{model}:batchEmbedContents`."""

    requests: list[EmbedContentRequest]
