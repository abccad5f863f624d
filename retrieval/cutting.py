"""One document on its way to passages in one edition: read and cut, told about by a model, embedded; whose work that is, others know.

What a model says of passages is written down as it comes, as passages that are being prepared.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite, sqrt
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from retrieval import embedding_store, passage_store
from retrieval.access import PLAIN, Account, Caller
from retrieval.changes import Fresh
from retrieval.chunking.context import contexts, shortened
from retrieval.chunking.semantic import Progress
from retrieval.chunking_strategy import CONTEXT_TOKENS, Chunking, context_tokens
from retrieval.database import Database
from retrieval.document_store import Document
from retrieval.errors import Refused, Unavailable
from retrieval.passage_store import New
from retrieval.ports import Embedder, Meaning, Reader, Reading, Sources, Unreadable, Writer
from retrieval.spaces import Space

EMBEDDED_AT_ONCE: Final = 64  # texts of one call
UNIT_WITHIN: Final = 1e-6  # what 32 bits leave over of a length of 1, squared
MAX_PASSAGES: Final = 200_000
SITUATED_AT_ONCE: Final = 16  # passages of whose contexts are written down together
BEGUN: Final = 64  # documents of which is known how far they are, without passages
ANEW: Final = Account(tags=("reembedding",))  # how vectors of the version are booked that is not read

_REASONING: Final = f"One that reasons has used up the {CONTEXT_TOKENS} tokens of its answer: choose another"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Failure(Exception):
    """The document cannot be had: for its own fault, or for one that stays. `code` as OpenAI's `last_error` has it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Cut(msgspec.Struct, frozen=True):
    """A document, to be cut in this way for one version of a collection's vectors, on the account of a key.

    `held` locks the collection in a transaction, and raises LeaseLost where the work is somebody else's by now.
    """

    document: Document
    chunking: Chunking
    space: Space
    payer: str
    held: Callable[[Connection], object]
    account: Account | None = None


@final
class Cutter:
    """One per process."""

    def __init__(
        self, database: Database, sources: Sources, reader: Reader, embedder: Embedder, writer: Writer | None = None
    ) -> None:
        self._database = database
        self._sources = sources
        self._reader = reader
        self._embedder = embedder
        self._writer = writer
        self._begun: dict[tuple[object, ...], Progress] = {}  # the last one is the newest

    async def read(self, cut: Cut) -> tuple[Reading, str]:
        """The document as passages, and a fingerprint of its file. Raises Failure, RetrievalError, OSError."""
        document = cut.document
        source = await asyncio.to_thread(self._sources.open, document.source_id)
        if source is None:
            raise Failure("invalid_file", "The file is not there any more")
        try:
            fingerprint = await asyncio.to_thread(_fingerprint, source.path)
            meaning = self._meaning(cut, fingerprint)
            reading = await self._reader.read(source.path, document.filename, cut.chunking, meaning)
        except FileNotFoundError:
            raise Failure("invalid_file", "The content of the file is gone from the server's folder") from None
        except Unreadable as error:
            raise Failure(error.code, error.message) from None
        if len(reading.chunks) > MAX_PASSAGES:
            raise Failure("invalid_file", f"The file has more than {MAX_PASSAGES:,} passages: split it")
        return storable(reading), fingerprint

    def _meaning(self, cut: Cut, fingerprint: str) -> Meaning:
        into = cut.space
        place = cut.document.id, fingerprint, cut.chunking, into.model, into.cut, into.prompts
        progress = self._begun[place] = self._begun.pop(place, Progress())
        if len(self._begun) > BEGUN:
            del self._begun[next(iter(self._begun))]

        async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            return list(await passages_in(self._embedder, texts, into, cut.payer, cut.account))

        return Meaning(embed, progress)

    async def situated(self, cut: Cut, text: str, some: Sequence[Fresh]) -> Sequence[Fresh]:
        """With what a model says of each one's place in the document, if one is to, on the account of who pays.

        It is written down as it comes: whoever goes on asks for none of it again, whatever became of the vectors.
        Raises Failure, RetrievalError, LeaseLost.
        """
        model = cut.chunking.context_model
        if model is None:
            return some
        hashes, document_id = {each.hash for each in some}, cut.document.id
        known = dict(
            await asyncio.to_thread(self._database.read, lambda tx: passage_store.said(tx, document_id, hashes))
        )
        unknown = {each.hash: each for each in some if each.hash not in known}  # what is there twice is asked for once
        asked = list(unknown.values())
        for start in range(0, len(asked), SITUATED_AT_ONCE):
            told = await self._told(cut, text, asked[start : start + SITUATED_AT_ONCE], model)
            known |= {each.hash: each.context for each in told}
        return [msgspec.structs.replace(each, context=known[each.hash]) for each in some]

    async def _told(self, cut: Cut, text: str, some: Sequence[Fresh], model: str) -> Sequence[Fresh]:
        if self._writer is None:
            raise Unavailable("No chat model is to be had here, and passages are to have a context by one")
        writer, payer = self._writer, Caller(cut.payer, account=cut.account or PLAIN)
        most = context_tokens(self._embedder.window(cut.space.model))

        async def ask(document: str, question: str) -> str:
            return await writer.write(document, question, model, payer, CONTEXT_TOKENS, aside=True)

        said, refusal = await contexts(text, [each.chunk for each in some], ask)
        pairs = ((each, answer) for each, answer in zip(some, said, strict=True) if answer is not None)
        told = [msgspec.structs.replace(each, context=shortened(_clean(answer), most)) for each, answer in pairs]
        if told:
            await asyncio.to_thread(self._database.write, partial(_said, cut=cut, told=told))
        if refusal is not None:
            raise refusal
        if not any(each.context for each in told):
            raise Failure("server_error", f"The model '{model}' said nothing about {len(told)} passages. {_REASONING}")
        return told

    async def embedded(self, cut: Cut, some: Sequence[Fresh]) -> NDArray[np.float32]:
        """Each of length 1. Raises Refused."""
        texts = [embedding_store.embedded(each.chunk.heading, each.context, each.chunk.text) for each in some]
        return await passages_in(self._embedder, texts, cut.space, cut.payer, cut.account)


def _said(tx: Connection, cut: Cut, told: Sequence[Fresh]) -> None:
    """Without vectors, for `passage_store.said`."""
    cut.held(tx)
    new = [New(each.ordinal, each.hash, each.chunk, embedding_store.NOTHING, each.context) for each in told]
    passage_store.prepare(tx, cut.document.collection_id, cut.document.id, new, edition=cut.space.edition)


def storable(reading: Reading) -> Reading:
    """Without what no database takes as text, and with every character where it was."""
    if _clean(reading.text) is reading.text:
        return reading
    chunks = [msgspec.structs.replace(each, text=_clean(each.text)) for each in reading.chunks]
    return Reading(_clean(reading.text), chunks)


def _clean(text: str) -> str:
    cleaned = text.replace("\0", "\ufffd")
    if cleaned.isascii():
        return text if cleaned == text else cleaned
    cleaned = _SURROGATES.sub("\ufffd", cleaned)
    return text if cleaned == text else cleaned


async def passages_in(
    embedder: Embedder, texts: Sequence[str], into: Space, payer: str, account: Account | None = None
) -> NDArray[np.float32]:
    """As that version of a store's vectors has passages, each of length 1; nobody waits for them. Raises Refused."""
    made = await embedder.embed(
        texts,
        into.model,
        payer,
        aside=True,
        account=account,
        dimensions=into.cut,
        role="passage",
        prompts=into.prompts,
    )
    return normalised(made, len(texts))


def normalised(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Each of length 1. Raises Refused for what is no set of vectors."""
    if vectors.ndim == 2 and len(vectors) == count == 1:  # a search's: a tenth of the time
        square = float(vectors[0].dot(vectors[0]))
        if abs(square - 1) < UNIT_WITHIN and vectors.dtype == np.float32:
            return vectors
        if isfinite(square) and square > 0:
            one: NDArray[np.float32] = (vectors / np.float32(sqrt(square))).astype("<f4", copy=False)
            return one
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise Refused(
            502, "The embedding model answered with something that is no vector for each text", "upstream_error", None
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype("<f4")
    return unit


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
