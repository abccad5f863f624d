"""OpenAI's chat request as far as a translation reads it, with what clients add to it for providers that can do more.

Bounds that every provider shares were checked by `gateway.wire` before.
"""

from typing import Final

import msgspec
from msgspec import Raw

from gateway.bodies import NULL


class ImageUrl(msgspec.Struct, gc=False):
    url: str


class File(msgspec.Struct, gc=False):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class InputAudio(msgspec.Struct, gc=False):
    """`data` is base64, `format` the end of a file's name."""

    data: str
    format: str


class Part(msgspec.Struct, gc=False):
    """A piece of a message's content. `cache_control` is Anthropic's, and goes to it unread; `video_url` is what vLLM calls it."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    video_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    cache_control: Raw = NULL


class GoogleContent(msgspec.Struct, gc=False):
    thought_signature: str | None = None


class ExtraContent(msgspec.Struct, gc=False):
    """What Google's compatible endpoint adds to calls and messages: the thoughts that led to them, sealed."""

    google: GoogleContent | None = None


class CalledFunction(msgspec.Struct, gc=False):
    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, gc=False):
    id: str
    type: str = "function"
    function: CalledFunction | None = None
    cache_control: Raw = NULL
    extra_content: ExtraContent | None = None


class Message(msgspec.Struct, gc=False):
    """`thinking_blocks` come from an answer of Claude's and go back as they are, `extra_content` from one of Gemini's."""

    role: str
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    thinking_blocks: list[Raw] | None = None
    cache_control: Raw = NULL
    name: str | None = None
    extra_content: ExtraContent | None = None


class Function(msgspec.Struct, gc=False):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    cache_control: Raw = NULL


class Tool(msgspec.Struct, gc=False):
    type: str = "function"
    function: Function | None = None
    cache_control: Raw = NULL


class NamedFunction(msgspec.Struct, gc=False):
    name: str


class AllowedTool(msgspec.Struct, gc=False):
    function: NamedFunction | None = None


class AllowedTools(msgspec.Struct, gc=False):
    mode: str = "auto"
    tools: list[AllowedTool] = []


class ToolChoice(msgspec.Struct, gc=False):
    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(msgspec.Struct, gc=False):
    """`schema` may be anything that is a JSON schema; `dict` so that it can be looked into."""

    name: str = ""
    description: str | None = None
    schema: dict[str, object] | None = None


class ResponseFormat(msgspec.Struct, gc=False):
    type: str
    json_schema: JsonSchema | None = None


class Chat(msgspec.Struct, gc=False):
    """`POST /v1/chat/completions`. The last five are extensions."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    top_k: int | None = None
    thinking: Raw = NULL
    output_config: dict[str, Raw] | None = None
    cache_control: Raw = NULL
    betas: str | list[str] | None = None


chat_decoder: Final = msgspec.json.Decoder(Chat)
