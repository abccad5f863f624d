"""JSON and JSON Lines: each value with its path, each record a block."""

import json
from collections.abc import Iterator
from typing import Any

from retrieval.parsing import charset, media
from retrieval.parsing.errors import InvalidFile, TooDeep
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer


def parse(source: Source, out: Writer) -> None:
    text, out.encoding = charset.decode(source.read(), source.charset)
    depth = source.limits.depth
    if source.suffix in {".jsonl", ".ndjson"} or source.declared in {media.JSONL, "application/x-ndjson"}:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                _add(out, _value(line, number), f"line {number}", number, depth)
        return
    value = _value(text, None)
    if isinstance(value, list):
        for place, item in enumerate(value):
            _add(out, item, f"[{place}]", None, depth)
    elif isinstance(value, dict):
        for key, item in value.items():
            _add(out, {key: item}, key, None, depth)
    else:
        _add(out, value, "", None, depth)


def _add(out: Writer, value: Any, name: str, line: int | None, depth: int) -> None:
    if name:
        out.enter(1, name)
    out.add("row", "\n".join(_lines(value, depth)), line=line)
    out.leave(1)


def _value(text: str, line: int | None) -> Any:
    try:  # numbers stay as they were written: 1.10, and a number of a million digits
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise InvalidFile(f"Line {line or error.lineno}, column {error.colno} is not JSON: {error.msg}.") from None
    except RecursionError:
        raise TooDeep("The JSON nests too many values in each other.") from None


def _lines(value: Any, depth: int) -> Iterator[str]:
    """`path: value` for every leaf, in order. Keeps its own stack."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, item, level = stack.pop()
        if level > depth:
            raise TooDeep(f"The JSON nests more than {depth} values in each other.")
        if isinstance(item, dict):
            stack += [(f"{path}.{key}" if path else key, inner, level + 1) for key, inner in reversed(item.items())]
        elif isinstance(item, list):
            stack += [(f"{path}[{place}]", item[place], level + 1) for place in range(len(item) - 1, -1, -1)]
        else:
            yield f"{path}: {_leaf(item)}" if path else _leaf(item)


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "null" if value is None else str(value).lower()
