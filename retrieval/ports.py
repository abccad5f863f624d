"""What this plane needs of others, as plain values and callables; `admin` has the adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:  # loaded with the first vector
    import numpy as np
    from numpy.typing import NDArray

    from retrieval.access import Account, Caller
    from retrieval.chunking.semantic import Progress
    from retrieval.chunking_strategy import Chunking


class Chunk(msgspec.Struct, frozen=True):
    """One passage to be: `start` and `end` are characters of the document's text, `heading` the path of headings that it stands under.

    `parent`: from where to where goes what is shown for it.
    """

    text: str
    start: int
    end: int
    page: int | None = None
    line: int | None = None
    heading: tuple[str, ...] = ()
    tokens: int = 0
    parent: tuple[int, int] | None = None


class Reading(msgspec.Struct, frozen=True):
    """A document as text, and that text cut into passages. No passages: there is nothing in it."""

    text: str
    chunks: Sequence[Chunk]


class Unreadable(Exception):
    """The document is at fault, and would be again. `code`: `invalid_file` or `unsupported_file`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Source(msgspec.Struct, frozen=True):
    """A file as somebody keeps it. `path` may be gone by the time that it is opened."""

    id: str
    filename: str
    bytes: int
    path: Path


class Meaning(msgspec.Struct, frozen=True):
    """For who cuts a document by what is meant: vectors of texts, in their order, and how far that is done."""

    embed: Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
    progress: Progress


class Reader(Protocol):
    """Makes text of files and cuts it."""

    async def read(self, path: Path, filename: str, chunking: Chunking, meaning: Meaning) -> Reading:
        """Raises Unreadable, OSError; RetrievalError where the server is at fault, and what `meaning.embed` raises."""

    async def close(self) -> None: ...


class Sources(Protocol):
    """Both block, for a thread."""

    def find(self, caller: Caller, ids: Sequence[str]) -> Mapping[str, Source]:
        """Those that are there for the caller."""

    def open(self, id_: str) -> Source | None:
        """Whoever's it is, for a document that was accepted."""


Role = Literal["query", "passage"]
"""Whether a text asks or may answer: many models embed the two differently."""


class Embedder(Protocol):
    """Makes vectors on the account of a key."""

    def prompts(self, model: str) -> str | None:
        """How the model is told the roles of texts now; it is kept with vectors, and given back with what they are compared with."""

    async def embed(
        self,
        texts: Sequence[str],
        model: str,
        payer: str,
        *,
        aside: bool,
        account: Account | None = None,
        dimensions: int | None = None,
        role: Role,
        prompts: str | None,
    ) -> NDArray[np.float32]:
        """`[texts, dimensions]`, in the order of the texts, of any length. `aside`: nobody waits for it. Raises Refused.

        `account`: what the call is booked under, where it is a part of another one. `dimensions`: so many, where the model can.
        """

    def window(self, model: str) -> int | None:
        """So many tokens of a text it reads, if that is known."""

    def require(self, model: str, payer: str) -> None:
        """Raises RetrievalError where the key may not use it, or there is no such model."""

    def default(self) -> str | None:
        """What embeds a collection that names no model."""


class Ranker(Protocol):
    """Scores passages with a model that reads the question with each of them, on the account of a key."""

    async def rank(
        self, query: str, texts: Sequence[str], priors: Sequence[float], model: str, payer: Caller
    ) -> Sequence[float]:
        """How well each text answers, in their order: more is better, and nothing else is said of the numbers. Raises Refused.

        `priors`: the scores of the search, for a model that knows how to weigh them.
        """

    def require(self, model: str, payer: str) -> None:
        """Raises BadRequest where there is no such model, Forbidden where the key may not use it."""

    def default(self) -> str | None:
        """What ranks where no model is named; None: nothing does."""


class Writer(Protocol):
    """Lets a chat model write, on the account of a key."""

    async def write(
        self, instruction: str, text: str, model: str, payer: Caller, max_tokens: int, *, aside: bool = False
    ) -> str:
        """`aside`: nobody waits for it. Raises Refused."""

    def require(self, model: str, payer: str) -> None:
        """Raises BadRequest where there is no such model, Forbidden where the key may not use it."""

    def default(self) -> str | None:
        """What writes where no model is named; None: nothing does."""
