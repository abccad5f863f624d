"""Where files become passages: parsed in a process of their own, cut in a thread."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from retrieval.chunking import chunk, semantic, strategies
from retrieval.chunking.tokens import Estimate
from retrieval.chunking_strategy import Chunking
from retrieval.errors import Unavailable
from retrieval.parsing.errors import EmptyFile, InvalidFile, ParseError, ParserUnavailable, UnsupportedFile
from retrieval.parsing.sandbox import Sandbox
from retrieval.ports import Chunk, Meaning, Reading, Unreadable

_WAYS: Final = {
    "auto": strategies.by_tokens,
    "static": strategies.by_tokens,
    "sentences": strategies.by_sentences,
    "headings": strategies.by_headings,
    "code": strategies.by_definitions,
}
_VERBATIM: Final = ("text/plain", "text/markdown", "text/x-")  # their text is the file's own, line by line


@final
class Documents:
    """A `retrieval.ports.Reader` for every kind of file that there is a parser for. From one event loop."""

    def __init__(self, workers: int = 1) -> None:
        self._sandbox = Sandbox(workers=workers)

    async def read(self, path: Path, filename: str, chunking: Chunking, meaning: Meaning) -> Reading:
        """Raises Unreadable, Unavailable, OSError, and what `meaning.embed` raises."""
        if not await asyncio.to_thread(path.exists):
            raise FileNotFoundError(path)
        try:
            parsed = await self._sandbox.parse(path, name=filename)
        except EmptyFile:
            return Reading("", ())
        except (InvalidFile, UnsupportedFile) as error:
            raise Unreadable(error.code, error.message) from None
        except ParserUnavailable as error:
            if isinstance(error.__cause__, OSError):  # no process, no memory just now: it is tried again
                raise OSError(error.__cause__.errno, error.message) from error
            raise Unavailable(error.message) from error
        except ParseError as error:
            raise Unavailable(error.message) from error
        document = chunk.Document(parsed.text, parsed.blocks, verbatim=parsed.media_type.startswith(_VERBATIM))
        places: Sequence[int] = ()
        if chunking.type == "semantic":
            places = await semantic.places(document, meaning.embed, meaning.progress)
        return await asyncio.to_thread(_cut, document, chunking, places)

    async def close(self) -> None:
        await self._sandbox.close()


def _cut(document: chunk.Document, chunking: Chunking, places: Sequence[int]) -> Reading:
    """Blocks. `places` where the meaning changes."""
    measure, sizes = Estimate(), chunk.Sizes(chunking.max_tokens, chunking.overlap_tokens)
    if chunking.type == "semantic":
        found = strategies.by_sections(document, measure, places, sizes)
    else:
        found = _WAYS[chunking.type](document, measure, sizes)
    if chunking.child_tokens is None:
        return Reading(document.text, [_chunk(each) for each in found])
    families = strategies.into_families(document, measure, found, chunk.Sizes(chunking.child_tokens, 0))
    parents = [(each.start, each.end) for each in families.parents]
    children = ((each, parents[each.parent]) for each in families.children if each.parent is not None)
    return Reading(document.text, [_chunk(each, parent) for each, parent in children])


def _chunk(each: chunk.Chunk, parent: tuple[int, int] | None = None) -> Chunk:
    return Chunk(each.text, each.start, each.end, each.page, each.line, each.heading, each.tokens, parent)
