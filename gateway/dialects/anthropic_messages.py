"""OpenAI's messages as the Messages API wants them: instructions apart, turns that alternate, tool results in the user's turn."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import msgspec
from msgspec import UNSET, Raw

from gateway import errors
from gateway.dialects.anthropic_wire import (
    Base64Source,
    Block,
    Document,
    Image,
    MaybeRaw,
    Said,
    Text,
    TextSource,
    ToolResult,
    ToolUse,
    Turn,
    UrlSource,
)
from gateway.dialects.chat import File, Message, Part, ToolCall
from gateway.wire import present

_DATA: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[\w.+-]+)*;base64,")
_NOT_IN_AN_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")  # the API refuses other providers' ids that have more
_SYSTEM: Final = frozenset({"system", "developer"})
_object: Final = msgspec.json.Decoder(dict[str, Raw])


def conversation(messages: Sequence[Message]) -> tuple[list[Text], list[Turn]]:
    """Instructions and turns. Instructions go in front wherever they stood, as Anthropic's compatible endpoint has it."""
    system, turns = parts(messages)
    if not turns:
        raise errors.BadRequest("Claude needs at least one message with content from the user", param="messages")
    for turn in turns:
        turn.content.sort(key=lambda block: not isinstance(block, ToolResult))  # results stand first in their turn
    _trim(turns[-1])
    return system, turns


def parts(messages: Sequence[Message]) -> tuple[list[Text], list[Turn]]:
    """Instructions and turns, of which there may be none: a conversation, or the beginning of one."""
    system: list[Text] = []
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message.role in _SYSTEM:
            system.extend(_instructions(message, at))
            continue
        role, blocks = _blocks(message, at)
        if not blocks:
            continue  # the API refuses empty turns
        if turns and turns[-1].role == role:
            turns[-1].content.extend(blocks)
        else:
            turns.append(Turn(role, blocks))
    return system, turns


def cache_control(*given: Raw) -> MaybeRaw:
    """The first that is there."""
    return next((value for value in given if present(value)), UNSET)


def tool_id(given: str) -> str:
    """An id that the API takes; the same for a call and its result."""
    return _NOT_IN_AN_ID.sub("_", given) or "_"


def _trim(last: Turn) -> None:
    """An answer that was begun may not end in white space."""
    if last.role == "assistant" and last.content and isinstance(text := last.content[-1], Text):
        last.content[-1] = msgspec.structs.replace(text, text=text.text.rstrip())


def _instructions(message: Message, at: str) -> Iterator[Text]:
    for block in _said(message, at):
        if not isinstance(block, Text):
            raise errors.BadRequest("Instructions are text alone", param=f"{at}.content", code="invalid_value")
        yield block


def _blocks(message: Message, at: str) -> tuple[str, list[Block]]:
    match message.role:
        case "user":
            return "user", list(_said(message, at))
        case "assistant":
            return "assistant", _assistant(message, at)
        case "tool":
            return "user", [_result(message, at)]
        case "function":
            raise errors.BadRequest(
                "Messages of the role 'function' are deprecated; use 'tools' and the role 'tool'",
                param=f"{at}.role",
                code="unsupported_value",
            )
        case other:
            raise errors.BadRequest(f"Unknown role {other!r}", param=f"{at}.role", code="invalid_value")


def _assistant(message: Message, at: str) -> list[Block]:
    """Thinking first, as the API wants it, then what was said, then the calls."""
    blocks: list[Block] = list(message.thinking_blocks or ())
    blocks.extend(_said(message, at))
    if message.refusal:
        blocks.append(Text(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        blocks.append(_call(call, f"{at}.tool_calls[{index}]"))
    return blocks


def _call(call: ToolCall, at: str) -> ToolUse:
    function = call.function
    if function is None:
        raise errors.BadRequest("Only calls of functions can be sent to Claude", param=at, code="unsupported_value")
    arguments = function.arguments.strip() or "{}"
    try:
        _object.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise errors.BadRequest(
            "A call's arguments must be a JSON object", param=f"{at}.function.arguments", code="invalid_value"
        ) from None
    return ToolUse(tool_id(call.id), function.name, Raw(arguments.encode()), cache_control(call.cache_control))


def _result(message: Message, at: str) -> ToolResult:
    if message.tool_call_id is None:
        raise errors.BadRequest(
            f"Missing required parameter: '{at}.tool_call_id'",
            param=f"{at}.tool_call_id",
            code="missing_required_parameter",
        )
    control = cache_control(message.cache_control)
    said = list(_said(msgspec.structs.replace(message, cache_control=Raw(b"null")), at))
    return ToolResult(tool_id(message.tool_call_id), said or None, control)


def _said(message: Message, at: str) -> Iterator[Said]:
    """A message's content without what is blank, which the API refuses. A mark on the message is its last block's."""
    content = message.content
    control = cache_control(message.cache_control)
    if content is None:
        return
    if isinstance(content, str):
        if content.strip():
            yield Text(content, control)
        return
    last = len(content) - 1
    for index, part in enumerate(content):
        block = _block(part, f"{at}.content[{index}]")
        if block is not None:
            marked = index == last and block.cache_control is UNSET
            yield msgspec.structs.replace(block, cache_control=control) if marked else block


def _block(part: Part, at: str) -> Said | None:
    control = cache_control(part.cache_control)
    match part.type:
        case "text" | "refusal":
            text = part.text or part.refusal
            return Text(text, control) if text and text.strip() else None
        case "image_url":
            link = part.image_url
            if link is None:
                _missing(f"{at}.image_url")
            return Image(_picture(link if isinstance(link, str) else link.url, f"{at}.image_url"), control)
        case "file":
            if part.file is None:
                _missing(f"{at}.file")
            return _file(part.file, control, f"{at}.file")
        case other:
            raise errors.BadRequest(
                f"Claude takes text, images and documents, not {other!r}", param=f"{at}.type", code="unsupported_value"
            )


def _picture(url: str, at: str) -> Base64Source | UrlSource:
    found = _DATA.match(url)
    if found is not None:
        return Base64Source(found[1], url[found.end() :])
    if url.startswith(("https://", "http://")):
        return UrlSource(url)
    raise errors.BadRequest("An image is an http(s) address or a data: URI in base64", param=at, code="invalid_value")


def _file(file: File, control: MaybeRaw, at: str) -> Said:
    """PDF and plain text become documents, pictures images. Stored files are not known to the provider."""
    if file.file_data is None:
        raise errors.BadRequest(
            "Claude takes a file by its 'file_data', not by an id", param=f"{at}.file_id", code="unsupported_value"
        )
    found = _DATA.match(file.file_data)
    if found is None:
        if file.file_data.startswith("https://"):
            return Document(UrlSource(file.file_data), file.filename, control)
        raise errors.BadRequest(
            "A file is a data: URI in base64 or an https address", param=f"{at}.file_data", code="invalid_value"
        )
    kind, data = found[1], file.file_data[found.end() :]
    if kind.startswith("image/"):
        return Image(Base64Source(kind, data), control)
    if kind == "text/plain":
        return Document(TextSource(_decoded(data, at)), file.filename, control)
    return Document(Base64Source(kind, data), file.filename, control)  # anything but a PDF the API refuses itself


def _decoded(data: str, at: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise errors.BadRequest(
            "The file is not text in base64", param=f"{at}.file_data", code="invalid_value"
        ) from None


def _missing(param: str) -> NoReturn:
    raise errors.BadRequest(f"Missing required parameter: '{param}'", param=param, code="missing_required_parameter")
