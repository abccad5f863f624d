"""A file to be parsed: on disk, or in memory as part of another file."""

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from retrieval.parsing.errors import TooLarge
from retrieval.parsing.parsed import Limits

_HEAD = 8192


@dataclass(frozen=True)
class Source:
    """`name` is what the owner called it; `declared` the media type or charset that came along, if any."""

    name: str
    content: Path | bytes
    limits: Limits = field(default_factory=Limits)
    declared: str | None = None
    charset: str | None = None
    nesting: int = 0  # in how many files this one is contained

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def head(self) -> bytes:
        """The first 8 KiB."""
        with self.open() as file:
            return file.read(_HEAD)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")

    def read(self, limit: int | None = None) -> bytes:
        """Everything, for formats that are text. Raises TooLarge, before reading, where it cannot fit `limits.characters`."""
        most = self.limits.characters * 4 if limit is None else limit
        if self.size > most:
            raise TooLarge(
                f"The file has {self.size:,} bytes; text of at most {self.limits.characters:,} characters "
                "is accepted. Split it into several files."
            )
        with self.open() as file:
            return file.read()

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()
