"""The stage that makes of a call of a router one of the model that is to answer it, before guards and caches see it.

It is there as long as any model is a router, and reads calls of no others. Whatever is wrong with a classifier, the call goes on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import structlog

from gateway import errors
from gateway.call import Call
from gateway.catalog import Model, Shadow
from gateway.completion import Answers
from gateway.grounding.prompt import fields_of, questions
from gateway.journal_records import Routed
from gateway.routers.policy import Router, chosen
from gateway.routing.asked import Asked

if TYPE_CHECKING:
    from gateway.guards.judges import Classify

log = structlog.stdlib.get_logger(__name__)

ENDPOINTS: Final = frozenset({"chat", "completions", "responses", "messages", "count_tokens"})
LONGEST: Final = 32_768  # characters of a question: the last ones of a longer one

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


@final
class Choosing:
    """`inner` answers the call. `shadow` is offered calls that were answered, with what was asked."""

    def __init__(
        self,
        inner: Answers,
        classify: "Classify",
        spawn: Spawn,
        shadow: Callable[[Shadow, Call, bytes], None],
    ) -> None:
        self.inner = inner
        self._classify = classify
        self._spawn = spawn
        self._shadow = shadow

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        router = call.model.router
        return self.inner.answer(call) if router is None else self._answer(call, router)

    def expect(self, classifiers: Iterable[str]) -> None:
        """Calls that need these are to come: they are loaded now, as that takes longer than a call waits for them."""
        for name in classifiers:
            self._spawn(self._load(name))

    async def _answer(self, call: Call, router: Router) -> None:
        if call.endpoint.name not in ENDPOINTS:
            raise errors.BadRequest(
                f"The model '{call.request.model}' is a router, which reads chats: {call.endpoint.place} needs one of its models",
                param="model",
                code="unsupported_endpoint",
            )
        model = await self._turn(call, router)
        body = call.body
        await self.inner.answer(call)
        if model.shadow is not None and (call.record.routed or Routed()).shadow_of is None:
            self._shadow(model.shadow, call, body)

    async def _turn(self, call: Call, router: Router) -> Model:
        """Makes it a call of the model that is to answer. Raises NotFound where not even the usual one is there."""
        record, wanted = call.record, call.request.model
        name, why = await self._decided(call, router)
        found = call.snapshot.catalog.find(name)
        if found is None or found[0].router is not None:
            name, why = router.otherwise, f"otherwise ({why}, but '{name}' is not there)"
            found = call.snapshot.catalog.find(name)
        if found is None or found[0].router is not None:
            raise errors.NotFound(f"The router '{wanted}' leads to '{name}', which does not exist", param="model")
        record.routed = msgspec.structs.replace(record.routed or Routed(), router=f"{call.model.name}: {why}")
        call.becomes(name, *found)
        call.deadline = record.started_at + found[0].timeouts.total_s
        if call.overrides.timeout_s is not None:
            call.deadline = min(call.deadline, record.started_at + call.overrides.timeout_s)
        return found[0]

    async def _decided(self, call: Call, router: Router) -> tuple[str, str]:
        """The name of a model, and why it is that one."""
        text, place = _read(call)
        if not text:
            return router.otherwise, "otherwise (there is no question)"
        name, why = await self._spawn(self._asked(router, text, call))
        return name, why + place

    async def _asked(self, router: Router, text: str, call: Call) -> tuple[str, str]:
        """In a task: the classifier's word, if it comes in time."""
        try:
            async with asyncio.timeout(router.timeout_s):
                [said] = await self._classify(router.classifier, [text[-LONGEST:]])
            return chosen(router, said)
        except TimeoutError:
            return router.otherwise, f"otherwise (nothing within {router.timeout_s:g} s)"
        except Exception as error:  # noqa: BLE001 — a task's border: no call fails because of its router
            reason = str(getattr(error, "message", error))[:200]
            log.warning("router.failed", router=call.model.name, classifier=router.classifier, reason=reason)
            return router.otherwise, f"otherwise ({type(error).__name__})"

    async def _load(self, classifier: str) -> None:
        try:
            await self._classify(classifier, ["hello"])
        except Exception as error:  # noqa: BLE001 — a task's border: whoever asks it next says what is wrong
            log.info("router.classifier_not_ready", classifier=classifier, reason=type(error).__name__)


def _read(call: Call) -> tuple[str, str]:
    """What the user said last, and with a session what was said first, which is the same in all of its calls; and which of them it is."""
    fields = fields_of(call.body) or {}
    said = questions(call.endpoint.name, fields)
    if len(said) > 1 and Asked(call.request, call.body, call.exchange.headers).session(call.model.affinity) is not None:
        return said[0], "; session"
    return (said[-1], "") if said else ("", "")
