"""Which module reads which media type, and one way to all of them. Runs in the parsing process."""

import importlib
from collections.abc import Mapping
from typing import Final, Protocol, cast

from retrieval.parsing import media
from retrieval.parsing.errors import EmptyFile, ParserUnavailable, TooDeep, TooMuchMemory
from retrieval.parsing.parsed import Parsed
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_FORMATS: Final[Mapping[str, str]] = {
    media.PDF: "pdf",
    media.DOCX: "docx",
    media.PPTX: "pptx",
    media.XLSX: "xlsx",
    media.HTML: "html",
    media.MARKDOWN: "markdown",
    media.PLAIN: "plain",
    media.CSV: "delimited",
    media.TSV: "delimited",
    media.JSON: "json",
    media.JSONL: "json",
    media.MAIL: "mail",
    media.CODE: "code",
}


class Format(Protocol):
    """A module of `retrieval.parsing.formats`."""

    def parse(self, source: Source, out: Writer) -> None: ...


def read(source: Source) -> Parsed:
    """The whole way of one file. Raises ParseError."""
    if source.size == 0:
        raise EmptyFile("The file is empty: it has no bytes.")
    out = Writer(source.limits)
    media_type = parse_into(source, out)
    text = out.text
    if not text.strip():
        raise EmptyFile(" ".join(["The file holds no text.", *out.warnings]))
    return Parsed(text, out.blocks, media_type, out.encoding, out.title, tuple(out.warnings))


def parse_into(source: Source, out: Writer) -> str:
    """One file's text into a writer, which may hold other files' already. Gives the media type. Raises ParseError."""
    media_type = media.detect(source)
    format_ = _format(_FORMATS[media_type])
    try:
        format_.parse(source, out)
    except MemoryError:
        raise TooMuchMemory(
            "The file needs more memory than a file may. Split it, or save it in a simpler form."
        ) from None
    except RecursionError:
        raise TooDeep("The file is nested too deeply to be read.") from None
    return media_type


def _format(name: str) -> Format:
    try:
        return cast("Format", importlib.import_module(f"retrieval.parsing.formats.{name}"))
    except ImportError as error:
        raise ParserUnavailable(
            f"The library {error.name} is missing. Install Penstock with its `documents` extra: uv sync --extra documents."
        ) from error
