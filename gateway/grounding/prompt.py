"""The question in a request, and the request with passages before that question: in the words of each API that has conversations. Pure.

Instructions go to those that stand there already, or before everything, so that they are the same for each question and a provider's
prompt cache has use for them. Passages stand in the last message of the user: every template has a place for that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.grounding.wish import TYPE

Json = dict[str, Any]
ENDPOINTS: Final = frozenset({"chat", "messages", "responses"})
LONGEST: Final = 2000  # characters of a question: the last ones of a longer message
NONE: Final = (
    "If you answer, say first that the documents have nothing about it: no passage was found for this question."
)
TURNS: Final = 8  # of a conversation, that say what its last question means
SHORT: Final = 120  # a question that may lean on the one before it
_TEXTS: Final = frozenset({"text", "input_text", "output_text"})
_HELD_IN: Final = {"responses": "input", "completions": "prompt"}
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Json).decode


def fields_of(body: bytes) -> Json | None:
    """None for what somebody else will refuse."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def queries(endpoint: str, fields: Mapping[str, Any]) -> list[str]:
    """What is to be searched for: the last thing that the user said, and with it what a short question leans on."""
    said = questions(endpoint, fields)
    if not said:
        return []
    last = said[-1][-LONGEST:]
    if len(said) > 1 and len(last) <= SHORT:
        return [last, f"{said[-2][-LONGEST:]}\n{last}"]
    return [last]


def questions(endpoint: str, fields: Mapping[str, Any]) -> list[str]:
    """What the user said, message by message."""
    every = [_text(one.get("content")).strip() for one in _messages(endpoint, fields) if _is_users(one)]
    return [text for text in every if text]


def conversation(endpoint: str, fields: Mapping[str, Any]) -> str | None:
    """What was said until now, the last of it, each turn behind who said it; None where nothing was said before the question."""
    turns = [
        (str(one["role"]), text)
        for one in _messages(endpoint, fields)
        if one.get("role") in ("user", "assistant") and (text := _text(one.get("content")).strip())
    ]
    while turns and turns[-1][0] != "user":
        turns.pop()
    if len(turns) < 2:
        return None
    return "\n\n".join(f"{role}: {text[-LONGEST:]}" for role, text in turns[-TURNS:])


def grounded(endpoint: str, fields: Json, passages: str, instructions: str) -> bytes:
    """The request with passages and how to use them, and without the tool that asked for them.

    Where there are no passages, that is said.
    """
    _without_tool(fields)
    if not passages:
        instructions = f"{instructions}\n\n{NONE}"
    match endpoint:
        case "chat":
            _before_question(fields["messages"], passages, "text")
            fields["messages"] = _instructed(fields["messages"], instructions)
        case "messages":
            _before_question(fields["messages"], passages, "text")
            fields["system"] = _after(fields.get("system"), instructions)
        case _:
            if isinstance(fields.get("input"), str):
                fields["input"] = [{"type": "message", "role": "user", "content": fields["input"]}]
            _before_question(fields["input"], passages, "input_text")
            fields["instructions"] = _after(fields.get("instructions"), instructions)
    return _encode(fields)


def without_tool(fields: Json) -> bytes:
    """The request where nobody asked anything."""
    _without_tool(fields)
    return _encode(fields)


def _without_tool(fields: Json) -> None:
    tools = fields.get("tools")
    if not isinstance(tools, list):
        return
    others = [one for one in tools if not (isinstance(one, dict) and one.get("type") == TYPE)]
    if len(others) == len(tools):
        return
    if others:
        fields["tools"] = others
    else:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            fields.pop(name, None)
    choice = fields.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == TYPE:
        del fields["tool_choice"]  # the search is made in any case


def _messages(endpoint: str, fields: Mapping[str, Any]) -> Sequence[Json]:
    given = fields.get(_HELD_IN.get(endpoint, "messages"))
    if endpoint == "completions" and isinstance(given, list):
        given = "\n".join(one for one in given if isinstance(one, str))
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _is_users(message: Json) -> bool:
    return message.get("role") == "user" and message.get("type", "message") == "message"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in _TEXTS)
    return "\n".join(text for text in texts if isinstance(text, str))


def _before_question(messages: list[Any], passages: str, kind: str) -> None:
    """In the last message of the user that says something."""
    if not passages:
        return

    def asks(one: Any) -> bool:
        return isinstance(one, dict) and _is_users(one) and bool(_text(one.get("content")).strip())

    at = _last(messages, asks)
    content = messages[at]["content"]
    part = {"type": kind, "text": passages}
    made = f"{passages}\n\n{content}" if isinstance(content, str) else [part, *content]
    messages[at] = messages[at] | {"content": made}


def _instructed(messages: list[Any], instructions: str) -> list[Any]:
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    if first.get("role") in {"system", "developer"}:
        return [first | {"content": _after(first.get("content"), instructions)}, *messages[1:]]
    return [{"role": "system", "content": instructions}, *messages]


def _after(given: Any, instructions: str) -> Any:
    """What is said already, and then these."""
    if isinstance(given, list):
        return [*given, {"type": "text", "text": instructions}]
    return f"{given}\n\n{instructions}" if isinstance(given, str) and given else instructions


def _last(messages: Sequence[Any], wanted: Callable[[Any], bool]) -> int:
    return next(at for at in range(len(messages) - 1, -1, -1) if wanted(messages[at]))
