"""A few words before each passage that say where in its document it stands, from a model (Anthropic, "Contextual Retrieval", 2024)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from retrieval.chunking.chunk import Chunk, Document
from retrieval.chunking.tokens import Estimate

Ask = Callable[[str, str], Awaitable[str]]
"""A model: the part that is the same for all passages of a document (to be cached), the question about one of them."""


class Passage(Protocol):
    """A part of a document's text, from one character to another."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


AT_ONCE: Final = 4
MOST_CHARACTERS: Final = 60_000  # of the document, about 15,000 tokens
_HEAD: Final = 8_000
_LONGEST_CONTEXT: Final = 1_000
_QUESTION: Final = (
    "<passage>\n{passage}\n</passage>\nSay in one or two sentences where this passage stands in the document and what it is about, "
    "with the names that it only implies, so that a search finds it. Answer with these sentences alone."
)


async def with_context(
    document: Document,
    chunks: Sequence[Chunk],
    ask: Ask,
    *,
    at_once: int = AT_ONCE,
    most_characters: int = MOST_CHARACTERS,
) -> tuple[Chunk, ...]:
    """The same passages, each with its context. Raises what `ask` raises."""
    said, error = await contexts(document.text, chunks, ask, at_once=at_once, most_characters=most_characters)
    if error is not None:
        raise error
    return tuple(
        msgspec.structs.replace(chunk, context=context or "") for chunk, context in zip(chunks, said, strict=True)
    )


async def contexts(
    text: str, passages: Sequence[Passage], ask: Ask, *, at_once: int = AT_ONCE, most_characters: int = MOST_CHARACTERS
) -> tuple[Sequence[str | None], Exception | None]:
    """What is said of each passage of a document's text. At most `at_once` questions are open.

    What `ask` raises first is the second value: nothing more is asked then, and what was said is paid for and given back.
    A document that is longer than `most_characters` is shown by its opening and the surroundings of the passage.
    """
    turns = asyncio.Semaphore(at_once)
    raised: list[Exception] = []

    async def one(passage: Passage) -> str | None:
        async with turns:
            if raised:
                return None
            shown = _shown(text, passage, most_characters)
            try:
                answer = await ask(f"<document>\n{shown}\n</document>", _QUESTION.format(passage=passage.text))
            except Exception as error:  # noqa: BLE001 — it is handed on, after what others have said
                raised.append(error)
                return None
        return " ".join(answer.split())[:_LONGEST_CONTEXT]

    said = await asyncio.gather(*map(one, passages))
    return said, raised[0] if raised else None


def shortened(context: str, most_tokens: int) -> str:
    ends = Estimate().ends(context)
    return context if len(ends) <= most_tokens else context[: ends[most_tokens - 1]]


def _shown(text: str, chunk: Passage, most: int) -> str:
    """The same for all passages of a short document, so that a provider's cache of prompts holds it."""
    if len(text) <= most:
        return text
    head = min(_HEAD, most // 4)
    around = (most - head - len(chunk.text)) // 2
    begin, end = max(head, chunk.start - around), min(len(text), chunk.end + around)
    return f"{text[:head]}\n[…]\n{text[begin:end]}" if begin > head else text[:end]
