"""Office files are ZIP archives of XML: looked over before any library opens them."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lxml import etree

from retrieval.parsing.errors import EncryptedFile, InvalidFile, ParseError, TooDeep, TooLarge
from retrieval.parsing.parsed import Limits
from retrieval.parsing.source import Source

_PIECE: Final = 1024 * 1024
_OVERLAP: Final = 16
_LIBRARY_ERRORS: Final = (
    zipfile.BadZipFile, zlib.error, etree.XMLSyntaxError, KeyError, ValueError, TypeError, AttributeError, IndexError,
    AssertionError, EOFError, NotImplementedError, OSError, LookupError, OverflowError,
)  # fmt: skip


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file for a library to read, once it is known to unpack to something bearable.

    What a library raises on a damaged file is of every kind; it becomes InvalidFile. Raises TooLarge, EncryptedFile.
    """
    try:
        with source.open() as file:
            _inspect(file, source.limits)
            file.seek(0)
            yield file
    except ParseError:
        raise
    except RecursionError:
        raise TooDeep("The document is nested too deeply to be read.") from None
    except _LIBRARY_ERRORS as error:
        raise InvalidFile(f"The document is damaged: its structure cannot be read ({type(error).__name__}).") from None


def _inspect(file: Any, limits: Limits) -> None:
    """Reads every XML part once. Sizes in a ZIP's directory bind the reader that Python has, so that they can be trusted."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > limits.members:
            raise TooLarge(f"The document has more than {limits.members:,} parts.")
        unpacked = sum(member.file_size for member in members)
        if unpacked > limits.unpacked_bytes:
            raise TooLarge(f"The document unpacks to {unpacked:,} bytes; {limits.unpacked_bytes:,} are allowed.")
        for member in members:
            if member.flag_bits & 1:
                raise EncryptedFile("The document is encrypted. Remove the protection and upload it again.")
            if member.filename.endswith((".xml", ".rels")) and _declares_entities(archive, member):
                raise InvalidFile("The document declares XML entities, which no Office program writes.")


def _declares_entities(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """A document type is where entities that multiply (a billion laughs) or read files are declared; OOXML forbids it (ECMA-376 part 2)."""
    with archive.open(member) as part:
        tail = b""
        while piece := part.read(_PIECE):
            if b"<!DOCTYPE" in tail + piece or b"<!\0D\0O\0C" in tail + piece:
                return True
            tail = piece[-_OVERLAP:]
    return False
