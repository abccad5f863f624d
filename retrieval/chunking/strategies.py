"""The ways to cut a document: by tokens, sentences, headings or code, and into parents with children."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from retrieval.chunking.chunk import Chunk, Document, Sizes
from retrieval.chunking.cuts import Cuts
from retrieval.chunking.packing import Packer
from retrieval.chunking.tokens import Measure

AUTO: Final = Sizes()
APART: Final = Sizes(800, 0)
CHILDREN: Final = Sizes(160, 0)
_SMALL: Final = 1 / 8  # of the limit: a section that is shorter goes with the next one


class Families(NamedTuple):
    """`children` are searched; `parents[child.parent]` is what is shown. A child lies within its parent."""

    parents: tuple[Chunk, ...]
    children: tuple[Chunk, ...]


def by_tokens(document: Document, measure: Measure, sizes: Sizes = AUTO) -> tuple[Chunk, ...]:
    """OpenAI's `auto` and `static`: as long as allowed, overlapping; cut at headings, blocks, sentences, words in this order."""
    return tuple(Packer(document, measure).pack(0, len(document.text), sizes))


def by_sentences(document: Document, measure: Measure, sizes: Sizes = AUTO) -> tuple[Chunk, ...]:
    """Whole sentences; inside one only where it is longer than a passage may be."""
    packer = Packer(document, measure, Cuts(document.text, (), lines=False))
    return tuple(packer.pack(0, len(document.text), sizes))


def by_headings(document: Document, measure: Measure, sizes: Sizes = APART) -> tuple[Chunk, ...]:
    """A passage for each section, several for a long one. No passage crosses a heading but one that joins sections of a few words."""
    places = [block.start for block in document.blocks if block.kind == "heading"]
    return by_sections(document, measure, places, sizes)


def by_definitions(document: Document, measure: Measure, sizes: Sizes = APART) -> tuple[Chunk, ...]:
    """A passage for each function or class of source code, several for a long one, one for several that are tiny."""
    places = [block.start for block in document.blocks]
    return by_sections(document, measure, places, sizes)


def by_sections(document: Document, measure: Measure, places: Iterable[int], sizes: Sizes = APART) -> tuple[Chunk, ...]:
    """Cuts at every one of `places` (in order), then what is longer than allowed; joins what is tiny."""
    packer = Packer(document, measure)
    bounds = sorted({0, *places, len(document.text)})
    sections = _joined(packer, list(pairwise(bounds)), sizes)
    return tuple(chunk for begin, end in sections for chunk in packer.pack(begin, end, sizes))


def into_families(
    document: Document,
    measure: Measure,
    parents: Sequence[Chunk],
    sizes: Sizes = CHILDREN,
) -> Families:
    """Each of `parents` (from any of the above; best without overlap) cut into children that know it."""
    packer = Packer(document, measure)
    children = tuple(
        Chunk(
            text=child.text,
            start=child.start,
            end=child.end,
            page=child.page,
            line=child.line,
            heading=child.heading,
            tokens=child.tokens,
            parent=place,
        )
        for place, parent in enumerate(parents)
        for child in packer.pack(parent.start, parent.end, sizes)
    )
    return Families(tuple(parents), children)


def _joined(packer: Packer, sections: Sequence[tuple[int, int]], sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Sections in order; one that is tiny goes with what follows, if both fit."""
    begin: int | None = None
    for place, (start, end) in enumerate(sections):
        first = start if begin is None else begin
        last = place + 1 == len(sections)
        tiny = packer.tokens(first, end) < sizes.max_tokens * _SMALL
        if tiny and not last and packer.tokens(first, sections[place + 1][1]) <= sizes.max_tokens:
            begin = first
            continue
        yield first, end
        begin = None
