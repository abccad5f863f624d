"""Plain text and Markdown, read and cut with the standard library alone: what there is without parsers."""

import asyncio
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, final

from retrieval.chunking_strategy import Chunking
from retrieval.ports import Chunk, Reading, Unreadable

MAX_BYTES: Final = 64 * 1024 * 1024

_TOKEN = re.compile(r"\w{1,8}|[^\w\s]")  # about what a tokenizer for English makes of it
_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_MARKDOWN: Final = (".md", ".markdown")


@final
class PlainText:
    """A `retrieval.ports.Reader`."""

    async def read(self, path: Path, filename: str, chunking: Chunking) -> Reading:
        """Raises Unreadable, OSError."""
        return await asyncio.to_thread(self._read, path, filename, chunking)

    async def close(self) -> None: ...

    def _read(self, path: Path, filename: str, chunking: Chunking) -> Reading:
        if path.stat().st_size > MAX_BYTES:
            raise Unreadable("invalid_file", f"A text may have {MAX_BYTES:,} bytes: split it")
        data = path.read_bytes()
        try:
            text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError:
            raise Unreadable("unsupported_file", "The file is not a text in UTF-8 or UTF-16") from None
        if "\0" in text:
            raise Unreadable("unsupported_file", "The file is not a text: it has bytes of zero in it")
        headings = _HEADING.finditer(text) if filename.lower().endswith(_MARKDOWN) else ()
        return Reading(text, list(_chunks(text, chunking, _paths(headings))))


def _chunks(text: str, chunking: Chunking, paths: Sequence[tuple[int, tuple[str, ...]]]) -> Iterator[Chunk]:
    """Windows of tokens, each with its anchors."""
    spans = [match.span() for match in _TOKEN.finditer(text)]
    lines = [match.start() for match in re.finditer("\n", text)]
    starts = [start for start, _ in paths]
    step = chunking.max_tokens - chunking.overlap_tokens
    for first in range(0, len(spans), step):
        last = min(first + chunking.max_tokens, len(spans)) - 1
        start, end = spans[first][0], spans[last][1]
        under = bisect_right(starts, start) - 1
        yield Chunk(
            text[start:end],
            start,
            end,
            line=bisect_right(lines, start) + 1,
            heading=paths[under][1] if under >= 0 else (),
            tokens=last - first + 1,
        )
        if last == len(spans) - 1:
            return


def _paths(headings: "Iterator[re.Match[str]] | tuple[()]") -> Sequence[tuple[int, tuple[str, ...]]]:
    """Where each heading begins, and the path that it ends."""
    found: list[tuple[int, tuple[str, ...]]] = []
    path: list[tuple[int, str]] = []
    for match in headings:
        level = len(match[1])
        path = [*(each for each in path if each[0] < level), (level, match[2])]
        found.append((match.start(), tuple(title for _, title in path)))
    return found
