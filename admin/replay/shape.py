"""What an answer is made of, whatever it says: how it ended, which tools it called, what its JSON looks like. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """`words`: all that a person would read. `keys`: of the object that the words are, if they are one, by path."""

    words: str
    ending: str | None
    tools: tuple[str, ...]
    keys: tuple[str, ...] | None

    def same(self, other: "Shape") -> bool:
        """Whether a program that reads the one could read the other."""
        return (self.ending, self.tools, self.keys) == (other.ending, other.tools, other.keys)


EMPTY = Shape("", None, (), None)


def shape(endpoint: str, text: str | None) -> Shape:
    """Of chat's, completions', responses' and messages' answers; others are their JSON."""
    try:
        answer = msgspec.json.decode(text or "")
    except msgspec.DecodeError:
        return EMPTY
    if not isinstance(answer, dict):
        return EMPTY
    match endpoint:
        case "chat" | "completions":
            return _chat(answer)
        case "messages":
            return _parts(_objects(answer.get("content")), answer.get("stop_reason"), "tool_use")
        case "responses":
            items = _objects(answer.get("output"))
            parts = [part for item in items for part in (_objects(item.get("content")) or [item])]
            return _parts(parts, answer.get("status"), "function_call")
        case _:
            return Shape("", None, (), tuple(sorted(_paths(answer))))


def _chat(answer: Mapping[str, Any]) -> Shape:
    choices = _objects(answer.get("choices"))
    texts, tools = [], []
    for choice in choices:
        message = choice.get("message")
        message = message if isinstance(message, dict) else choice
        text = message.get("content", message.get("text"))
        texts.append(text if isinstance(text, str) else "")
        calls = [call.get("function") for call in _objects(message.get("tool_calls"))]
        tools += [str(call.get("name")) for call in calls if isinstance(call, dict)]
    ending = choices[0].get("finish_reason") if choices else None
    return _made("\n".join(texts), ending, tools)


def _parts(parts: Sequence[Mapping[str, Any]], ending: object, call: str) -> Shape:
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return _made("\n".join(texts), ending, [str(part.get("name")) for part in parts if part.get("type") == call])


def _made(words: str, ending: object, tools: Sequence[str]) -> Shape:
    try:
        value = msgspec.json.decode(words)
    except msgspec.DecodeError:
        value = None
    keys = tuple(sorted(_paths(value))) if isinstance(value, (dict, list)) else None
    return Shape(words, ending if isinstance(ending, str) else None, tuple(tools), keys)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _paths(value: object, above: str = "") -> Iterator[str]:
    """`user.name:str`, `items[].id:int`: each once."""
    match value:
        case dict():
            for name, one in value.items():
                yield from _paths(one, f"{above}.{name}" if above else str(name))
        case list():
            yield from sorted({path for one in value for path in _paths(one, f"{above}[]")})
        case _:
            yield f"{above}:{type(value).__name__}"
