"""Tries a call at one deployment after another, at one model after another, until one answers: the only retry loop there is.

The common case is one attempt that answers and pays for nothing else. After a failure the call may go on as long as the client has seen
no content: at once to a deployment that was not tried, after a wait to one that was, then to the models that stand in for this one. Every
attempt that an upstream may have seen is settled by itself, under `<request id>-<number>`, before the next one holds anything. All of it
ends at the call's one deadline. If nothing answers, the client is told the first error.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import final

import msgspec

from gateway import errors
from gateway.attempts import Attempts, Failed
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.resilience.backoff import Retries
from gateway.resilience.fallbacks import Chain
from gateway.resilience.health import Health
from gateway.resilience.rounds import Rounds

Order = Sequence[Deployment]


@final
class _Course:
    """A call that does not go straight. `first` is its first failure, `home` what the record said by then."""

    __slots__ = ("call", "chain", "first", "home", "named", "relief")

    def __init__(self, call: Call) -> None:
        record = call.record
        self.call = call
        self.named = call.request.model, call.model, call.match
        self.relief = record.relief
        self.chain = Chain(call.model.name, call.overrides.fallbacks)
        self.first: Failed | None = None
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
        self, attempts: Attempts, health: Health, random: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self._attempts = attempts
        self._health = health
        self._random = random
        self._now = now

    async def answer(self, call: Call) -> None:
        """Raises the first error if nothing answers, and BudgetShort if not even the first attempt can be paid for."""
        order = self._attempts.order(call)
        failed = None
        if order:
            failed = await self._attempts.run(call, order[0])
            if failed is None:
                return
        await self._go_on(_Course(call), order, failed)

    async def _go_on(self, course: _Course, order: Order, failed: Failed | None) -> None:
        """After a first failure, or where no deployment is usable."""
        call = course.call
        while True:
            if order:
                failed = await self._rounds(course, order, failed)
                if failed is None:
                    return
                if call.record.first_token_at is not None:  # the client has seen a part of this answer
                    raise failed.error
            order = self._turn(course, failed)
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
            return await self._attempts.run(call, deployment)
        except errors.GatewayError as error:
            return Failed(deployment, "unaffordable", error)

    def _best_of(self, call: Call, rounds: Rounds) -> Order:
        """What is usable by now of what may be tried again; where nothing is, the one that is to be well first."""
        return rounds.repeatable(self._attempts.order(call)) or (
            self._health.least_bad(rounds.repeatable(call.model.deployments)),
        )

    def _turn(self, course: _Course, failed: Failed | None) -> Order:
        """The deployments of the next model that stands in. Without one, and nothing tried yet, the least bad one of the model itself."""
        call = course.call
        course.chain.failed(call.model, "busy" if failed is None else failed.failure)
        while (name := course.chain.next()) is not None:
            found = call.snapshot.catalog.find(name)
            if found is None:
                continue
            if failed is not None:
                self._attempts.split_off(call, failed)
            call.becomes(name, *found)
            order = self._attempts.order(call)
            if order:
                reason = b"unhealthy" if course.first is None else course.first.failure.encode()
                call.record.relief = _without_fallback(course.relief) + b"x-penstock-fallback: %b\r\n" % reason
                return order
        if course.first is not None or not course.named[1].deployments:
            return ()
        call.becomes(*course.named)
        call.record.relief = course.relief
        return (self._health.least_bad(call.model.deployments),)


def _retries(call: Call) -> Retries:
    wanted = call.overrides.retries
    return call.model.retries if wanted is None else msgspec.structs.replace(call.model.retries, attempts=wanted)


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
