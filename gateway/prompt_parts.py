"""What is read of a prompt to bound its tokens."""

import msgspec

from gateway.bodies import NULL


class Link(msgspec.Struct, gc=False):
    url: str | None = None


class Part(msgspec.Struct, gc=False):
    type: str | None = None
    image_url: Link | str | None = None


class Message(msgspec.Struct, gc=False):
    content: str | list[Part | str] | None = None
    audio: msgspec.Raw = NULL
    output: str | list[Part | str] | None = None


class Conversation(msgspec.Struct, gc=False):
    """`input` is the Responses API's name for messages and what stands between them."""

    messages: list[Message] = []
    input: str | list[Message] = ""


class Tool(msgspec.Struct, gc=False):
    type: str | None = None
