"""Answers to the same question in other words, within one partition: near as a vector, and then nothing that speaks against it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, final

import msgspec
import numpy as np
import structlog

from gateway.cache.entry import Entry
from gateway.cache.facts import agree, facts
from gateway.cache.index import Asked, Index, Partition
from gateway.cache.meaning import Question
from gateway.cache.policy import Semantic
from gateway.cache.ports import Store
from gateway.cache.precision import Precision

log = structlog.stdlib.get_logger(__name__)

EMBED_S: Final = 3.0  # no call waits longer for its own vector
AWAY_S: Final = 5.0  # how long nobody asks for one after that
Embed = Callable[[Sequence[str]], Awaitable[Any]]


class Log(Protocol):
    """Where processes tell each other what they have answered."""

    async def read(self, key: bytes, partition: Partition) -> None: ...

    async def write(self, key: bytes, asked: Asked, ttl_s: float) -> None: ...


class Meaning(msgspec.Struct, frozen=True):
    """A question with its vector, of length 1."""

    question: Question
    vector: Any


class Match(msgspec.Struct, frozen=True):
    """The answer to a question that was near enough."""

    entry: Entry
    similarity: float
    question: Question


@final
class Meanings:
    """`embed` gives a vector for each text, as rows; `spawn` runs what was not written for a driven coroutine."""

    def __init__(
        self,
        *,
        store: Store,
        log: Log | None,
        embed: Embed,
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
        unix: Callable[[], float],
    ) -> None:
        self._store = store
        self._log = log
        self._embed = embed
        self._spawn = spawn
        self._unix = unix
        self._index = Index()
        self._away_until = 0.0
        self._broken = False
        self.precisions: dict[str, Precision] = {}  # by model

    async def warm(self) -> None:
        """Opens the model before the first question, which would not wait for it. Runs in a task."""
        try:
            await self._embed(["warm"])
        except Exception as error:  # noqa: BLE001 — whatever an engine throws: the first question tells
            log.warning("cache.no_vectors", reason=f"{type(error).__name__}: {error}")

    async def of(self, question: Question) -> Meaning | None:
        """None where no vector is to be had."""
        if self._unix() < self._away_until:
            return None
        vector = await self._spawn(self._vector(question.text))
        return None if vector is None else Meaning(question, vector)

    async def find(
        self, meaning: Meaning, model: str, policy: Semantic, fresh: Callable[[Entry], bool]
    ) -> Match | None:
        """The answer to the nearest question that asks the same, if there is one that is `fresh`."""
        key = meaning.question.partition
        partition = self._index.of(key)
        if self._log is not None:
            await self._spawn(self._log.read(key, partition))
        threshold = self.precision(model, policy).threshold
        own = facts(meaning.question.text)
        for near in partition.nearest(meaning.vector, threshold, self._unix()):
            if not agree(own, near.facts):
                continue
            entry = await self._entry(near.asked.key)
            if entry is None:
                partition.drop(near.asked.key)
            elif fresh(entry):
                return Match(entry, near.similarity, meaning.question)
        return None

    def put(self, meaning: Meaning, entry: Entry, ttl_s: float) -> None:
        """A question whose answer was just kept."""
        until = min(entry.expires_at, self._unix() + ttl_s)
        asked = Asked(entry.key, until, meaning.question.text, meaning.vector)
        self._index.of(meaning.question.partition).add(asked)
        self._index.trim()
        if self._log is not None:
            self._spawn(self._log.write(meaning.question.partition, asked, ttl_s))

    def precision(self, model: str, policy: Semantic) -> Precision:
        found = self.precisions.get(model)
        if found is None:
            found = self.precisions[model] = Precision(policy.threshold, policy.precision)
        found.configure(policy.threshold, policy.precision)
        return found

    async def similarity(self, one: str, other: str) -> float | None:
        """Of two texts; None where it cannot be told. Runs in a task."""
        vectors = [await self._vector(text) for text in (one, other)]
        return None if vectors[0] is None or vectors[1] is None else float(vectors[0] @ vectors[1])

    async def _entry(self, key: bytes) -> Entry | None:
        entry = self._store.near(key)
        if entry is None:
            waiting = self._store.far(key)
            entry = None if waiting is None else await waiting
        return entry

    async def _vector(self, text: str) -> Any:
        try:
            async with asyncio.timeout(EMBED_S):
                (vector,) = await self._embed([text])
        except Exception as error:  # noqa: BLE001 — whatever an engine throws, the call goes on without
            if not self._broken:
                log.warning("cache.no_vectors", reason=f"{type(error).__name__}: {error}")
            self._broken = True
            self._away_until = self._unix() + AWAY_S
            return None
        self._broken = False
        length = float(np.linalg.norm(vector))
        return np.asarray(vector, np.float32) / length if length else None
