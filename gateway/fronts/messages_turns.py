"""Turns of the Messages API as chat's messages. Results of tools become messages of their own, before what else their turn says.

Thoughts of earlier turns are left out, as Anthropic itself does it; those of a turn that still waits for a tool go back to a provider
that reads them.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from gateway import errors, wire
from gateway.bodies import NULL
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.fronts import messages_seals
from gateway.fronts.chat_wire import (
    Call,
    CalledFunction,
    Extra,
    File,
    FileData,
    Google,
    Image,
    Link,
    MaybeRaw,
    Message,
    Part,
    Text,
)
from gateway.fronts.messages_reach import Reach
from gateway.wire import present

FAILED: Final = "Error: "  # before the result of a tool that failed, for which chat has no field
PICTURE_BELOW: Final = "(see the picture below)"


class Turn(msgspec.Struct, gc=False):
    role: str
    content: Raw = NULL


class _Source(msgspec.Struct, gc=False):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    content: Raw = NULL


class _Citations(msgspec.Struct, gc=False):
    enabled: bool | None = None


class _Block(msgspec.Struct, gc=False):
    """Any block. Which fields there are depends on the type."""

    type: str
    text: str = ""
    source: Raw = NULL
    title: str | None = None
    context: str | None = None
    citations: Raw = NULL
    cache_control: Raw = NULL
    id: str = ""
    name: str = ""
    input: Raw = NULL
    tool_use_id: str = ""
    content: Raw = NULL
    is_error: bool | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""


_blocks: Final = msgspec.json.Decoder(list[Raw])
_block: Final = msgspec.json.Decoder(_Block)
_text: Final = msgspec.json.Decoder(str)
_source: Final = msgspec.json.Decoder(_Source)
_citations: Final = msgspec.json.Decoder(_Citations)
_object: Final = msgspec.json.Decoder(dict[str, Raw])


def system(content: Raw, reach: Reach, at: str = "system") -> Message | None:
    """Instructions; None if there are none. Raises BadRequest."""
    if not present(content):
        return None
    parts: list[Part] = []
    for _, block, where in _read(content, at):
        if block.type != "text":
            raise _refused(where, f"{block.type!r} among instructions", "type")
        parts.append(_said(block, where, reach))
    return Message("system", _content(parts)) if parts else None


def conversation(turns: Sequence[Turn], reach: Reach) -> list[Message]:
    """Raises BadRequest for what chat has nothing for."""
    running = _running(turns)
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        at = f"messages.{index}"
        match turn.role:
            case "user":
                messages.extend(_user(turn, at, reach))
            case "assistant":
                messages.append(_assistant(turn, at, reach, running=index >= running))
            case "system":
                said = system(turn.content, reach, f"{at}.content")
                messages.extend([said] if said is not None else ())
            case other:
                raise errors.BadRequest(f"'{at}.role' is {other!r}", param=f"{at}.role", code="invalid_value")
    if not messages:
        raise errors.BadRequest("'messages' say nothing", param="messages", code="invalid_value")
    if turns[-1].role == "assistant" and not reach.continues:
        raise errors.BadRequest(
            f"'messages.{len(turns) - 1}' begins the answer, which this model's provider cannot go on with",
            param=f"messages.{len(turns) - 1}",
            code="unsupported_value",
        )
    return messages


def _running(turns: Sequence[Turn]) -> int:
    """Where the turn begins that is not over: behind the last thing that a person said."""
    for index in range(len(turns) - 1, -1, -1):
        turn = turns[index]
        if turn.role == "user" and b'"tool_result"' not in bytes(turn.content):
            return index
    return 0


def _user(turn: Turn, at: str, reach: Reach) -> Iterator[Message]:
    """Results first, as chat wants them behind the calls; pictures in them come with what else was said."""
    said: list[Part] = []
    shown: list[Part] = []
    results = 0
    for _, block, where in _read(turn.content, f"{at}.content"):
        if block.type == "tool_result":
            results += 1
            yield _result(block, where, reach, shown)
        else:
            said.append(_said(block, where, reach))
    if shown or said or not results:
        yield Message("user", _content([*shown, *said]))


def _result(block: _Block, at: str, reach: Reach, shown: list[Part]) -> Message:
    texts: list[str] = []
    for _, inner, where in _read(block.content, f"{at}.content") if present(block.content) else ():
        part = _said(inner, where, reach)
        if isinstance(part, Text):
            texts.append(part.text)
        else:
            shown.extend((Text(f"From the result of {block.tool_use_id}:"), part))
            texts.append(PICTURE_BELOW)
    text = "\n".join(texts)
    return Message("tool", f"{FAILED}{text}" if block.is_error else text, tool_call_id=block.tool_use_id)


def _assistant(turn: Turn, at: str, reach: Reach, *, running: bool) -> Message:
    texts: list[Part] = []
    calls: list[Call] = []
    thoughts: list[str] = []
    signed: list[Raw] = []
    seals: dict[str, str] = {}
    for raw, block, where in _read(turn.content, f"{at}.content"):
        match block.type:
            case "tool_use":
                calls.append(_call(block, where, seals.get(block.id)))
            case "thinking":
                thoughts.append(block.thinking)
                signed.extend([raw] if block.signature not in {"", UNSIGNED} else ())
            case "redacted_thinking":
                seal = messages_seals.opened(block.data)
                if seal is None:
                    signed.append(raw)
                elif reach.seals:
                    seals[seal.call] = seal.signature
            case "text":
                texts.append(_said(block, where, reach))
            case _:
                raise _refused(where, repr(block.type), "type")
    return Message(
        "assistant",
        _content(texts) if texts else None if calls else "",
        calls or None,
        reasoning_content="".join(thoughts) or None if reach.thoughts and running else None,
        thinking_blocks=signed or None if reach.marked else None,
    )


def _call(block: _Block, at: str, seal: str | None) -> Call:
    arguments = bytes(block.input).decode() if present(block.input) else "{}"
    try:
        _object.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise errors.BadRequest(
            f"'{at}.input' must be a JSON object", param=f"{at}.input", code="invalid_value"
        ) from None
    extra = None if seal is None else Extra(Google(seal))
    return Call(block.id, CalledFunction(block.name, arguments), "function", extra)


def _read(content: Raw, at: str) -> Iterator[tuple[Raw, _Block, str]]:
    """Every block, raw and read, and where it stands. Text alone is one block."""
    if bytes(content).startswith(b'"'):
        text = _text.decode(content)
        if text:
            yield content, _Block("text", text), at
        return
    try:
        raws = _blocks.decode(content)
    except msgspec.DecodeError:
        raise errors.BadRequest(f"'{at}' is text or a list of blocks", param=at, code="invalid_type") from None
    for index, raw in enumerate(raws):
        where = f"{at}.{index}"
        try:
            yield raw, _block.decode(raw), where
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise errors.BadRequest(f"Invalid '{where}': {error}", param=where, code="invalid_type") from None


def _content(parts: list[Part]) -> str | list[Part]:
    """Plain text wherever it is enough: not every server takes parts."""
    if all(isinstance(part, Text) and part.cache_control is UNSET for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, Text))
    return parts


def _said(block: _Block, at: str, reach: Reach) -> Part:
    """What a block says, as a part of a message. Raises BadRequest."""
    mark: MaybeRaw = block.cache_control if reach.marked and present(block.cache_control) else UNSET
    match block.type:
        case "text":
            return Text(block.text, mark)
        case "image":
            return Image(Link(_picture(_whence(block, at), at)), mark)
        case "document":
            return _document(block, at, mark, reach)
        case "search_result":
            _uncited(block, at)
            texts = [inner.text for _, inner, _ in _read(block.content, f"{at}.content")]
            origin = _text.decode(block.source) if bytes(block.source).startswith(b'"') else ""
            return Text("\n".join([line for line in (block.title, origin, *texts) if line]), mark)
        case other:
            raise _refused(at, repr(other), "type")


def _whence(block: _Block, at: str) -> _Source:
    try:
        return _source.decode(block.source)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"Invalid '{at}.source': {error}", param=f"{at}.source", code="invalid_type") from None


def _picture(source: _Source, at: str) -> str:
    match source.type:
        case "base64":
            return f"data:{source.media_type};base64,{source.data}"
        case "url":
            return source.url
        case other:
            raise _refused(f"{at}.source", f"a picture by {other!r}", "type")


def _document(block: _Block, at: str, mark: MaybeRaw, reach: Reach) -> Part:
    """Words are told as words, anything else is a file."""
    _uncited(block, at)
    source = _whence(block, at)
    head = [line for line in (block.title, block.context) if line]
    match source.type:
        case "text":
            return Text("\n".join([*head, source.data]), mark)
        case "content":
            parts = [_said(inner, where, reach) for _, inner, where in _read(source.content, f"{at}.source.content")]
            if not all(isinstance(part, Text) for part in parts):
                raise _refused(f"{at}.source.content", "a document with pictures in it", "")
            return Text("\n".join([*head, *(part.text for part in parts if isinstance(part, Text))]), mark)
        case "base64":
            return File(FileData(f"data:{source.media_type};base64,{source.data}", _named(block)), mark)
        case "url" if reach.addresses:
            return File(FileData(source.url, _named(block)), mark)
        case other:
            raise _refused(f"{at}.source", f"a document by {other!r}", "type")


def _named(block: _Block) -> str:
    return block.title or "document.pdf"


def _uncited(block: _Block, at: str) -> None:
    if present(block.citations) and wire.parse(_citations, bytes(block.citations)).enabled:
        raise _refused(at, "citations", "citations")


def _refused(at: str, what: str, field: str) -> errors.BadRequest:
    param = f"{at}.{field}" if field else at
    return errors.BadRequest(
        f"'{param}': chat has nothing for {what}, and this model's provider speaks chat",
        param=param,
        code="unsupported_value",
    )
