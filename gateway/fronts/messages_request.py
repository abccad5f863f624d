"""`POST /v1/messages` as the stages read it. What would cost money that nobody can count is refused here, whoever is to answer."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from gateway import bodies, errors, wire
from gateway.bodies import NULL, ModelName, Probability
from gateway.front import FrontRequest
from gateway.wire import present

_MEDIA: Final = (b'"image', b'"document', b'"file', b"\\u00")  # the last hides a plain letter

# Fields that make Anthropic charge what its answer's usage does not say, or at a price that is not the model's.
UNMETERED: Final[Mapping[str, str]] = {
    "billing_policy": "it changes who pays",
    "compaction": "what it takes is not in the usage that is billed here",
    "container": "its time is billed and not reported",
    "fallback_credit_token": "it changes what is paid",
    "fallbacks": "another model has another price; name fallbacks in the gateway's own configuration",
    "inference_geo": "it changes the price",
}
ASKS_FOR_NOTHING: Final = frozenset((b"null", b'"global"', b"[]"))
# Beginnings of tools' types, likewise; and of those that bring in pages, whose length nobody knows.
UNMETERED_TOOLS: Final = ("code_execution", "advisor")
READERS: Final = ("web_search", "web_fetch")


class Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class _Source(msgspec.Struct, gc=False):
    type: str = ""
    data: str = ""
    content: Raw = NULL


class _Block(msgspec.Struct, gc=False):
    """Of a message. `source` is an object on pictures and documents alone, `content` a list on results."""

    type: str = ""
    source: Raw = NULL
    content: Raw = NULL


class _Typed(msgspec.Struct, gc=False):
    type: str | None = None


class _Edits(msgspec.Struct, gc=False):
    edits: list[_Typed] = []


class _Message(msgspec.Struct, gc=False):
    role: str
    content: Raw = NULL


class _Counted(msgspec.Struct, gc=False):
    """What a count needs as well as an answer."""

    model: ModelName
    messages: Annotated[list[_Message], Meta(min_length=1)]
    tools: Raw = NULL
    metadata: Metadata | None = None
    context_management: Raw = NULL
    speed: str | None = None


class _Asked(_Counted, gc=False, kw_only=True):
    """Bounds are Anthropic's own. A limit of 0 only warms the cache."""

    max_tokens: Annotated[int, Meta(ge=0)]
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Probability | None = None
    service_tier: str | None = None


_counted: Final = msgspec.json.Decoder(_Counted)
_asked: Final = msgspec.json.Decoder(_Asked)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_tools: Final = msgspec.json.Decoder(list[_Typed])
_edits: Final = msgspec.json.Decoder(_Edits)
_blocks: Final = msgspec.json.Decoder(list[_Block])
_source: Final = msgspec.json.Decoder(_Source)


def parse(body: bytes) -> FrontRequest:
    """Raises BadRequest whose `param` names the field."""
    asked = wire.parse(_asked, body)
    request = _request(body, asked)
    request.stream = asked.stream
    request.max_tokens = asked.max_tokens or None
    request.temperature, request.top_p = asked.temperature, asked.top_p
    request.service_tier = asked.service_tier
    return request


def parse_count(body: bytes) -> FrontRequest:
    """A request that is only counted: it names no limit, and has no answer."""
    request = _request(body, wire.parse(_counted, body))
    request.max_tokens = 1
    return request


def _request(body: bytes, asked: _Counted) -> FrontRequest:
    tools = _listed(_tools, asked.tools, "tools")
    _refuse_unmetered(body, asked, tools)
    pictures, inline, files = _media(asked.messages) if any(word in body for word in _MEDIA) else (0, 0, 0)
    return FrontRequest(
        asked.model,
        [bodies.Message(message.role) for message in asked.messages],
        user=None if asked.metadata is None else asked.metadata.user_id,
        tools=asked.tools,
        pictures=pictures,
        inline_bytes=inline,
        files=files + sum((tool.type or "").startswith(READERS) for tool in tools),
    )


def _refuse_unmetered(body: bytes, asked: _Counted, tools: list[_Typed]) -> None:
    try:
        fields = _fields.decode(body)
    except UnicodeDecodeError as error:
        raise errors.BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    for name, why in UNMETERED.items():
        if bytes(fields.get(name, NULL)) not in ASKS_FOR_NOTHING:
            raise _unmetered(name, why)
    if asked.speed not in {None, "standard"}:
        raise _unmetered("speed", "it changes the price")
    for index, tool in enumerate(tools):
        if tool.type is not None and tool.type.startswith(UNMETERED_TOOLS):
            raise _unmetered(f"tools.{index}.type", f"what {tool.type!r} takes is billed and not reported")
    if present(asked.context_management):
        edits = wire.parse(_edits, bytes(asked.context_management)).edits
        for index, edit in enumerate(edits):
            if (edit.type or "").startswith("compact"):
                raise _unmetered(f"context_management.edits.{index}", UNMETERED["compaction"])


def _unmetered(at: str, why: str) -> errors.BadRequest:
    return errors.BadRequest(f"'{at}' cannot be metered here: {why}", param=at, code="unmetered")


def _listed(decoder: msgspec.json.Decoder[list[_Typed]], raw: Raw, at: str) -> list[_Typed]:
    if not present(raw):
        return []
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"Invalid '{at}': {error}", param=at, code="invalid_type") from None


def _media(messages: list[_Message]) -> tuple[int, int, int]:
    """Pictures, the bytes of those that are in the body, and files that are only referred to. An unknown shape has none."""
    pictures = inline = files = 0
    for message in messages:
        for block in _every(message.content):
            if block.type == "image":
                pictures += 1
                inline += len(_read(block.source).data)
            elif block.type in {"document", "container_upload"}:
                source = _read(block.source)
                if source.type == "base64":
                    inline += len(source.data)
                files += source.type not in {"text", "content"}
    return pictures, inline, files


def _every(content: Raw) -> Iterator[_Block]:
    """Blocks, and those within results and documents."""
    if not bytes(content).startswith(b"["):
        return
    try:
        blocks = _blocks.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return
    for block in blocks:
        yield block
        yield from _every(block.content)
        if block.type == "document":
            yield from _every(_read(block.source).content)


def _read(source: Raw) -> _Source:
    try:
        return _source.decode(source)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Source()
