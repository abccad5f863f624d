"""Prompt templates: `{{name}}` in any text of a list of messages stands for a value, and nothing else does anything. No code runs.

Values are put into decoded text and encoded again with it, so that none can end its string or add a message.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_NAME: Final = 64
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*\}\}")


def variables(messages: object) -> frozenset[str]:
    """The names that a template needs. Raises ValueError for a `{{` that begins none."""
    found: set[str] = set()
    for text in _texts(messages):
        found.update(_VARIABLE.findall(text))
        if "{{" in _VARIABLE.sub("", text):
            raise ValueError("`{{` begins a variable: `{{name}}` with letters, digits and underscores")
    return frozenset(found)


def render(messages: Any, values: Mapping[str, str]) -> Any:
    """The messages with values put in, once: a value that looks like a variable stays as it is."""
    match messages:
        case str():
            return _VARIABLE.sub(lambda found: values[found[1]], messages)
        case list() | tuple():
            return [render(one, values) for one in messages]
        case Mapping():
            return {name: render(one, values) for name, one in messages.items()}
        case _:
            return messages


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() | tuple():
            for one in value:
                yield from _texts(one)
        case Mapping():
            for one in value.values():
                yield from _texts(one)
