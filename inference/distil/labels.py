"""A recorded chat as an example: the text of the user's last message, and what the large model made of it. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from inference.distil.recipe import MARK, Kind

MOST_LABEL: Final = 200
_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_FENCE: Final = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


class Example(NamedTuple):
    text: str
    label: str | float


def example(request: str, answer: str | None, route: str, kind: Kind, field: str | None) -> Example | None:
    """None: it is of another model, was not answered whole and in words, or by a distilled model itself."""
    try:
        asked, said = msgspec.json.decode(request), msgspec.json.decode(answer or "")
        if asked["model"] != route or str(said.get("system_fingerprint") or "").startswith(MARK):
            return None
        choice = said["choices"][0]
        content = choice["message"]["content"]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        return None
    text = last_text(asked)
    if text is None or choice.get("finish_reason") not in {"stop", None} or not isinstance(content, str):
        return None
    value = _value(content.strip(), field)
    if value is None:
        return None
    if kind == "regressor":
        return Example(text, float(value)) if _NUMBER.fullmatch(str(value)) else None
    label = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return Example(text, label) if 0 < len(label) <= MOST_LABEL else None


def last_text(asked: Mapping[str, Any]) -> str | None:
    """Of a chat's last message, if that is a user's, and all of it is text."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return None
    content = messages[-1].get("content")
    if messages[-1].get("role") != "user":
        return None
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        content = None if None in parts else "\n".join(str(part) for part in parts)
    return content if isinstance(content, str) and content.strip() else None


def written(label: str | float, field: str | None) -> str:
    """An answer as the large model would have written it."""
    if field is None:
        return label if isinstance(label, str) else f"{label:g}"
    return msgspec.json.encode({field: label}).decode()


def _value(content: str, field: str | None) -> Any:
    """The label of an answer, None if it has none."""
    if field is None:
        return content or None
    fenced = _FENCE.fullmatch(content)
    try:
        found = msgspec.json.decode(fenced[1] if fenced else content)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get(field), str | int | float | bool):
        return None
    return found[field]
