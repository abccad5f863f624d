"""A second opinion before an answer is given again: a model that reranks reads both questions at once, which no vector of one can know.

It is any model behind this gateway that has `/v1/rerank`. Whatever goes wrong there, nothing is found and the call is asked. What it
costs is told under the key `cache`: a hit costs its client nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, final

import msgspec
import structlog

from gateway.cache import policy
from gateway.call import Call
from gateway.drive import driven
from gateway.guards.judges import Asking
from gateway.keys import Key
from gateway.planner import regions_of
from gateway.shadow import Original, Serve
from gateway.units.endpoints import ENDPOINTS

log = structlog.stdlib.get_logger(__name__)

KEY: Final = Key("cache", "cache")
_RERANK: Final = ENDPOINTS[b"/v1/rerank"]


class _Score(msgspec.Struct):
    index: int
    relevance_score: float


class _Reranking(msgspec.Struct):
    results: list[_Score]


class _Second(Original, frozen=True):
    @property
    def key(self) -> Key:
        return msgspec.structs.replace(KEY, regions=self.regions)


@final
class CrossEncoders:
    """`serve` answers a request as if a client had sent it; `spawn` runs a coroutine in a task."""

    def __init__(
        self,
        serve: Serve,
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
        now: Callable[[], float],
    ) -> None:
        self._serve = serve
        self._spawn = spawn
        self._now = now
        self._failing: set[str] = set()
        self.verdicts: Counter[tuple[str, str]] = (
            Counter()
        )  # by the metric's name of the model that was asked: for the metrics

    async def same(self, terms: policy.CrossEncoder, call: Call, question: str, known: Sequence[str]) -> int | None:
        """Which of `known` is most like the question, if it is enough. Within the time of the terms and of the call."""
        chosen, verdict = await self._spawn(self._verdict(terms, call, question, known))
        self.verdicts[call.record.metric_model, verdict] += 1
        index: int | None = chosen
        return index

    async def _verdict(
        self, terms: policy.CrossEncoder, call: Call, question: str, known: Sequence[str]
    ) -> tuple[int | None, str]:
        try:
            async with asyncio.timeout(min(terms.timeout_s, call.deadline - self._now())):
                scores = await self._scores(terms.model, call, question, known)
        except Exception as error:  # noqa: BLE001 — whatever goes wrong with it, the call is asked
            self._fails(terms.model, error)
            return None, "failed"
        self._failing.discard(terms.model)
        best = max(range(len(known)), key=scores.__getitem__)
        return (best, "same") if scores[best] >= terms.threshold else (None, "other")

    async def _scores(self, model: str, call: Call, question: str, known: Sequence[str]) -> Sequence[float]:
        """A number for each of `known`. It goes through no guard: the questions have."""
        fields = {"model": model, "query": question, "documents": known, "return_documents": False}
        asking = Asking(msgspec.json.encode(fields), self._now(), {b"x-penstock-tags": b"cache"})
        await driven(self._serve(_RERANK, asking, _Second(call.record.id, regions_of(call))))
        if asking.status != 200:
            raise ValueError(f"it answered {asking.status}")
        if asking.relieved:
            raise ValueError("a budget has another model answer")
        found = {one.index: one.relevance_score for one in msgspec.json.decode(asking.answer, type=_Reranking).results}
        if found.keys() != set(range(len(known))):
            raise ValueError(f"{len(found)} of {len(known)} questions have a score")
        return [found[at] for at in range(len(known))]

    def _fails(self, model: str, error: Exception) -> None:
        """Said once, until it works again."""
        if model not in self._failing:
            self._failing.add(model)
            log.warning("cache.cross_encoder_failed", model=model, reason=f"{type(error).__name__}: {error}")
