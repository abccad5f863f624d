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
Same = Callable[[Sequence[str]], Awaitable[int | None]]
"""Of questions: which one asks the same as the one at hand, if any does."""


class Log(Protocol):
    """Where processes tell each other what they have answered."""

    async def read(self, key: bytes, partition: Partition, unix: float) -> bool: ...

    async def write(self, key: bytes, asked: Asked, ttl_s: float, most: int) -> None: ...


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
        self._index = Index(spawn)
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
        self,
        meaning: Meaning,
        model: str,
        policy: Semantic,
        fresh: Callable[[Entry], bool],
        same: Same | None = None,
    ) -> Match | None:
        """The answer to the nearest question that asks the same, if there is one that is `fresh`.

        With `same`, which is asked once about all that are left, the one that it finds most alike.
        """
        partition = await self._read(meaning.question.partition, policy.max_entries)
        threshold = self.precision(model, policy).threshold
        own = facts(meaning.question.text)
        left: list[tuple[str, Match]] = []
        for near in partition.nearest(meaning.vector, threshold, self._unix()):
            if not agree(own, near.facts):
                continue
            entry = await self._entry(near.key)
            if entry is None:
                partition.drop(near.key)
            elif fresh(entry):
                match = Match(entry, near.similarity, meaning.question)
                if same is None:
                    return match
                left.append((near.text, match))
        if same is None or not left:
            return None
        chosen = await same([text for text, _ in left])
        return None if chosen is None else left[chosen][1]

    def put(self, meaning: Meaning, entry: Entry, policy: Semantic) -> None:
        """A question whose answer was just kept."""
        key, ttl_s, most = meaning.question.partition, policy.ttl_s, policy.max_entries
        until = min(entry.expires_at, self._unix() + ttl_s)
        asked = Asked(entry.key, until, meaning.question.text, meaning.vector)
        partition = self._index.of(key, most)
        partition.add(asked, self._unix())
        self._index.trim()
        self._index.grow(partition)
        if self._log is not None:
            self._spawn(self._log.write(key, asked, ttl_s, most))

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

    async def _read(self, key: bytes, most: int) -> Partition:
        """With what other processes have put there; where that is much, with its beginning, and the rest while nobody waits."""
        partition = self._index.of(key, most)
        if self._log is not None and not partition.reading:
            more = await self._spawn(self._log.read(key, partition, self._unix()))
            if more and not partition.reading:
                partition.reading = True
                self._spawn(self._read_on(self._log, key, partition))
            self._index.grow(partition)
        return partition

    async def _read_on(self, log: Log, key: bytes, partition: Partition) -> None:
        try:
            while await log.read(key, partition, self._unix()):
                self._index.grow(partition)
        finally:
            partition.reading = False

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
