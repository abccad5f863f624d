"""What goes to the Messages API: blocks, turns, tools and the request around them. Fields that are not set are left out."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.dialects.anthropic_thinking import Thinking

MaybeRaw = Raw | UnsetType


class Base64Source(msgspec.Struct, tag="base64", frozen=True):
    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag="url", frozen=True):
    url: str


class TextSource(msgspec.Struct, tag="text", frozen=True):
    data: str
    media_type: str = "text/plain"


class Text(msgspec.Struct, tag="text", frozen=True, omit_defaults=True):
    text: str
    cache_control: MaybeRaw = UNSET


class Image(msgspec.Struct, tag="image", frozen=True, omit_defaults=True):
    source: Base64Source | UrlSource
    cache_control: MaybeRaw = UNSET


class Document(msgspec.Struct, tag="document", frozen=True, omit_defaults=True):
    source: Base64Source | UrlSource | TextSource
    title: str | None = None
    cache_control: MaybeRaw = UNSET


class ToolUse(msgspec.Struct, tag="tool_use", frozen=True, omit_defaults=True):
    id: str
    name: str
    input: Raw
    cache_control: MaybeRaw = UNSET


class ToolResult(msgspec.Struct, tag="tool_result", frozen=True, omit_defaults=True):
    tool_use_id: str
    content: list[Text | Image | Document] | None = None
    cache_control: MaybeRaw = UNSET


Said = Text | Image | Document
Block = Said | ToolUse | ToolResult | Raw  # raw: thinking, which must come back as it was given


class Turn(msgspec.Struct, frozen=True):
    role: str
    content: list[Block]


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    input_schema: Raw
    description: str | None = None
    strict: bool = False
    cache_control: MaybeRaw = UNSET


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Metadata(msgspec.Struct, frozen=True):
    user_id: str


class MessagesRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/messages`."""

    model: str
    max_tokens: int
    messages: list[Turn]
    system: list[Text] | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | MaybeRaw = UNSET
    output_config: dict[str, Raw] | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    cache_control: MaybeRaw = UNSET
