"""A few words before each passage that say where in its document it stands, from a model (Anthropic, "Contextual Retrieval", 2024)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from retrieval.chunking.chunk import Chunk, Document

Ask = Callable[[str, str], Awaitable[str]]
"""A model: the part that is the same for all passages of a document (to be cached), the question about one of them."""

MOST_CHARACTERS: Final = 60_000  # of the document, about 15,000 tokens
_HEAD: Final = 8_000
_LONGEST_CONTEXT: Final = 1_000
_QUESTION: Final = (
    "<passage>\n{passage}\n</passage>\nSay in one or two sentences where this passage stands in the document and what it is about, "
    "with the names that it only implies, so that a search finds it. Answer with these sentences alone."
)


async def with_context(
    document: Document, chunks: Sequence[Chunk], ask: Ask, *, at_once: int = 4, most_characters: int = MOST_CHARACTERS
) -> tuple[Chunk, ...]:
    """The same passages, each with its context. At most `at_once` questions are open; what `ask` raises ends them all.

    A document that is longer than `most_characters` is shown by its opening and the surroundings of the passage.
    """
    turns = asyncio.Semaphore(at_once)

    async def one(chunk: Chunk) -> Chunk:
        shown = _shown(document.text, chunk, most_characters)
        async with turns:
            answer = await ask(f"<document>\n{shown}\n</document>", _QUESTION.format(passage=chunk.text))
        return msgspec.structs.replace(chunk, context=" ".join(answer.split())[:_LONGEST_CONTEXT])

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(chunk)) for chunk in chunks]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tuple(task.result() for task in tasks)


def _shown(text: str, chunk: Chunk, most: int) -> str:
    """The same for all passages of a short document, so that a provider's cache of prompts holds it."""
    if len(text) <= most:
        return text
    head = min(_HEAD, most // 4)
    around = (most - head - len(chunk.text)) // 2
    begin, end = max(head, chunk.start - around), min(len(text), chunk.end + around)
    return f"{text[:head]}\n[…]\n{text[begin:end]}" if begin > head else text[:end]
