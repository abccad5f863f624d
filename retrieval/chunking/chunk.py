"""A passage of a document, and where it stands."""

import msgspec

from retrieval.parsing.parsed import Block


class Document(msgspec.Struct, frozen=True):
    """What is cut: a text, and what is known about its structure (blocks in order, from `retrieval.parsing`, or none).

    `verbatim`: the text is the source file's own, so that line breaks in it are lines of the file.
    """

    text: str
    blocks: tuple[Block, ...] = ()
    verbatim: bool = True


class Sizes(msgspec.Struct, frozen=True):
    """At most `max_tokens` in a passage, of which up to `overlap_tokens` repeat the end of the one before.

    The defaults are OpenAI's `auto`. Raises ValueError outside 0 ≤ overlap ≤ max / 2, max ≥ 16.
    """

    max_tokens: int = 800
    overlap_tokens: int = 400

    def __post_init__(self) -> None:
        if self.max_tokens < 16:
            raise ValueError("max_tokens must be at least 16")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise ValueError("overlap_tokens must be between 0 and half of max_tokens")


class Chunk(msgspec.Struct, frozen=True):
    """`document.text[start:end] == text`, without blank space around it.

    `heading` is the path of headings (or definitions) that it stands under, `page` and `line` count from 1 and are those of its start.
    `parent` is the index of the passage to show instead of this one; `context` is what a model said about its place in the document.
    """

    text: str
    start: int
    end: int
    page: int | None = None
    line: int | None = None
    heading: tuple[str, ...] = ()
    tokens: int = 0
    parent: int | None = None
    context: str = ""

    @property
    def embedded_text(self) -> str:
        """What is to be embedded and indexed: the passage after its context."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text
