"""Items of the Responses API as the messages of a chat. What chat has no place for is refused by name."""

from collections.abc import Sequence
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.bodies import NULL
from gateway.responses.items import kind_of
from gateway.responses.sealed import Thought, unpacked
from gateway.wire import present

Json = dict[str, object]
Thoughts = Literal["sealed", "text", "none"]
"""What of its thoughts a deployment takes back: those that it sealed, their text, or nothing."""


class Part(msgspec.Struct, gc=False):
    """A piece of content, of any type."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: Raw = NULL


class Item(msgspec.Struct, gc=False):
    """What is read of the items that chat has a place for."""

    type: str = "message"
    role: str = "user"
    content: str | list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    input: str = ""
    output: str | list[Part] = ""
    summary: list[Part] = []
    encrypted_content: str | None = None


KNOWN: Final = frozenset(
    (
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "image_generation_call",
    )
)
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_item: Final = msgspec.json.Decoder(Item)


def messages(instructions: str | None, items: Sequence[Raw], thoughts: Thoughts) -> list[Json]:
    """In order; calls and thoughts join the assistant's message that they belong to. Raises BadRequest."""
    made = _Messages(thoughts)
    if instructions:
        made.out.append({"role": "system", "content": instructions})
    read = [_read(raw, f"input[{number}]") for number, raw in enumerate(items)]
    for item, _ in read:
        made.sealed.update(unpacked(item.encrypted_content).calls)
    for item, at in read:
        made.add(item, at)
    made.flush()
    return made.out


def unsupported(what: str, param: str, code: str = "unsupported_value") -> errors.BadRequest:
    return errors.BadRequest(f"{what} is not available on this deployment, which speaks chat", param=param, code=code)


@final
class _Messages:
    """What was made so far, and the assistant's message that is not whole yet."""

    def __init__(self, thoughts: Thoughts) -> None:
        self.out: list[Json] = []
        self.sealed: dict[str, Raw] = {}
        self._thoughts = thoughts
        self._turn: Json = {}
        self._calls: list[Json] = []
        self._blocks: list[Raw] = []
        self._thought = ""

    def add(self, item: Item, at: str) -> None:
        match item.type:
            case "message" if item.role == "assistant":
                if "content" in self._turn or self._calls:
                    self.flush()
                self._turn["content"] = _said(item.content, at)
            case "message":
                self.flush()
                role = _ROLES.get(item.role)
                if role is None:
                    raise unsupported(f"The role '{item.role}'", f"{at}.role")
                self.out.append({"role": role, "content": _content(item.content or "", f"{at}.content")})
            case "function_call":
                self._call(item, {"type": "function", "function": {"name": item.name, "arguments": item.arguments}})
            case "custom_tool_call":
                self._call(item, {"type": "custom", "custom": {"name": item.name, "input": item.input}})
            case "reasoning":
                self._think(item)
            case "image_generation_call":  # the answer's own pictures have no place in a chat
                pass
            case _:  # the result of a call
                self.flush()
                content = _content(item.output, f"{at}.output")
                self.out.append({"role": "tool", "tool_call_id": item.call_id, "content": content})

    def flush(self) -> None:
        """The assistant's message is whole."""
        turn, self._turn = self._turn, {}
        calls, self._calls = self._calls, []
        blocks, self._blocks = self._blocks, []
        thought, self._thought = self._thought, ""
        if not (turn or calls):
            return
        message: Json = {"role": "assistant", "content": None} | turn
        if calls:
            message["tool_calls"] = calls
        if blocks:
            message["thinking_blocks"] = blocks
        if thought:
            message["reasoning_content"] = thought
        self.out.append(message)

    def _call(self, item: Item, call: Json) -> None:
        extra = self.sealed.get(item.call_id) if self._thoughts == "sealed" else None
        self._calls.append({"id": item.call_id, **call, **({} if extra is None else {"extra_content": extra})})

    def _think(self, item: Item) -> None:
        thought = unpacked(item.encrypted_content)
        said = [part.text or "" for part in (item.content if isinstance(item.content, list) else item.summary)]
        trailing = not thought.blocks and not said
        if (self._turn or self._calls) and not trailing:
            self.flush()
        if self._thoughts == "sealed":
            self._sealed(thought)
        elif self._thoughts == "text":
            self._thought += "".join(said)

    def _sealed(self, thought: Thought) -> None:
        self._blocks.extend(thought.blocks)
        if present(thought.extra):
            self._turn["extra_content"] = thought.extra


def _read(raw: Raw, at: str) -> tuple[Item, str]:
    kind = kind_of(raw)
    if kind not in KNOWN:
        raise unsupported(f"An item of type '{kind}'", f"{at}.type", "unsupported_item")
    try:
        return _item.decode(raw), at
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"Invalid '{at}': {error}", param=at, code="invalid_type") from None


def _said(content: str | list[Part] | None, at: str) -> object:
    """An assistant's words: one text, or parts where it refused."""
    if not isinstance(content, list):
        return content or ""
    if all(part.type in {"output_text", "input_text", "text"} for part in content):
        return "".join(part.text or "" for part in content)
    return [_part(part, f"{at}.content[{number}]") for number, part in enumerate(content)]


def _content(content: str | list[Part], at: str) -> object:
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0].type == "input_text":
        return content[0].text or ""
    return [_part(part, f"{at}[{number}]") for number, part in enumerate(content)]


def _part(part: Part, at: str) -> Json:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": part.text or ""}
        case "refusal":
            return {"type": "refusal", "refusal": part.refusal or ""}
        case "input_image":
            if part.image_url is None:
                raise unsupported("A picture by its file_id", f"{at}.file_id")
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
        case "input_file":
            return {"type": "file", "file": _file(part, at)}
        case "input_audio" if present(part.input_audio):
            return {"type": "input_audio", "input_audio": part.input_audio}
        case other:
            raise unsupported(f"Content of type '{other}'", f"{at}.type")


def _file(part: Part, at: str) -> Json:
    if part.file_url is not None:
        raise unsupported("A file by its file_url", f"{at}.file_url")
    named = {"file_data": part.file_data, "file_id": part.file_id, "filename": part.filename}
    return {name: value for name, value in named.items() if value is not None}
