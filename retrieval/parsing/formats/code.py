"""Source code as it was written, cut into its definitions: by the grammar for Python, by indentation for every other language."""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from retrieval.parsing import charset
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_CODING = re.compile(rb"^(?:[^\n]*\n)?[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_NAMED = re.compile(
    r"^[\w\s<>,:*&@()\[\].?!]{0,200}?\b(?:class|struct|interface|trait|impl|enum|union|record|object|module|namespace|protocol|extension|"
    r"def|defp|defmodule|func|fun|fn|function|sub|proc|procedure|type|macro|macro_rules!)\s+(?:\([^)]*\)\s*)?([\w$.:<>]+)"
)
_CALLED = re.compile(
    r"^(?!if|for|while|switch|return|else|catch|match|using|with)[\w:<>~*&,\[\]\s]+?[\s*&]([\w:~]+)\s*\([^;]*$"
)
_SHELL = re.compile(r"^([\w:.-]+)\s*\(\)\s*\{?")
_ASSIGNED = re.compile(
    r"^(?:export\s+)?(?:const|let|var|val)\s+([\w$]+)\s*(?::[^=]+)?=\s*(?:async\s*)?(?:function\b|\(|\w+\s*=>)"
)
_CONTAINER = re.compile(
    r"\b(?:class|struct|interface|trait|impl|enum|object|module|namespace|protocol|extension|defmodule)\b"
)
_COMMENT = re.compile(r"^\s*(?://|#(?!include|define|if|endif|else|pragma)|/\*|\*|--|;|@|\"\"\")")
_CLOSER = re.compile(r"^\s*(?:[\])}]|end\b|else\b|elif\b|catch\b|except\b|finally\b|fi\b|done\b|esac\b)")


class _Unit(NamedTuple):
    """Lines `[first, last)`, counted from 0, under the names of the definitions that they belong to."""

    first: int
    last: int
    path: tuple[str, ...]


def parse(source: Source, out: Writer) -> None:
    data = source.read()
    coding = _CODING.match(data)
    text, out.encoding = charset.decode(data, source.charset or (coding and coding[1].decode("ascii")))
    start = out.verbatim(text)
    lines = text.split("\n")
    offsets = [0, *accumulate(len(line) + 1 for line in lines)]
    units = _python(text, len(lines)) if source.suffix in {".py", ".pyi"} else None
    for unit in _outline(lines) if units is None else units:
        first, last = unit.first, unit.last
        while first < last and not lines[first].strip():
            first += 1
        while last > first and not lines[last - 1].strip():
            last -= 1
        if first < last:
            end = start + offsets[last] - 1
            out.mark(
                "definition" if unit.path else "code", start + offsets[first], end, line=first + 1, headings=unit.path
            )


def _python(text: str, count: int) -> Sequence[_Unit] | None:
    """None for what is not Python of this interpreter's version: it is cut by indentation then."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return list(_definitions(tree.body, 0, count, ()))


def _definitions(body: Sequence[ast.stmt], first: int, last: int, path: tuple[str, ...]) -> Iterator[_Unit]:
    """Units that cover `[first, last)` without a gap: definitions, and what stands between them."""
    at = first
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        end = node.end_lineno or node.lineno
        if begin < at:  # several on one line
            continue
        yield _Unit(at, begin, path)
        inner = (*path, node.name)
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, begin, end, inner)
        else:
            yield _Unit(begin, end, inner)
        at = end
    yield _Unit(at, last, path)


def _outline(lines: Sequence[str]) -> Iterator[_Unit]:
    """Every line at the margin that begins something begins a unit; so do, one level further in, the members of a class."""
    yield from _cut(lines, 0, len(lines), (), 0)


def _cut(lines: Sequence[str], first: int, last: int, path: tuple[str, ...], depth: int) -> Iterator[_Unit]:
    margin = min((_indent(line) for line in lines[first:last] if line.strip()), default=0)
    starts = [number for number in range(first, last) if _begins(lines, number, margin)]
    at, name, body = first, "", first
    for start in starts:
        begin = _with_comments(lines, start, at)
        yield from _unit(lines, at, begin, path, name, body, depth)
        at, name, body = begin, _name(lines[start]), start
    yield from _unit(lines, at, last, path, name, body, depth)


def _unit(
    lines: Sequence[str], first: int, last: int, path: tuple[str, ...], name: str, body: int, depth: int
) -> Iterator[_Unit]:
    if first >= last:
        return
    inner = (*path, name) if name else path
    if name and depth < 2 and last - body > 3 and _CONTAINER.search(lines[body]):
        members = list(_cut(lines, body + 1, last, inner, depth + 1))
        if (
            members and members[0].path == inner
        ):  # fields before the first method stay with the line that opens the class
            members[0] = members[0]._replace(first=first)
        else:
            yield _Unit(first, body + 1, inner)
        yield from members
    else:
        yield _Unit(first, last, inner)


def _begins(lines: Sequence[str], number: int, margin: int) -> bool:
    line = lines[number]
    return bool(line.strip()) and _indent(line) == margin and not _CLOSER.match(line) and bool(_name(line))


def _with_comments(lines: Sequence[str], start: int, at: int) -> int:
    """Comments and annotations right above a definition belong to it."""
    while start > at and _COMMENT.match(lines[start - 1]):
        start -= 1
    return start


def _name(line: str) -> str:
    line = line[:400]
    bare = line.strip()
    found = _NAMED.match(line) or _ASSIGNED.match(bare) or _SHELL.match(bare) or _CALLED.match(bare)
    return found[1] if found and not _COMMENT.match(line) else ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
