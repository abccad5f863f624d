"""`/v1/messages/count_tokens`: asked of the provider where it speaks the client's API, counted here everywhere else. Nobody pays for it.

It is a call like any other up to here: a key, a model that the key may use, and one request of the key's limits.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, final

import msgspec

from gateway import errors
from gateway.call import Call
from gateway.catalog import Deployment, Model
from gateway.dispatch import Dispatch
from gateway.fronts.messages_count import count
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.pricing import fixed_price
from gateway.targets import header_value
from gateway.token_count import TokenCounter
from gateway.used import NOTHING

FREE: Final = fixed_price(0)


@final
class Counting:
    """The stage that answers, in place of `Dispatch` alone. `now` is a monotonic clock."""

    def __init__(self, dispatch: Dispatch, meter: Meter, counter: TokenCounter, now: Callable[[], float]) -> None:
        self._dispatch = dispatch
        self._meter = meter
        self._counter = counter
        self._now = now
        self._free: dict[str, tuple[Model, Model]] = {}  # by name: as configured, and where calls cost nothing

    async def answer(self, call: Call) -> None:
        """Raises what stands before any answer: limits, and a request that the provider refuses."""
        free = self._native(call)
        if free.deployments:
            model, overrides = call.model, call.overrides
            call.model = free
            call.overrides = msgspec.structs.replace(overrides, fallbacks=None)
            try:
                await self._dispatch.answer(call)
            except (errors.UpstreamError, errors.UpstreamTimeout, errors.Overloaded):
                call.model = model
            except errors.UpstreamRefused as refused:
                if refused.status != 404:  # a proxy that does not count
                    raise
                call.model = model
            else:
                return
        await self._count(call)

    async def _count(self, call: Call) -> None:
        record = call.record
        if record.ticket is None:
            await self._meter.open(call.snapshot.rules, record, Offer(FREE, Need(0, 0, 0)))
        record.sent = True  # it is over, and counts as one request
        record.usage, record.usage_source = NOTHING, "counted"
        target = call.model.deployments[0].target.replace("*", call.match) if call.model.deployments else ""
        counting = partial(count, call.body, lambda texts: self._counter.counted(texts, target))
        tokens, method = await self._counter.soon(counting, len(call.body), target)
        record.status = 200
        record.finished_at = self._now()
        head = (
            b"content-type: application/json\r\nx-request-id: %b\r\nx-penstock-model: %b\r\nx-penstock-counted: %b\r\n"
        )
        call.exchange.respond(
            200,
            head % (record.id.encode(), header_value(record.model or ""), method.encode()),
            msgspec.json.encode({"input_tokens": tokens}),
        )

    def _native(self, call: Call) -> Model:
        """The model with nothing but what counts itself, at no price, and with nobody to stand in."""
        model, front = call.model, call.endpoint.front
        known = self._free.get(model.name)
        if known is not None and known[0] is model:
            return known[1]
        natives = (
            () if front is None else tuple(_unpaid(one) for one in model.deployments if one.provider in front.native)
        )
        free = msgspec.structs.replace(
            model, deployments=natives, fallbacks=(), context_fallbacks=(), content_fallbacks=(), hedge=None
        )
        self._free[model.name] = model, free
        return free


def _unpaid(deployment: Deployment) -> Deployment:
    """Neither money nor tokens are set aside for a count. Health and limits are its own, as they are at Anthropic: a proxy that cannot
    count can answer all the same.
    """
    id_ = f"{deployment.id}/count_tokens"
    return msgspec.structs.replace(
        deployment, id=id_, price=FREE, max_input_tokens=0, max_output_tokens=None, limits=None
    )
