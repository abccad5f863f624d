"""PDF: the text layer, page by page, under the headings of the document's outline. Pictures of text are named, not read."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pypdfium2 as pdfium
from pypdfium2 import PdfiumError

from retrieval.parsing.errors import EncryptedFile, InvalidFile, TooLarge
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_MAX_OUTLINE = 10_000
_MAX_OUTLINE_DEPTH = 12
_HYPHEN = re.compile(
    "[\ufffe\x02]\\s*\n?"
)  # what PDFium writes for a hyphen at the end of a line that only breaks a word
_BREAK = re.compile(r"\n[ \t]*\n+")
_ENDS = re.compile(r"""[.!?:;]["'\u201d\u2019)\]]*$""")


def parse(source: Source, out: Writer) -> None:
    document = _opened(source)
    try:
        if len(document) > source.limits.members:
            raise TooLarge(f"The document has more than {source.limits.members:,} pages.")
        title = document.get_metadata_dict().get("Title", "").strip()
        out.title = out.title or title or None
        outline = _outline(document)
        pages = len(document)
        blank = [number for number in range(1, pages + 1) if not _page(document, number, outline, out)]
    except PdfiumError as error:
        raise InvalidFile(f"The PDF is damaged: {error}") from None
    finally:
        document.close()
    if blank:
        some = ", ".join(map(str, blank[:10])) + (" …" if len(blank) > 10 else "")
        out.warn(f"{len(blank)} of {pages} pages hold no text (pages {some}): pictures need OCR first.")


def _opened(source: Source) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(source.content if isinstance(source.content, bytes) else Path(source.content))
    except PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise EncryptedFile(
                "The PDF is protected by a password. Remove the protection and upload it again."
            ) from None
        raise InvalidFile("The PDF is damaged: it has no readable structure.") from None


def _outline(document: pdfium.PdfDocument) -> Mapping[int, Sequence[tuple[int, str]]]:
    """`(level, title)` of the bookmarks that lead to each page, counted from 1."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for mark in islice(document.get_toc(max_depth=_MAX_OUTLINE_DEPTH), _MAX_OUTLINE):
        target = mark.get_dest()
        page = target.get_index() if target is not None else None
        title = mark.get_title()
        if page is not None and title.strip():
            found[page + 1].append((mark.level + 1, title))
    return found


def _page(
    document: pdfium.PdfDocument, number: int, outline: Mapping[int, Sequence[tuple[int, str]]], out: Writer
) -> bool:
    """Adds a page; whether it had text. Its text comes before the first bookmark's place if that is known by its title alone."""
    page = document[number - 1]
    layer = page.get_textpage()
    try:
        text = layer.get_text_bounded() or ""
    finally:
        layer.close()
        page.close()
    waiting = list(outline.get(number, ()))
    had = False
    for paragraph in _paragraphs(text):
        had = True
        squeezed = _squeezed(paragraph)
        while waiting and (
            squeezed.startswith(_squeezed(waiting[0][1])) or _squeezed(waiting[0][1]) not in _squeezed(text)
        ):
            out.enter(*waiting.pop(0))
        out.add("paragraph", paragraph, page=number)
    for mark in waiting:
        out.enter(*mark)
    return had


def _paragraphs(text: str) -> Iterator[str]:
    """PDF knows no paragraphs: they end at a blank line, or where a line ends a sentence well before the margin."""
    text = _HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    for part in _BREAK.split(text):
        lines = [line.rstrip() for line in part.split("\n") if line.strip()]
        if not lines:
            continue
        width = max(map(len, lines))
        gathered: list[str] = []
        for line in lines:
            gathered.append(line)
            if len(line) < 0.75 * width and _ENDS.search(line):
                yield "\n".join(gathered)
                gathered = []
        if gathered:
            yield "\n".join(gathered)


def _squeezed(text: str) -> str:
    return "".join(text.split()).lower()
