"""What goes out as a chat: messages, parts, calls and tools. Fields that are not set are left out."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

MaybeRaw = Raw | UnsetType


class Text(msgspec.Struct, tag="text", frozen=True, omit_defaults=True):
    text: str
    cache_control: MaybeRaw = UNSET


class Link(msgspec.Struct, frozen=True):
    url: str


class Image(msgspec.Struct, tag="image_url", frozen=True, omit_defaults=True):
    image_url: Link
    cache_control: MaybeRaw = UNSET


class FileData(msgspec.Struct, frozen=True, omit_defaults=True):
    file_data: str
    filename: str | None = None


class File(msgspec.Struct, tag="file", frozen=True, omit_defaults=True):
    file: FileData
    cache_control: MaybeRaw = UNSET


Part = Text | Image | File


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class Google(msgspec.Struct, frozen=True):
    thought_signature: str


class Extra(msgspec.Struct, frozen=True):
    google: Google


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    function: CalledFunction
    type: str
    extra_content: Extra | None = None


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | list[Part] | None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Raw] | None = None


class Function(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: MaybeRaw = UNSET
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    function: Function
    type: str
    cache_control: MaybeRaw = UNSET
