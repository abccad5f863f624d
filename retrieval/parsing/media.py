"""What a file is: by its first bytes, then by its name. Where they contradict each other, that is said, not guessed."""

import re
import zipfile
from collections.abc import Mapping
from typing import Final

from retrieval.parsing.errors import EncryptedFile, InvalidFile, UnsupportedFile
from retrieval.parsing.source import Source

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"
CSV: Final = "text/csv"
TSV: Final = "text/tab-separated-values"
JSON: Final = "application/json"
JSONL: Final = "application/jsonl"
MAIL: Final = "message/rfc822"
CODE: Final = "text/x-source"  # of whatever language

_OFFICE: Final[Mapping[str, str]] = {"word/": DOCX, "ppt/": PPTX, "xl/": XLSX}
_OFFICE_SUFFIXES: Final[Mapping[str, str]] = {
    ".docx": DOCX, ".docm": DOCX, ".pptx": PPTX, ".pptm": PPTX, ".xlsx": XLSX, ".xlsm": XLSX,
}  # fmt: skip
_CODE_SUFFIXES: Final = frozenset({
    ".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".kts", ".scala", ".go", ".rs", ".c",
    ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cs", ".swift", ".m", ".mm", ".rb", ".php", ".pl", ".pm", ".lua", ".r",
    ".jl", ".sh", ".bash", ".zsh", ".fish", ".ps1", ".sql", ".proto", ".thrift", ".graphql", ".tf", ".hcl", ".zig",
    ".nim", ".dart", ".ex", ".exs", ".erl", ".hs", ".ml", ".clj", ".lisp", ".el", ".vim", ".css", ".scss", ".less",
    ".vue", ".svelte", ".toml", ".ini", ".cfg", ".yaml", ".yml", ".cmake", ".gradle", ".groovy",
})  # fmt: skip
_TEXT_SUFFIXES: Final[Mapping[str, str]] = {
    ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN, ".csv": CSV,
    ".tsv": TSV, ".tab": TSV, ".json": JSON, ".geojson": JSON, ".jsonl": JSONL, ".ndjson": JSONL, ".eml": MAIL,
    ".txt": PLAIN, ".text": PLAIN, ".rst": PLAIN, ".log": PLAIN, ".tex": PLAIN, ".adoc": PLAIN, ".org": PLAIN,
    ".xml": PLAIN,
}  # fmt: skip
_DECLARED: Final[Mapping[str, str]] = {
    "application/xhtml+xml": HTML, "text/x-markdown": MARKDOWN, "application/csv": CSV, "application/x-ndjson": JSONL,
    "application/x-jsonlines": JSONL, "text/json": JSON,
}  # fmt: skip
_TEXT_TYPES: Final = frozenset({HTML, MARKDOWN, PLAIN, CSV, TSV, JSON, JSONL, MAIL})

# What people do upload, and what a message can name.
_FOREIGN: Final = (
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"), (b"II*\0", "a TIFF picture"), (b"MM\0*", "a TIFF picture"),
    (b"\x1f\x8b", "a gzip archive"), (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive"), (b"Rar!", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program"), (b"MZ\x90", "a program"), (b"{\\rtf", "an RTF document; save it as DOCX or PDF"),
    (b"SQLite format 3\0", "a database"), (b"ID3", "sound"), (b"OggS", "sound"), (b"fLaC", "sound"),
    (b"PAR1", "a Parquet file"), (b"%!PS", "a PostScript document; save it as PDF"),
)  # fmt: skip
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP: Final = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)


def detect(source: Source) -> str:
    """The media type. Raises UnsupportedFile, EncryptedFile, InvalidFile."""
    head, suffix = source.head, source.suffix
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith(b"PK\x03\x04"):
        return _container(source)
    if head.startswith(_OLE):
        raise _ole(source)
    for mark, what in _FOREIGN:
        if head.startswith(mark) and not (mark == b"BM" and suffix in _TEXT_SUFFIXES):
            raise UnsupportedFile(f"The file is {what}: no text can be read from it.")
    if suffix == ".pdf" or suffix in _OFFICE_SUFFIXES:
        raise InvalidFile(f"The file is named {suffix} and is none: it is damaged, or of another kind.")
    return _text_type(source)


def _text_type(source: Source) -> str:
    if source.suffix in _TEXT_SUFFIXES:
        return _TEXT_SUFFIXES[source.suffix]
    if source.suffix in _CODE_SUFFIXES:
        return CODE
    declared = (source.declared or "").partition(";")[0].strip().lower()
    declared = _DECLARED.get(declared, declared)
    if declared in _TEXT_TYPES and declared != PLAIN:
        return declared
    if _MARKUP.match(source.head):
        return HTML
    return CODE if source.head.startswith(b"#!") else PLAIN


def _container(source: Source) -> str:
    try:
        with source.open() as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise InvalidFile(f"The file is a damaged archive: {type(error).__name__}.") from None
    if "[Content_Types].xml" in names:
        for folder, media_type in _OFFICE.items():
            if any(name.startswith(folder) for name in names):
                return media_type
    if "mimetype" in names:
        raise UnsupportedFile("The file is an OpenDocument or EPUB file. Save it as DOCX, PPTX, XLSX or PDF.")
    raise UnsupportedFile("The file is an archive. Unpack it and upload the files that are in it.")


def _ole(source: Source) -> InvalidFile | UnsupportedFile:
    """Word, Excel and PowerPoint wrote this container until 2007, and still do for files with a password."""
    if source.suffix in _OFFICE_SUFFIXES:
        return EncryptedFile("The file is protected by a password. Remove the protection and upload it again.")
    return UnsupportedFile("The file is in a format of Office 97. Save it as DOCX, PPTX, XLSX or PDF.")
