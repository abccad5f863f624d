"""A stretch of text into passages of bounded length: each as long as the limit allows, cut at the best place near its end."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, final

from retrieval.chunking.chunk import Chunk, Document, Sizes
from retrieval.chunking.cuts import Cuts
from retrieval.chunking.tokens import Measure
from retrieval.parsing.parsed import Block

_LEAST: Final = 0.5  # of what fits: a passage ends in the second half of its room
_NEAR: Final = 0.9  # of the limit: from here on a passage is measured by itself, as its first token may become two


class Span(NamedTuple):
    """`[start, end)`; what is before `core` repeats the passage before."""

    start: int
    core: int
    end: int


@final
class Packer:
    """One document under one measure. All offsets are characters of its text."""

    def __init__(self, document: Document, measure: Measure, cuts: Cuts | None = None) -> None:
        self.document = document
        self._measure = measure
        self._ends: array[int] = measure.ends(document.text)
        self._cuts = cuts or Cuts(document.text, document.blocks)
        self._places = [block.start for block in document.blocks]
        self._counted = 0, 0, 0

    def tokens(self, begin: int, end: int) -> int:
        """How many tokens a stretch has, give or take one at its edges."""
        return bisect_left(self._ends, end) - bisect_right(self._ends, begin) + 1 if end > begin else 0

    def pack(self, begin: int, end: int, sizes: Sizes) -> Iterator[Chunk]:
        """The passages of `text[begin:end]`. Every character that is not blank is in one of them."""
        for span in self._spans(begin, end, sizes):
            chunk = self.chunk(span)
            if chunk is not None:
                yield chunk

    def chunk(self, span: Span) -> Chunk | None:
        """The passage without the blank space around it; None if that is all."""
        piece = self.document.text[span.start : span.end]
        text = piece.strip()
        if not text:
            return None
        start = span.start + len(piece) - len(piece.lstrip())
        here, core = self._block(start), self._block(max(start, span.core))
        return Chunk(
            text=text,
            start=start,
            end=start + len(text),
            page=here.page if here is not None else None,
            line=self._line(here, start),
            heading=core.headings if core is not None else (),
            tokens=len(self._measure.ends(text)),
        )

    def _spans(self, begin: int, end: int, sizes: Sizes) -> Iterator[Span]:
        core = begin
        while core < end:
            start = core if core == begin else self._repeat_from(core, begin, sizes.overlap_tokens)
            span = Span(start, core, self._end(start, core, end, sizes.max_tokens))
            while span.end > core + 1 and (excess := self._excess(span, sizes.max_tokens)) > 0:
                room = max(1, self.tokens(start, span.end) - excess - 1)
                span = Span(start, core, min(span.end - 1, self._end(start, core, span.end, room)))
            yield span
            core = span.end

    def _repeat_from(self, core: int, begin: int, overlap: int) -> int:
        if overlap == 0:
            return core
        token = bisect_right(self._ends, core)
        earliest = self._ends[token - overlap - 1] if token > overlap else 0
        return self._cuts.first(max(begin, earliest), core)

    def _end(self, start: int, core: int, end: int, room: int) -> int:
        """Where the passage from `start` ends: the best place in the second half of what is left after its repetition."""
        first = bisect_right(self._ends, start)
        last = first + room - 1
        if last >= len(self._ends) or self._ends[last] >= end:
            return end
        limit = self._ends[last]
        opened = bisect_right(self._ends, core)
        least = self._ends[min(last, opened + int((last - opened) * _LEAST))]
        found = self._cuts.best(max(core, min(least, limit - 1)), limit)
        return found if found is not None else max(limit, core + 1)

    def _excess(self, span: Span, most: int) -> int:
        if self.tokens(span.start, span.end) <= most * _NEAR:
            return 0
        return len(self._measure.ends(self.document.text[span.start : span.end].strip())) - most

    def _block(self, place: int) -> Block | None:
        """The block that holds a place, or else the next one; the last for what comes after it."""
        blocks: Sequence[Block] = self.document.blocks
        if not blocks:
            return None
        index = max(0, bisect_right(self._places, place) - 1)
        if blocks[index].end <= place and index + 1 < len(blocks):
            index += 1
        return blocks[index]

    def _line(self, block: Block | None, place: int) -> int | None:
        if block is None:
            return 1 + self._breaks(0, place) if self.document.verbatim else None
        if block.line is None or not self.document.verbatim:
            return block.line
        if place >= block.start:
            return block.line + self._breaks(block.start, place)
        return block.line - self.document.text.count("\n", place, block.start)

    def _breaks(self, begin: int, place: int) -> int:
        """Line breaks in between, from the last place on: a block may be all of the text, and have thousands of passages."""
        text, (first, last, found) = self.document.text, self._counted
        if first != begin:
            last, found = begin, 0
        found += text.count("\n", last, place) - text.count("\n", place, last)
        self._counted = begin, place, found
        return found
