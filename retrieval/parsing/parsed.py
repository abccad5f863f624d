"""What a parser gives: one text, and blocks that say where in the source each piece of it stood."""

from typing import Literal

import msgspec

Kind = Literal["heading", "paragraph", "list", "table", "row", "quote", "code", "definition", "note"]


class Block(msgspec.Struct, frozen=True, array_like=True):
    """`text[start:end]` of the document, in characters. Blocks are in order and do not overlap.

    `page` counts from 1: a page of a PDF, a slide, a sheet. `line` counts from 1 in the source file, where it has lines.
    `headings` is the path from the outermost heading; a heading's own path ends with itself. For code they are the
    enclosing definitions, for JSON the path of the value.
    """

    start: int
    end: int
    kind: Kind
    headings: tuple[str, ...] = ()
    page: int | None = None
    line: int | None = None


class Parsed(msgspec.Struct, frozen=True):
    """`encoding` is None for formats that say it themselves. `warnings` name what was left out, for the file's owner."""

    text: str
    blocks: tuple[Block, ...]
    media_type: str
    encoding: str | None = None
    title: str | None = None
    warnings: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """What one file may cost. The defaults follow OpenAI's: 512 MB a file, 5 million tokens of text."""

    file_bytes: int = 512 * 1024 * 1024
    unpacked_bytes: int = 1024 * 1024 * 1024  # of a container's members together
    members: int = 20_000
    characters: int = 20_000_000
    blocks: int = 500_000
    memory_bytes: int = 1024 * 1024 * 1024  # address space of the process
    cpu_s: int = 60
    wall_s: float = 120.0
    depth: int = 200  # of nested elements, values, messages
    files_per_process: int = 200
