"""Some hits by meaning are asked again, in the background, and both answers compared: what the cache's precision is measured by.

The second answer is nobody's: it is a call like a shadow's, which no client pays for. Few run at a time; what does not fit is left out.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, final

import msgspec
import structlog

from gateway import errors
from gateway.cache import words
from gateway.cache.entry import Words
from gateway.cache.facts import facts
from gateway.cache.meanings import Match, Meanings
from gateway.cache.policy import Semantic
from gateway.call import Call
from gateway.drive import driven
from gateway.endpoint import CHAT, Endpoint
from gateway.planner import regions_of
from gateway.shadow import Copy, Original, Serve

log = structlog.stdlib.get_logger(__name__)

MAX_RUNNING: Final = 4
ALIKE: Final = 0.75  # cosine of two answers that say the same, by the embedded model
FEW_NUMBERS: Final = 6
MAX_TEXT: Final = 4000

Judge = Callable[[str, str, str], Awaitable[bool | None]]
"""Of a question, the answer that was given and a fresh one: whether the first answers the question as well. None: it cannot be told."""

_QUESTION: Final = (
    "Two answers were given to the question below. Reply with the one word YES if the first answer tells the user the same as the second, "
    "or is as right an answer to exactly this question; else reply NO.\n\nQuestion:\n{}\n\nFirst answer:\n{}\n\nSecond answer:\n{}"
)


@final
class Audit:
    """`serve` answers a request as if a client had sent it; `random` gives floats in [0, 1). `judge` is for whoever has a better one."""

    def __init__(
        self,
        *,
        meanings: Meanings,
        serve: Serve,
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
        random: Callable[[], float],
        now: Callable[[], float],
        judge: Judge | None = None,
    ) -> None:
        self._meanings = meanings
        self._serve = serve
        self._spawn = spawn
        self._random = random
        self._now = now
        self._judge = judge
        self._running = 0

    def offer(self, call: Call, policy: Semantic, match: Match) -> None:
        """A hit that was given."""
        if self._running >= MAX_RUNNING or self._random() >= policy.recheck:
            return
        self._running += 1
        front = call.endpoint.front
        body = _plain(call.body if front is None else front.anonymous(call.body))
        original = Original(call.record.id, regions_of(call))
        self._spawn(self._check(call.endpoint, call.model.name, body, original, policy, match))

    async def _check(
        self, endpoint: Endpoint, model: str, body: bytes, original: Original, policy: Semantic, match: Match
    ) -> None:
        try:
            content = await self._ask(endpoint, body, original)
            kept = None if content is None else words.kept(endpoint.name, content, None, stream=False)
            if kept is None:
                return
            entry = match.entry
            given = _text(entry.words, entry.content, entry.report, stream=entry.stream)
            fresh = _text(kept.words, kept.content, kept.report, stream=False)
            right = await self._told(match.question.text, given, fresh, original, policy)
            if right is not None:
                self._meanings.precision(model, policy).judge(match.similarity, right=right)
                log.info("cache.judged", model=model, right=right, similarity=round(match.similarity, 4))
        except errors.GatewayError:  # told to the record already
            pass
        except Exception:  # a task's border: nobody else waits for it
            log.exception("cache.audit_failed")
        finally:
            self._running -= 1

    async def _told(self, question: str, given: str, fresh: str, original: Original, policy: Semantic) -> bool | None:
        if given.split() == fresh.split():
            return True
        if self._judge is not None:
            return await self._judge(question, given, fresh)
        if policy.judge is not None:
            return await self._by_model(policy.judge, question, given, fresh, original)
        similarity = await self._meanings.similarity(given[:MAX_TEXT], fresh[:MAX_TEXT])
        return None if similarity is None else similarity >= ALIKE and _same_numbers(given[:MAX_TEXT], fresh[:MAX_TEXT])

    async def _by_model(self, model: str, question: str, given: str, fresh: str, original: Original) -> bool | None:
        asked = _QUESTION.format(question, given[:MAX_TEXT], fresh[:MAX_TEXT])
        body = msgspec.json.encode(
            {"model": model, "messages": [{"role": "user", "content": asked}], "temperature": 0, "max_tokens": 5}
        )
        content = await self._ask(CHAT, body, original)
        kept = None if content is None else words.Kept("chat", content)
        said = "" if kept is None else _text(kept.words, kept.content, b"", stream=False).strip().upper()
        return True if said.startswith("YES") else False if said.startswith("NO") else None

    async def _ask(self, endpoint: Endpoint, body: bytes, original: Original) -> bytes | None:
        """The whole answer, or None for an error."""
        copy = Again(body, self._now())
        await driven(self._serve(endpoint, copy, original))
        return copy.answer


@final
class Again(Copy):
    """A copy whose answer is looked at here."""

    def __init__(self, body: bytes, started_at: float) -> None:
        super().__init__(body, started_at)
        self.answer: bytes | None = None

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        super().respond(status, head, body)
        if status == 200:
            self.answer = body


def _plain(body: bytes) -> bytes:
    """The request without whose it is, for one answer in one piece."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in ("user", "stream", "stream_options"):
        fields.pop(name, None)
    return msgspec.json.encode(fields)


def _text(kind: Words, content: bytes, report: bytes, *, stream: bool) -> str:
    return "\n".join(words.texts(kind, content, report, stream=stream))


def _same_numbers(one: str, other: str) -> bool:
    """Whether the fewer numbers of the two are all in the other; long texts have numbers by the way."""
    fewer, more = sorted((set(facts(one).numbers), set(facts(other).numbers)), key=len)
    return len(fewer) > FEW_NUMBERS or fewer <= more
