"""The text that grows while a file is read: bounded, clean, with a block for every piece."""

import re

from retrieval.parsing.errors import TooLarge
from retrieval.parsing.parsed import Block, Kind, Limits

# PostgreSQL stores no NUL, and UTF-8 has no lone surrogates; each becomes one U+FFFD, so that lengths stay.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_HEADING = 200
_MAX_WARNINGS = 50


class Writer:
    """Pieces are joined by a blank line, or a line break between `tight` ones (rows, items)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pieces: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._path: list[tuple[int, str]] = []
        self.below = 0  # added to every level: the headings of a file inside another one stand below that one's
        self.title: str | None = None
        self.encoding: str | None = None
        self.warnings: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks)

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(text for _, text in self._path)

    def warn(self, message: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(message)

    def enter(self, level: int, heading: str) -> None:
        """What follows stands under `heading`, which closes the headings of its level and below."""
        self.leave(level)
        self._path.append((level + self.below, clean(" ".join(heading.split()))[:_MAX_HEADING]))

    def leave(self, level: int) -> None:
        """Closes the headings of this level and below."""
        while self._path and self._path[-1][0] >= level + self.below:
            self._path.pop()

    def heading(self, level: int, text: str, *, page: int | None = None, line: int | None = None) -> None:
        """A heading that is itself part of the text."""
        text = " ".join(text.split())
        if text:
            self.enter(level, text)
            self.add("heading", text, page=page, line=line)

    def add(
        self, kind: Kind, text: str, *, page: int | None = None, line: int | None = None, tight: bool = False
    ) -> None:
        """One piece. Blank text adds nothing."""
        text = clean(text).strip("\n")
        if not text.strip():
            return
        if self._length:
            self._append("\n" if tight else "\n\n")
        start = self._length
        self._append(text)
        self._mark(Block(start, self._length, kind, self.headings, page, line))

    def verbatim(self, text: str) -> int:
        """Adds a source text as it is, with no block yet; `mark` says what stands in it. Gives the offset of its start."""
        if self._length:
            self._append("\n\n")
        start = self._length
        self._append(clean(text))
        return start

    def mark(
        self, kind: Kind, start: int, end: int, *, line: int | None = None, headings: tuple[str, ...] | None = None
    ) -> None:
        """A block of text that is there already. `headings` go below those that are open."""
        path = self.headings if headings is None else self.headings + headings
        self._mark(Block(start, end, kind, path, None, line))

    def _append(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._limits.characters:
            raise TooLarge(f"The file holds more than {self._limits.characters:,} characters of text. Split it.")
        self._pieces.append(text)

    def _mark(self, block: Block) -> None:
        if len(self._blocks) >= self._limits.blocks:
            raise TooLarge(f"The file has more than {self._limits.blocks:,} paragraphs, rows or elements. Split it.")
        self._blocks.append(block)


def clean(text: str) -> str:
    """The text with what no database can hold replaced, character by character."""
    return _UNSTORABLE.sub("\ufffd", text)
