"""Word: paragraphs, headings, lists and tables in the order of the document."""

import re
from collections.abc import Iterator
from typing import Any

import docx
from docx.document import Document
from docx.table import Table
from docx.text.paragraph import Paragraph

from retrieval.parsing import archive
from retrieval.parsing.errors import TooDeep
from retrieval.parsing.formats.table import rendered
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_HEADING = re.compile(r"^(?:heading|überschrift|titre|título|titolo|kop) ?(\d)$", re.IGNORECASE)
_MAX_TABLES = 4  # in each other


def parse(source: Source, out: Writer) -> None:
    with archive.opened(source) as file:
        document: Document = docx.Document(file)
        out.title = out.title or document.core_properties.title.strip() or None
        _content(document, out, 0)


def _content(container: Any, out: Writer, nesting: int) -> None:
    if nesting > _MAX_TABLES:
        raise TooDeep(f"The document nests more than {_MAX_TABLES} tables in each other.")
    for piece in container.iter_inner_content():
        if isinstance(piece, Paragraph):
            _paragraph(piece, out)
        elif isinstance(piece, Table):
            _table(piece, out, nesting)


def _paragraph(paragraph: Paragraph, out: Writer) -> None:
    text = paragraph.text.strip()
    level = _level(paragraph)
    if level is not None:
        out.title = out.title or text or None
        out.heading(level, text)
    elif _is_item(paragraph):
        out.add("list", f"- {text}" if text else "", tight=True)
    else:
        out.add("paragraph", text)


def _level(paragraph: Paragraph) -> int | None:
    """The outline level: by style, also one that is derived from a heading."""
    style = paragraph.style
    for _ in range(10):
        if style is None:
            return None
        if style.name == "Title":
            return 1
        found = _HEADING.match(style.name or "")
        if found:
            return int(found[1])
        style = getattr(style, "base_style", None)
    return None


def _is_item(paragraph: Paragraph) -> bool:
    """Numbered or bulleted, by itself or by its style: in no public field of the library."""
    by_itself = paragraph._p.pPr is not None and paragraph._p.pPr.numPr is not None  # noqa: SLF001 — as said
    return by_itself or (paragraph.style is not None and (paragraph.style.name or "").startswith("List"))


def _table(table: Table, out: Writer, nesting: int) -> None:
    for _, row in rendered((number, cells) for number, cells in enumerate(_rows(table, out, nesting), start=1)):
        out.add("row", row, tight=True)


def _rows(table: Table, out: Writer, nesting: int) -> Iterator[list[str]]:
    for row in table.rows:
        cells, seen = [], set()
        for cell in row.cells:
            if id(cell._tc) in seen:  # noqa: SLF001 — a merged cell is given once for each column that it spans
                continue
            seen.add(id(cell._tc))  # noqa: SLF001 — as above
            cells.append(cell.text)
            for inner in cell.tables:
                if nesting >= _MAX_TABLES:
                    raise TooDeep(f"The document nests more than {_MAX_TABLES} tables in each other.")
                _table(inner, out, nesting + 1)
        yield cells
