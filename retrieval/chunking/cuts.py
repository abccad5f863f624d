"""Where a text may be cut, and how good each place is: headings, blocks, items, sentences, lines, words."""

import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from retrieval.chunking import sentences
from retrieval.parsing.parsed import Block

_LINE: Final = re.compile(r"\n[ \t]*(?=\S)")
_WORD: Final = re.compile(r"\s+(?=\S)")
_DEEPEST: Final = 9
_FINGERPRINT: Final = 32  # characters after a cut that stand for it


@final
class Cuts:
    """The places of one document. What is said about a place depends on the text around it alone, never on what is far away."""

    def __init__(self, text: str, blocks: Sequence[Block], *, lines: bool = True) -> None:
        self._text = text
        self._lines = lines
        self._places = [block.start for block in blocks]
        self._ranks = [_rank(block) for block in blocks]

    def best(self, begin: int, end: int) -> int | None:
        """The best place in `(begin, end]`, by kind, then by a fingerprint of what follows it; None where there is no blank space.

        The fingerprint decides instead of the position, so that two passes which start at different places soon meet at
        the same cuts: after an edit, the passages that follow it are the old ones again.
        """
        for places in self._kinds(begin, end):
            found = max(places, key=self._fingerprint, default=None)
            if found is not None:
                return found
        return None

    def first(self, begin: int, end: int) -> int:
        """The first sentence, or else the first word, that begins in `[begin, end)`; `end` if none does."""
        for places in (
            (place for place in self._between(begin - 1, end - 1)),
            sentences.starts(self._text, begin - 1, end - 1),
            (match.end() for match in _WORD.finditer(self._text, max(0, begin - 1), end)),
        ):
            for place in places:
                if begin <= place < end:
                    return place
        return end

    def _kinds(self, begin: int, end: int) -> Iterator[Iterable[int]]:
        blocks = list(self._between(begin, end))
        if blocks:
            most = max(self._rank_at(place) for place in blocks)
            yield [place for place in blocks if self._rank_at(place) == most]
        yield sentences.starts(self._text, begin, end)
        if self._lines:
            yield _ends(_LINE, self._text, begin, end)
        yield _ends(_WORD, self._text, begin, end)

    def _between(self, begin: int, end: int) -> Iterator[int]:
        for index in range(bisect_right(self._places, begin), bisect_right(self._places, end)):
            yield self._places[index]

    def _rank_at(self, place: int) -> int:
        return self._ranks[bisect_right(self._places, place) - 1]

    def _fingerprint(self, place: int) -> tuple[int, int]:
        return zlib.crc32(self._text[place : place + _FINGERPRINT].encode("utf-8", "replace")), place


def _rank(block: Block) -> int:
    depth = min(len(block.headings), _DEEPEST)
    match block.kind:
        case "heading":
            return 100 - depth
        case "definition":
            return 90 - depth
        case "row" | "list":
            return 10
        case _:
            return 20


def _ends(pattern: re.Pattern[str], text: str, begin: int, end: int) -> Iterator[int]:
    for match in pattern.finditer(text, max(0, begin - 1), min(len(text), end + 1)):
        if begin < match.end() <= end:
            yield match.end()
