"""PowerPoint: slide by slide, with tables and the speaker's notes. A slide is a page, its title a heading."""

from collections.abc import Iterator
from typing import Any

from pptx import Presentation

from retrieval.parsing import archive
from retrieval.parsing.errors import TooDeep
from retrieval.parsing.formats.table import rendered
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_MAX_GROUPS = 16


def parse(source: Source, out: Writer) -> None:
    with archive.opened(source) as file:
        presentation = Presentation(file)
        out.title = out.title or presentation.core_properties.title.strip() or None
        for number, slide in enumerate(presentation.slides, start=1):
            _slide(number, slide, out)


def _slide(number: int, slide: Any, out: Writer) -> None:
    out.leave(1)
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        out.heading(1, title.text_frame.text, page=number)
        out.title = out.title or title.text_frame.text.strip() or None
    for shape in _shapes(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            out.add("paragraph", _text(shape.text_frame), page=number)
        elif getattr(shape, "has_table", False):
            rows = ([cell.text for cell in row.cells] for row in shape.table.rows)
            for _, row in rendered(enumerate(rows, start=1)):
                out.add("row", row, page=number, tight=True)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        out.add("note", _text(slide.notes_slide.notes_text_frame), page=number)


def _shapes(shapes: Any, nesting: int) -> Iterator[Any]:
    if nesting > _MAX_GROUPS:
        raise TooDeep(f"A slide nests more than {_MAX_GROUPS} groups of shapes.")
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes, nesting + 1)
        else:
            yield shape


def _text(frame: Any) -> str:
    lines = ("  " * paragraph.level + "".join(run.text for run in paragraph.runs) for paragraph in frame.paragraphs)
    return "\n".join(line.replace("\v", "\n") for line in lines if line.strip())
