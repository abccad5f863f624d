"""What is read of a streamed chat's events."""

import msgspec

from gateway.bodies import NULL, Usage


class Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = NULL


class OpeningChoice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    delta: dict[str, msgspec.Raw] | None = None
    text: str | None = None


class OpeningChunk(msgspec.Struct, gc=False):
    choices: list[OpeningChoice] = []
    usage: Usage | None = None
    error: msgspec.Raw = NULL
