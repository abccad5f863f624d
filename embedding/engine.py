"""The path from texts to vectors: admit, open the model on first use, tokenise, wait for a turn, run, gather.

Everything that waits is known to the event loop and everything that works is in two threads: one tokenises, one owns the
model. So there are no locks, and a cancelled request takes its waiting sequences with it. Importing this module brings
in neither NumPy nor a runtime: a server that nobody asks for embeddings does not pay for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog

from embedding.batching import Queue, Slot, Ticket
from embedding.cache import Vector
from embedding.errors import (
    Closed,
    DimensionsUnsupported,
    EmbeddingError,
    InferenceFailed,
    InvalidInput,
    Overloaded,
    RequestTooLarge,
    Unavailable,
)
from embedding.ports import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedding.cache import ModelVectors
    from embedding.model import Model
    from embedding.tokens import Encoded, Truncation

    Read = TypeVar("Read", Encoded, Encoded | Vector)

log = structlog.get_logger(__name__)

State = Literal["cold", "opening", "ready", "closed"]

_SLICE_CHARACTERS = 65_536  # tokenised at a time (about 15 ms), so that small requests get in between


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is held and on how long one wait can be. `queued_tokens` is 1 to 2 minutes of work on two cores."""

    requests: int = 1024
    characters: int = 64_000_000
    tokens_per_request: int = 300_000  # as OpenAI's API
    queued_tokens: int = 600_000
    batch_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors` is float32 `[texts, dimensions]` in the order of the texts; `truncated` counts the texts that were cut."""

    vectors: NDArray[np.float32]
    prompt_tokens: int
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What is going on now (`state` to `queued_tokens`), and what was done since the start."""

    state: State
    requests: int
    queued_tokens: int
    batches: int
    sequences: int
    tokens: int


class _Reply:
    """The rows of one request while they arrive."""

    __slots__ = ("_missing", "done", "rows")

    def __init__(self, count: int, done: asyncio.Future[list[NDArray[np.float32]]]) -> None:
        self.rows: list[NDArray[np.float32] | None] = [None] * count
        self.done = done
        self._missing = count

    def put(self, position: int, row: NDArray[np.float32]) -> None:
        self.rows[position] = row
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result([row for row in self.rows if row is not None])

    def fail(self, error: EmbeddingError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Engine:
    """One model. Belongs to one event loop; `close` it there. `known`: what it has embedded before."""

    def __init__(
        self,
        spec: ModelSpec,
        open_model: Callable[[], Model],
        *,
        limits: Limits | None = None,
        known: ModelVectors | None = None,
    ) -> None:
        self.spec = spec
        self._known = known
        self._open_model = open_model
        self._limits = limits or Limits()
        self._queue = Queue(batch_tokens=self._limits.batch_tokens, max_tokens=self._limits.queued_tokens)
        self._replies: dict[Ticket, _Reply] = {}
        self._model: Model | None = None
        self._opening: asyncio.Future[Model] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._tokenising = ThreadPoolExecutor(1, thread_name_prefix="embedding-tokens")
        self._running = ThreadPoolExecutor(1, thread_name_prefix="embedding-model")
        self._requests = self._characters = 0
        self._batches = self._sequences = self._tokens = 0

    async def embed(
        self,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        truncation: Truncation = "truncate",
        tenant: str | None = None,
    ) -> Embedded:
        """The path. Raises `EmbeddingError`; when cancelled, what has not been run yet is not run.

        `tenant`: whose earlier vectors may be given again, and who finds these later. None: nobody's, and nobody.
        """
        size = self._size(dimensions)
        with self._admitted(texts):
            if self._known is not None and tenant is not None:
                return await self._recalled(self._known, tenant, texts, size, truncation)
            model = await self._opened()
            encoded = await self._encode(partial(model.tokenise, truncation=truncation), texts)
            rows = await self._turn(model, encoded)
            from embedding.rows import gather  # noqa: PLC0415 — NumPy, which came with the model

            return Embedded(
                gather(rows, size),
                prompt_tokens=sum(one.tokens for one in encoded),
                truncated=sum(one.truncated for one in encoded),
            )

    async def warm(self) -> None:
        """Opens the model now instead of with the first request."""
        await self._opened()

    async def close(self) -> None:
        """Refuses what waits, lets the batch in service finish, gives the model back. May be called twice."""
        self._closed = True
        for ticket, reply in self._replies.items():
            self._queue.discard(ticket)
            reply.fail(Closed("The server is shutting down."))
        if self._pump is not None:
            await self._pump
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await asyncio.to_thread(self._release)

    @property
    def status(self) -> Status:
        if self._closed:
            state: State = "closed"
        elif self._model is not None:
            state = "ready"
        else:
            state = "cold" if self._opening is None else "opening"
        return Status(state, self._requests, self._queue.tokens, self._batches, self._sequences, self._tokens)

    def _size(self, dimensions: int | None) -> int:
        native = self.spec.dimensions
        if dimensions is None or dimensions == native:
            return native
        if not self.spec.matryoshka:
            raise DimensionsUnsupported(
                f"{self.spec.name} gives {native} dimensions and was not trained to be cut. Leave `dimensions` out.",
                param="dimensions",
            )
        if not 0 < dimensions < native:
            raise DimensionsUnsupported(f"`dimensions` must be between 1 and {native}.", param="dimensions")
        return dimensions

    @contextmanager
    def _admitted(self, texts: Sequence[str]) -> Iterator[None]:
        """Counts the request in before any work is done for it, and out whatever happens."""
        if isinstance(texts, str) or not texts:
            raise InvalidInput("Give a list with at least one text.", param="input")
        characters = sum(map(len, texts))
        limits = self._limits
        if self._requests >= limits.requests or self._characters + characters > limits.characters:
            raise Overloaded(f"{self._requests} embedding requests are waiting. Try again shortly.")
        self._requests += 1
        self._characters += characters
        try:
            yield
        finally:
            self._requests -= 1
            self._characters -= characters

    async def _opened(self) -> Model:
        """The model, opened once however many ask. A failed attempt is forgotten, so that the next request tries again."""
        if self._closed:
            raise Closed("The server is shutting down.")
        if self._model is not None:
            return self._model
        if self._opening is None:
            loop = asyncio.get_running_loop()
            self._opening = loop.run_in_executor(self._running, self._open_model)
            self._opening.add_done_callback(self._on_opened)
        try:
            return await asyncio.shield(self._opening)
        except EmbeddingError as error:
            raise type(error)(error.message, param=error.param, code=error.code) from error
        except Exception as error:  # whatever a runtime raises for a model that it cannot load
            raise Unavailable(f"The model {self.spec.name} cannot be opened: {error}") from error

    def _on_opened(self, opening: asyncio.Future[Model]) -> None:
        self._opening = None
        error = opening.exception()
        if error is None:
            self._model = opening.result()
            log.info("embedding.ready", model=self.spec.name)
        else:
            log.error("embedding.unavailable", model=self.spec.name, error=str(error))

    async def _recalled(
        self, known: ModelVectors, tenant: str, texts: Sequence[str], size: int, truncation: Truncation
    ) -> Embedded:
        """The path around what is known: only what is new is run, and each of it once."""
        if self._closed:
            raise Closed("The server is shutting down.")
        keys = known.keys(tenant, texts, truncation)
        found = known.near(keys)
        missing = {text: key for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            await self._learn(known, missing, found, truncation)
        vectors = [found[key] for key in keys]
        tokens = sum(vector.tokens for vector in vectors)
        self._bounded(tokens)
        from embedding.rows import unpacked  # noqa: PLC0415 — NumPy, which came with the first vector

        return Embedded(unpacked(vectors, size), tokens, sum(vector.truncated for vector in vectors))

    async def _learn(
        self, known: ModelVectors, missing: dict[str, bytes], found: dict[bytes, Vector], truncation: Truncation
    ) -> None:
        """Adds to `found` what is `missing`, from the store or by the model, which is not opened where all is in the store."""
        look = self._model is not None
        if not look:
            loop = asyncio.get_running_loop()
            found |= known.keep(await loop.run_in_executor(self._tokenising, _looked_up, known, list(missing.values())))
            missing = {text: key for text, key in missing.items() if key not in found}
            if not missing:
                return
        model = await self._opened()
        tokenise = partial(model.tokenise, truncation=truncation)
        read: Callable[[list[str]], Sequence[Encoded | Vector]] = tokenise
        if look:
            read = partial(_look_or_tokenise, known, missing, tokenise)
        parts = await self._encode(read, list(missing), sum(vector.tokens for vector in found.values()))
        encoded: dict[bytes, Encoded] = {}
        stored: dict[bytes, Vector] = {}
        for key, one in zip(missing.values(), parts, strict=True):
            if isinstance(one, Vector):
                stored[key] = one
            else:
                encoded[key] = one
        found |= known.keep(stored)
        if encoded:
            rows = await self._turn(model, list(encoded.values()))
            found |= known.add(
                {
                    key: Vector(row.tobytes(), one.tokens, one.truncated)
                    for (key, one), row in zip(encoded.items(), rows, strict=True)
                }
            )

    async def _encode(
        self, read: Callable[[list[str]], Sequence[Read]], texts: Sequence[str], tokens: int = 0
    ) -> list[Read]:
        """`read` of the texts, in its thread; `tokens` were counted before."""
        loop = asyncio.get_running_loop()
        encoded: list[Read] = []
        for some in _slices(texts):
            if self._closed:
                raise Closed("The server is shutting down.")
            part = await loop.run_in_executor(self._tokenising, read, some)
            encoded += part
            tokens += sum(one.tokens for one in part)
            self._bounded(tokens)
        return encoded

    def _bounded(self, tokens: int) -> None:
        if tokens > self._limits.tokens_per_request:
            raise RequestTooLarge(
                f"The inputs have more than {self._limits.tokens_per_request} tokens, the maximum per request. "
                "Send them in several requests.",
                param="input",
            )

    async def _turn(self, model: Model, encoded: list[Encoded]) -> list[NDArray[np.float32]]:
        """Waits in the queue until every sequence was run."""
        if self._closed:
            raise Closed("The server is shutting down.")
        loop = asyncio.get_running_loop()
        ticket = self._queue.add([one.ids for one in encoded])
        reply = self._replies[ticket] = _Reply(len(encoded), loop.create_future())
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._serve(model), name="embedding")
        try:
            return await reply.done
        finally:
            self._queue.discard(ticket)
            del self._replies[ticket]

    async def _serve(self, model: Model) -> None:
        """Runs batches until nothing waits. Not one request's own task: the others in its batch must not die with it."""
        loop = asyncio.get_running_loop()
        while batch := self._queue.take():
            sequences = [slot.ticket.sequences[slot.position] for slot in batch]
            try:
                vectors = await loop.run_in_executor(self._running, model.run, sequences)
            except Exception:  # a task border: those in the batch are told, the next batch is tried
                log.exception("embedding.failed", model=self.spec.name, sequences=len(sequences))
                self._fail(batch)
                continue
            self._batches += 1
            self._sequences += len(batch)
            self._tokens += sum(map(len, sequences))
            for slot, vector in zip(batch, vectors, strict=True):
                reply = self._replies.get(slot.ticket)
                if reply is not None:
                    reply.put(slot.position, vector)

    def _fail(self, batch: list[Slot]) -> None:
        for ticket in {slot.ticket for slot in batch}:
            self._queue.discard(ticket)
            if ticket in self._replies:
                self._replies[ticket].fail(InferenceFailed(f"The model {self.spec.name} failed on this input."))

    def _release(self) -> None:
        self._tokenising.shutdown()
        self._running.shutdown()
        if self._model is not None:
            self._model.close()
            self._model = None


def _looked_up(known: ModelVectors, keys: Sequence[bytes]) -> dict[bytes, Vector]:
    """In a thread, which NumPy's import belongs into as well."""
    import embedding.rows  # noqa: F401, PLC0415 — as said above

    return known.far(keys)


def _look_or_tokenise(
    known: ModelVectors, keys: dict[str, bytes], tokenise: Callable[[list[str]], list[Encoded]], texts: list[str]
) -> list[Encoded | Vector]:
    """In one visit to the thread, since a visit takes longer than a look."""
    stored = known.far([keys[text] for text in texts])
    if not stored:
        return [*tokenise(texts)]
    encoded = iter(tokenise([text for text in texts if keys[text] not in stored]))
    return [stored.get(keys[text]) or next(encoded) for text in texts]


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in pieces that are quick to tokenise; a text beyond the measure stands alone."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and characters + len(text) > _SLICE_CHARACTERS:
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some
