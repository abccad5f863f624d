"""Where files become passages: parsed in a process of their own, cut in a thread."""

import asyncio
from pathlib import Path
from typing import Final, final

from retrieval.chunking import chunk, strategies
from retrieval.chunking.tokens import Estimate
from retrieval.chunking_strategy import Chunking
from retrieval.errors import Unavailable
from retrieval.parsing.errors import EmptyFile, InvalidFile, ParseError, ParserUnavailable, UnsupportedFile
from retrieval.parsing.parsed import Parsed
from retrieval.parsing.sandbox import Sandbox
from retrieval.ports import Chunk, Reading, Unreadable

_VERBATIM: Final = ("text/plain", "text/markdown", "text/x-")  # their text is the file's own, line by line


@final
class Documents:
    """A `retrieval.ports.Reader` for every kind of file that there is a parser for. From one event loop."""

    def __init__(self, workers: int = 1) -> None:
        self._sandbox = Sandbox(workers=workers)

    async def read(self, path: Path, filename: str, chunking: Chunking) -> Reading:
        """Raises Unreadable, Unavailable, OSError."""
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
        return await asyncio.to_thread(_cut, parsed, chunking)

    async def close(self) -> None:
        await self._sandbox.close()


def _cut(parsed: Parsed, chunking: Chunking) -> Reading:
    """Blocks."""
    document = chunk.Document(parsed.text, parsed.blocks, verbatim=parsed.media_type.startswith(_VERBATIM))
    sizes = chunk.Sizes(chunking.max_tokens, chunking.overlap_tokens)
    return Reading(
        parsed.text,
        [
            Chunk(each.text, each.start, each.end, each.page, each.line, each.heading, each.tokens)
            for each in strategies.by_tokens(document, Estimate(), sizes)
        ],
    )
