"""One attempt of a call at a model that runs in this process: no connection to wait for, otherwise an answer like any other."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, final

from gateway import usage, wire
from gateway.answer_head import answer_head
from gateway.call import Call
from gateway.catalog import Deployment


class Local(Protocol):
    """A model that runs in this process: an OpenAI request body in, an OpenAI answer out. Raises GatewayError."""

    async def answer(self, endpoint: str, body: bytes, model: str) -> bytes: ...


@final
class InProcess:
    """`models` by provider. `now` is a monotonic clock; `spawn` runs code in a task that was not written for a driven coroutine."""

    def __init__(
        self,
        models: Mapping[str, Local],
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, bytes]], Awaitable[bytes]],
    ) -> None:
        self.providers = models.keys()
        self._models = models
        self._now = now
        self._spawn = spawn

    async def run(self, call: Call, deployment: Deployment) -> None:
        """As `Relay.run`."""
        record = call.record
        record.sent = True
        began = self._now()
        local = self._models[deployment.provider]
        body = await self._spawn(local.answer(record.endpoint, call.body, call.request.model))
        record.upstream_s += self._now() - began
        reported = wire.read_answer(body).usage
        if reported is not None:
            record.usage, record.usage_source = usage.from_openai(reported), "provider"
        if call.race is not None:
            call.race.claim(call)
        record.status = 200
        record.finished_at = self._now()
        call.exchange.respond(200, answer_head(record, None, b"application/json"), body)
