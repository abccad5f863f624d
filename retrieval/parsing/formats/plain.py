"""Plain text: paragraphs between blank lines."""

import re

from retrieval.parsing import charset
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_PARAGRAPH = re.compile(r"\S(?:[^\n]|\n(?![ \t]*\n))*")


def parse(source: Source, out: Writer) -> None:
    text, out.encoding = charset.decode(source.read(), source.charset)
    start = out.verbatim(text)
    line, counted = 1, 0
    for match in _PARAGRAPH.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        out.mark("paragraph", start + match.start(), start + match.start() + len(match[0].rstrip()), line=line)
