"""One attempt of a call at a model that runs in this process: no connection to wait for, otherwise an answer like any other."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, final

from gateway import errors, usage, wire
from gateway.answer_head import answer_head
from gateway.answer_id import answer_id
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.dialect import Dialect, Stream
from gateway.endpoint import CHAT
from gateway.sse import ChatStream
from gateway.targets import Targets


class Local(Protocol):
    """A model that runs in this process: an OpenAI request body in, an OpenAI answer out. Raises GatewayError.

    `endpoint` is `chat`, `embeddings` or `rerank` (Jina's shape), `target` the deployment's name of the model. A body that asks for a
    stream gets all its events, with usage if it asks for that, up to `[DONE]`. `tenant` is whose call it is.
    """

    async def answer(self, endpoint: str, body: bytes, model: str, target: str, tenant: str) -> bytes: ...


@final
class InProcess:
    """`models` by provider. `now` is a monotonic clock; `spawn` runs code in a task that was not written for a driven coroutine."""

    def __init__(
        self,
        models: Mapping[str, Local],
        targets: Targets,
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, bytes]], Awaitable[bytes]],
    ) -> None:
        self.providers = models.keys()
        self._models = models
        self._targets = targets
        self._now = now
        self._spawn = spawn

    async def run(self, call: Call, deployment: Deployment) -> None:
        """As `Relay.run`. Other APIs of clients are translated to chat and back, as for any upstream that does not speak them."""
        record = call.record
        if record.first_token_at is not None:
            raise errors.UpstreamError(
                "A stream that broke cannot be continued by a model that writes no text of its own"
            )
        dialect = self._targets.translator(deployment, call.endpoint.path)
        body = (
            _asked(call) if dialect is None else dialect.request(call.endpoint.name, call.body, call.request.model).body
        )
        answer = await self.answer(call, deployment, record.endpoint if dialect is None else CHAT.name, body)
        if record.stream:
            self._stream(call, dialect, answer)
        else:
            self._respond(call, dialect, answer)

    async def answer(self, call: Call, deployment: Deployment, endpoint: str, body: bytes) -> bytes:
        """What the model says to a body that it is given as it is."""
        record = call.record
        record.sent = True
        began = self._now()
        local = self._models[deployment.provider]
        assert record.key is not None
        tenant = record.key.tenant
        answer = await self._spawn(local.answer(endpoint, body, call.request.model, deployment.target, tenant))
        record.upstream_s += self._now() - began
        return answer

    def _respond(self, call: Call, dialect: Dialect | None, answer: bytes) -> None:
        record = call.record
        if dialect is None:
            reported = wire.read_answer(answer).usage
            used = None if reported is None else usage.from_openai(reported)
        else:
            answer, used = dialect.answer(call.endpoint.name, answer, call.request.model, call.body)
        if used is not None:
            record.usage, record.usage_source = used, "provider"
        self._claim(call)
        record.finished_at = self._now()
        record.answer_id = record.answer_id or answer_id(answer)
        call.exchange.respond(200, answer_head(record, None, b"application/json"), answer)

    def _stream(self, call: Call, dialect: Dialect | None, answer: bytes) -> None:
        """The events of a whole answer, as the client's API has them."""
        record, exchange = call.record, call.exchange
        keep_usage = wire.wants_usage(call.request)
        stream: Stream
        if dialect is None:
            stream = ChatStream(keep_usage=keep_usage)
        else:
            stream = dialect.stream(call.endpoint.name, call.request.model, keep_usage=keep_usage, asked=call.body)
        events = stream.feed(answer) + stream.close()
        record.received = stream.events
        if stream.error is not None:
            raise stream.error
        if stream.reported is not None:
            record.usage, record.usage_source = stream.reported, "provider"
        self._claim(call)
        record.first_token_at = record.finished_at = self._now()
        record.answer_id = record.answer_id or answer_id(events)
        exchange.begin_events(200, answer_head(record, None, b"text/event-stream; charset=utf-8"))
        exchange.send(events)
        exchange.send(call.endpoint.done)
        exchange.end()

    def _claim(self, call: Call) -> None:
        if call.race is not None:
            call.race.claim(call)
        call.record.status = 200


def _asked(call: Call) -> bytes:
    """A stream is always asked for its usage, which the client sees if it asked as well."""
    return wire.rewrite(call.body, call.request.model, ask_usage=True) if call.record.stream else call.body
