"""Markdown: the text stays as it was written, blocks and headings are CommonMark's with tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from retrieval.parsing import charset
from retrieval.parsing.parsed import Kind
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_KINDS: Final[Mapping[str, Kind]] = {
    "paragraph_open": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "blockquote_open": "quote",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
    "html_block": "paragraph",
}
_MAX_NESTING = 20  # as CommonMark's preset


def parse(source: Source, out: Writer) -> None:
    text, out.encoding = charset.decode(source.read(), source.charset)
    start = out.verbatim(text)
    lines = _line_starts(text)
    body = _after_front_matter(text, lines)
    parser = (
        MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable("table").disable(["inline", "text_join"], True)
    )
    tokens = parser.parse("\n" * body + text[lines[body] :])
    for token, heading in _top_level(tokens):
        first, last = token.map or (0, 0)
        begin, end = lines[first], lines[min(last, len(lines) - 1)]
        piece = text[begin:end].rstrip()
        if not piece.strip():
            continue
        if heading is not None and heading.strip():
            out.enter(int(token.tag[1:]), heading)
            out.title = out.title or heading.strip()
        kind: Kind = "heading" if heading is not None else _KINDS[token.type]
        out.mark(kind, start + begin, start + begin + len(piece), line=first + 1)


def _line_starts(text: str) -> Sequence[int]:
    """The offset of each line, and of the end."""
    return [*accumulate((len(line) + 1 for line in text.split("\n")[:-1]), initial=0), len(text)]


def _after_front_matter(text: str, lines: Sequence[int]) -> int:
    """The line after a YAML header between two `---`, as site generators and note takers write it."""
    if not text.startswith("---\n"):
        return 0
    for number, begin in enumerate(lines[1:-1], start=1):
        if text.startswith(("---\n", "...\n"), begin):
            return number + 1
    return 0


def _top_level(tokens: Sequence[Token]) -> Iterator[tuple[Token, str | None]]:
    """The blocks that stand in no other one; for a heading its text as well."""
    for place, token in enumerate(tokens):
        if token.level != 0 or token.map is None:
            continue
        if token.type == "heading_open":
            yield token, tokens[place + 1].content
        elif token.type in _KINDS:
            yield token, None
