"""OpenAI's messages as the Gemini API wants them: instructions apart, turns of the user, of the model, and of its tools."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NoReturn
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.dialects.chat import ExtraContent, File, ImageUrl, Message, Part, ToolCall
from gateway.dialects.gemini_models import Traits
from gateway.dialects.gemini_wire import Blob, Content, FileData, FunctionCall, FunctionResponse
from gateway.dialects.gemini_wire import Part as Piece

Kind = Literal["user", "model", "tools"]

# Stands in for thoughts that are lost, as another provider made the call or a client left them out:
# https://ai.google.dev/gemini-api/docs/thought-signatures
NO_THOUGHTS: Final = "skip_thought_signature_validator"

_DATA: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[\w.+-]+)*;base64,")
_PLACES: Final = ("https://", "http://", "gs://")
_SYSTEM: Final = frozenset({"system", "developer"})
_TYPES: Final[Mapping[str, str]] = {
    "gif": "image/gif",
    "heic": "image/heic",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "mov": "video/quicktime",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
}
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def conversation(messages: Sequence[Message], of: Traits) -> tuple[Content | None, list[Content]]:
    """Instructions and turns. Instructions go in front wherever they stood; neighbours of one kind become one turn. Raises BadRequest."""
    system: list[Piece] = []
    turns: list[tuple[Kind, list[Piece]]] = []
    names: dict[str, str] = {}  # of the calls so far, by their ids
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message.role in _SYSTEM:
            system.extend(_instructions(message, at))
            continue
        kind, pieces = _pieces(message, names, at)
        if not pieces:
            continue  # the API refuses empty turns
        if turns and turns[-1][0] == kind:
            turns[-1][1].extend(pieces)
        else:
            turns.append((kind, pieces))
    if not turns:
        raise errors.BadRequest("Gemini needs at least one message with content from the user", param="messages")
    if of.sealed:
        for kind, pieces in turns:
            if kind == "model":
                _seal(pieces)
    contents = [Content(pieces, "model" if kind == "model" else "user") for kind, pieces in turns]
    return (Content(system) if system else None), contents


def _seal(pieces: list[Piece]) -> None:
    """The first call of a turn carries the thoughts that led to it; without any it would be refused."""
    for index, piece in enumerate(pieces):
        if piece.function_call is not None:
            if piece.thought_signature is None:
                pieces[index] = msgspec.structs.replace(piece, thought_signature=NO_THOUGHTS)
            return


def _instructions(message: Message, at: str) -> Iterator[Piece]:
    for piece in _said(message, at):
        if piece.text is None:
            raise errors.BadRequest("Instructions are text alone", param=f"{at}.content", code="invalid_value")
        yield piece


def _pieces(message: Message, names: dict[str, str], at: str) -> tuple[Kind, list[Piece]]:
    match message.role:
        case "user":
            return "user", list(_said(message, at))
        case "assistant":
            return "model", _assistant(message, names, at)
        case "tool":
            return "tools", [_result(message, names, at)]
        case "function":
            raise errors.BadRequest(
                "Messages of the role 'function' are deprecated; use 'tools' and the role 'tool'",
                param=f"{at}.role",
                code="unsupported_value",
            )
        case other:
            raise errors.BadRequest(f"Unknown role {other!r}", param=f"{at}.role", code="invalid_value")


def _assistant(message: Message, names: dict[str, str], at: str) -> list[Piece]:
    """What was said, with the thoughts behind it on its last piece, then the calls."""
    pieces = list(_said(message, at))
    if message.refusal:
        pieces.append(Piece(text=message.refusal))
    signature = _signature(message.extra_content)
    if signature is not None:
        last = pieces.pop() if pieces else Piece(text="")
        pieces.append(msgspec.structs.replace(last, thought_signature=signature))
    for index, call in enumerate(message.tool_calls or ()):
        pieces.append(_call(call, names, f"{at}.tool_calls[{index}]"))
    return pieces


def _signature(extra: ExtraContent | None) -> str | None:
    return None if extra is None or extra.google is None else extra.google.thought_signature


def _call(call: ToolCall, names: dict[str, str], at: str) -> Piece:
    function = call.function
    if function is None:
        raise errors.BadRequest("Only calls of functions can be sent to Gemini", param=at, code="unsupported_value")
    arguments = function.arguments.strip() or "{}"
    if not _is_object(arguments):
        raise errors.BadRequest(
            "A call's arguments must be a JSON object", param=f"{at}.function.arguments", code="invalid_value"
        )
    names[call.id] = function.name
    made = FunctionCall(function.name, Raw(arguments.encode()), call.id or None)
    return Piece(function_call=made, thought_signature=_signature(call.extra_content))


def _result(message: Message, names: Mapping[str, str], at: str) -> Piece:
    """Text is the output, unless it is an object itself; pictures stand beside it."""
    call_id = message.tool_call_id
    if call_id is None:
        _missing(f"{at}.tool_call_id")
    name = names.get(call_id, message.name)
    if name is None:
        raise errors.BadRequest(
            f"No call before this message has the id {call_id!r}", param=f"{at}.tool_call_id", code="invalid_value"
        )
    said = list(_said(message, at))
    text = "".join(piece.text for piece in said if piece.text is not None)
    response = Raw(text.encode()) if _is_object(text) else Raw(_encode({"output": text}))
    pictures = [piece for piece in said if piece.text is None]
    return Piece(function_response=FunctionResponse(name, response, call_id or None, pictures or None))


def _is_object(text: str) -> bool:
    try:
        _object.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _said(message: Message, at: str) -> Iterator[Piece]:
    """A message's content without what is empty, which the API refuses."""
    content = message.content
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Piece(text=content)
        return
    for index, part in enumerate(content):
        piece = _piece(part, f"{at}.content[{index}]")
        if piece is not None:
            yield piece


def _piece(part: Part, at: str) -> Piece | None:
    match part.type:
        case "text" | "refusal":
            text = part.text or part.refusal
            return Piece(text=text) if text else None
        case "image_url":
            return _linked(part.image_url, f"{at}.image_url")
        case "video_url":
            return _linked(part.video_url, f"{at}.video_url")
        case "input_audio":
            sound = part.input_audio
            if sound is None:
                _missing(f"{at}.input_audio")
            return Piece(inline_data=Blob(_TYPES.get(sound.format, f"audio/{sound.format}"), sound.data))
        case "file":
            if part.file is None:
                _missing(f"{at}.file")
            return _file(part.file, f"{at}.file")
        case other:
            raise errors.BadRequest(
                f"Gemini takes text, images, sound, video and files, not {other!r}",
                param=f"{at}.type",
                code="unsupported_value",
            )


def _linked(link: ImageUrl | str | None, at: str) -> Piece:
    if link is None:
        _missing(at)
    return _media(link if isinstance(link, str) else link.url, at)


def _file(file: File, at: str) -> Piece:
    """By its bytes, by its address, or by the URI that Google's own store has given it."""
    if file.file_data is not None:
        return _media(file.file_data, f"{at}.file_data")
    if file.file_id is not None and file.file_id.startswith(_PLACES):
        return _media(file.file_id, f"{at}.file_id")
    raise errors.BadRequest(
        "Gemini takes a file by its 'file_data' or by its URI, not by another provider's id",
        param=f"{at}.file_id",
        code="unsupported_value",
    )


def _media(url: str, at: str) -> Piece:
    found = _DATA.match(url)
    if found is not None:
        return Piece(inline_data=Blob(found[1], url[found.end() :]))
    if url.startswith(_PLACES):
        return Piece(file_data=FileData(url, _type_of(url)))
    raise errors.BadRequest(
        "Media is an http(s) or gs address or a data: URI in base64", param=at, code="invalid_value"
    )


def _type_of(url: str) -> str | None:
    """By the end of its name; without one that says something, Google finds out by itself."""
    try:
        _, dot, ending = urlsplit(url).path.rpartition(".")
    except ValueError:
        return None
    return _TYPES.get(ending.lower()) if dot else None


def _missing(param: str) -> NoReturn:
    raise errors.BadRequest(f"Missing required parameter: '{param}'", param=param, code="missing_required_parameter")
