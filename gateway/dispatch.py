"""Tries a call at one deployment after another, at one model after another, until one answers: the only retry loop there is.

The common case is one attempt that answers and pays for nothing else. After a failure the call may go on as long as the client has seen
no content: at once to a deployment that was not tried, after a wait to one that was, then to the models that stand in for this one. Every
attempt that an upstream may have seen is settled by itself, under `<request id>-<number>`, before the next one holds anything. All of it
ends at the call's one deadline. If nothing answers, the client is told the first error.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Literal, final

import msgspec

from gateway import errors, wire
from gateway.admission.gates import Gates
from gateway.attempts import Attempts
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.continuation import resumed
from gateway.failed import Failed
from gateway.heartbeat import Heartbeat
from gateway.hedging import Hedging
from gateway.resilience.backoff import Retries
from gateway.resilience.failures import BREAKS, Failure, wait_asked_s
from gateway.resilience.fallbacks import Chain
from gateway.resilience.health import Health
from gateway.resilience.rounds import Rounds
from gateway.routing.windows import takes, wider_than

Order = Sequence[Deployment]


@final
class _Course:
    """A call that does not go straight. `first` is its first failure, `home` what the record said by then."""

    __slots__ = ("call", "chain", "first", "home", "named", "relief", "why")

    def __init__(self, call: Call) -> None:
        record = call.record
        self.call = call
        self.named = call.request.model, call.model, call.match
        self.relief = record.relief
        self.chain = Chain(call.model.name, call.overrides.fallbacks)
        self.first: Failed | None = None
        self.why: str | None = None  # another model was asked
        self.home = record.model, record.metric_model, record.deployment, record.provider

    def note(self, failed: Failed) -> None:
        if self.first is None:
            record = self.call.record
            self.first = failed
            self.home = record.model, record.metric_model, record.deployment, record.provider

    def restore(self) -> None:
        record = self.call.record
        record.relief = self.relief
        record.model, record.metric_model, record.deployment, record.provider = self.home


@final
class Dispatch:
    """`now` is a monotonic clock, `random` gives floats in [0, 1)."""

    def __init__(
        self, attempts: Attempts, gates: Gates, health: Health, random: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self._attempts = attempts
        self._gates = gates
        self._hedging = Hedging(attempts, now)
        self._health = health
        self._random = random
        self._now = now

    def answer(self, call: Call) -> Coroutine[None, None, None]:
        """Raises the first error if nothing answers, and BudgetShort if not even the first attempt can be paid for."""
        if call.model.heartbeat_s is not None and call.record.stream and call.endpoint.door is None:
            return self._beating(call, call.model.heartbeat_s)
        return self._answer(call)

    async def _beating(self, call: Call, every_s: float) -> None:
        heart = Heartbeat(call.exchange, call.record, every_s)
        heart.start()
        try:
            await self._answer(call)
        finally:
            heart.stop()

    async def _answer(self, call: Call) -> None:
        if call.model.context_fallbacks and call.endpoint.door is None and _too_long(call):
            await self._go_on(_Course(call), (), None, "context")
            return
        if call.model.queue is None:
            order: Order = self._attempts.order(call)
        else:
            try:
                order = await self._gates.order(call)
            except errors.Shed as shed:
                await self._instead(call, shed)
                return
        failed = None
        if order:
            hedge = call.model.hedge
            if hedge is None or len(order) < 2:
                failed = await self._attempts.run(call, order[0])
            else:
                failed = await self._hedging.run(call, order, hedge)
            if failed is None:
                return
        await self._go_on(_Course(call), order, failed)

    async def _instead(self, call: Call, shed: errors.Shed) -> None:
        """Has another model answer for one that is full. Raises `shed` if none does."""
        course = _Course(call)
        if not course.chain.stands_in(call.model, "busy"):
            raise shed
        failed = Failed(call.model.deployments[0], "busy", shed)
        course.note(failed)
        await self._go_on(course, (), failed, "busy")

    async def _go_on(
        self, course: _Course, order: Order, failed: Failed | None, why: Failure | Literal["unhealthy"] = "unhealthy"
    ) -> None:
        """After a first failure, or where no deployment is usable. `why` there is none, if there is none."""
        call = course.call
        while True:
            if order:
                failed = await self._rounds(course, order, failed)
                if failed is None:
                    return
                if call.record.first_token_at is not None:  # the client has seen a part of this answer
                    await self._continue(call, failed)
                    return
                why = failed.failure
            order = self._turn(course, failed, why)
            if not order:
                break
            failed = None
        first = course.first
        if first is None or failed is None:
            raise errors.Overloaded(f"The model '{call.request.model}' has no deployment that could answer")
        if failed is not first:
            self._attempts.split_off(call, failed)
        course.restore()
        raise _told(first, call)

    async def _rounds(self, course: _Course, order: Order, failed: Failed | None) -> Failed | None:
        """Tries one model to its end: None if it answered. `failed` is what became of the order's first, if that was tried."""
        call = course.call
        record = call.record
        rounds = Rounds(_retries(call), order if failed is None else order[1:])
        if failed is None:
            failed = await self._again(call, rounds.take())
        while failed is not None and record.first_token_at is None:
            course.note(failed)
            if failed.failure == "credentials":  # other deployments may show the same key
                rounds.only(self._health.usable)
            elif failed.failure == "context":
                rounds.only(wider_than(failed.deployment))
            wait_s = rounds.next(
                failed.deployment.id,
                failed.failure,
                failed.asked_s,
                share=self._random(),
                left_s=call.deadline - self._now(),
                elsewhere=course.chain.stands_in(call.model, failed.failure),
            )
            if wait_s is None:
                break
            self._attempts.split_off(call, failed)
            if rounds.empty:
                await asyncio.sleep(wait_s)
                record.upstream_s += wait_s
                rounds.renew(self._best_of(call, rounds))
            failed = await self._again(call, rounds.take())
        return failed

    async def _again(self, call: Call, deployment: Deployment) -> Failed | None:
        """An attempt that is not the first: if it cannot be paid for, that is one more failure, and not what the client is told."""
        try:
            if call.model.queue is not None:
                await self._gates.again(call, deployment)
            return await self._attempts.run(call, deployment)
        except errors.Shed as full:
            return Failed(deployment, "busy", full, wait_asked_s(full))
        except errors.GatewayError as error:
            return Failed(deployment, "unaffordable", error)

    def _best_of(self, call: Call, rounds: Rounds) -> Order:
        """What is usable by now of what may be tried again; where nothing is, the one that is to be well first."""
        return rounds.repeatable(self._attempts.order(call)) or (
            self._health.least_bad(rounds.repeatable(self._attempts.eligible(call))),
        )

    async def _continue(self, call: Call, broken: Failed) -> None:
        """Has the rest of a broken stream written elsewhere. Raises its error if that cannot be."""
        failed = broken
        for _ in range(_retries(call).attempts):
            order = self._attempts.order(call) or self._attempts.eligible(call)
            deployment = next((one for one in order if one.id != failed.deployment.id), order[0])
            if failed.failure not in BREAKS or self._now() >= call.deadline or not _resume(call, deployment):
                break
            self._attempts.split_off(call, failed)
            again = await self._again(call, deployment)
            if again is None:
                return
            failed = again
        raise broken.error

    def _turn(self, course: _Course, failed: Failed | None, why: Failure | Literal["unhealthy"]) -> Order:
        """The deployments of the next model that stands in. Without one, and nothing tried yet, the least bad one of the model itself."""
        call = course.call
        course.chain.failed(call.model, "busy" if why == "unhealthy" else why)
        while (name := course.chain.next()) is not None:
            found = call.snapshot.catalog.find(name)
            if found is None:
                continue
            if failed is not None:
                self._attempts.split_off(call, failed)
            call.becomes(name, *found)
            order = self._attempts.order(call)
            if order:
                course.why = course.why or why
                reason = course.why.encode()
                call.record.relief = _without_fallback(course.relief) + b"x-penstock-fallback: %b\r\n" % reason
                return order
        if course.first is not None or not course.named[1].deployments:
            return ()
        call.becomes(*course.named)
        call.record.relief = course.relief
        return (self._health.least_bad(self._attempts.eligible(call)),)


def _retries(call: Call) -> Retries:
    wanted = call.overrides.retries
    return call.model.retries if wanted is None else msgspec.structs.replace(call.model.retries, attempts=wanted)


def _too_long(call: Call) -> bool:
    """Whether no deployment can take this prompt. Where one's size is not known, it is asked."""
    return not any(takes(deployment, call.body, call.request) for deployment in call.model.deployments)


def _resume(call: Call, deployment: Deployment) -> bool:
    """Makes the call one for the rest of its answer; says whether there is one to ask for."""
    continuation = call.continuation
    text = None if continuation is None else continuation.text()
    if continuation is None or text is None:
        return False
    asked = wire.asked_tokens(call.request)
    left = None if asked is None else asked - call.record.received
    if left is not None:
        if left <= 0:
            return False
        call.request = wire.with_cap(call.request, left)
    continuation.halves += 1
    continuation.tokens += call.record.received
    call.body = resumed(continuation.body, text, deployment.provider, left_tokens=left)
    return True


def _without_fallback(relief: bytes) -> bytes:
    return b"" if relief.startswith(b"x-penstock-fallback") else relief


def _told(first: Failed, call: Call) -> errors.GatewayError:
    """What the client is told: the first error, or that no credential is left that a provider takes."""
    trail = call.record.trail
    if first.error.code == "upstream_credentials" and trail and all(one.failure == "credentials" for one in trail):
        return errors.UpstreamError(
            f"{first.error.message}; no deployment of '{call.record.model}' has one that works",
            code="upstream_credentials_exhausted",
        )
    return first.error
