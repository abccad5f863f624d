"""One attempt with all that belongs to it: its hold, its deployment's health, its settlement and its line in the record."""

from collections.abc import Callable, Coroutine
from typing import Any, final

import msgspec

from gateway import errors
from gateway.admission.gates import Gates
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.failed import Failed
from gateway.journal_records import Try
from gateway.metering import Meter
from gateway.planner import Planner
from gateway.record import Record
from gateway.relief import relief
from gateway.resilience.failures import Failure, failure_of, wait_asked_s
from gateway.resilience.health import Health
from gateway.till import BudgetShort
from gateway.watching import Carries

IMPATIENT = frozenset[Failure](("timeout", "connect"))  # how calls end that had no time
CUTS = 2  # tries to fit an answer into what is left, while others spend it too


@final
class Attempts:
    """`failed` is told of each attempt that did, `attempted` given those that were settled by themselves, as records of their own."""

    def __init__(
        self,
        *,
        relay: Carries,
        meter: Meter,
        health: Health,
        planner: Planner,
        gates: Gates,
        now: Callable[[], float],
        failed: Callable[[str, Failure], None],
        attempted: Callable[[Record], None],
    ) -> None:
        self._relay = relay
        self._meter = meter
        self._health = health
        self._planner = planner
        self._gates = gates
        self.order = planner.order  # the deployments that may be tried now, best first
        self._now = now
        self._tell_failed = failed
        self._tell_attempted = attempted

    def eligible(self, call: Call) -> tuple[Deployment, ...]:
        """Those that the request may go to at all, well or not. Raises NotFound if there is none."""
        return self._planner.eligible(call)

    def run(self, call: Call, deployment: Deployment) -> Coroutine[Any, Any, Failed | None]:
        """None if it answered. Raises what stands before any attempt: that it cannot be paid for, or has no price."""
        if call.model.steered:
            return self._run_counted(call, deployment)
        return self._run(call, deployment)

    async def _run_counted(self, call: Call, deployment: Deployment) -> Failed | None:
        """Where there is a choice or a limit, calls are counted and timed."""
        if self._planner.shares and deployment.limits is not None:
            await self._planner.borrow(deployment, self._planner.tokens(call))
        try:
            ticket = self._planner.enter(call, deployment)
        except errors.Overloaded as full:
            record = call.record
            record.deployment, record.provider = deployment.id, deployment.provider
            return self._noted(record, Failed(deployment, "busy", full, wait_asked_s(full)), 0.0)
        place = None if call.model.queue is None else self._gates.begin(call)
        try:
            failed = await self._run(call, deployment)
        except BaseException:
            self._planner.let_go(call, ticket)
            raise
        else:
            self._planner.leave(call, ticket, None if failed is None else failed.failure)
            return failed
        finally:
            if place is not None:
                self._gates.end(place)

    async def _run(self, call: Call, deployment: Deployment) -> Failed | None:
        record = call.record
        record.deployment, record.provider = deployment.id, deployment.provider
        wild = call.match or call.request.model
        offer = self._meter.offer(deployment, wild, call.request, call.body)
        try:
            if not self._meter.open_at_once(call.snapshot.rules, record, offer):
                since = self._now()
                await self._meter.open_borrowing(call.snapshot.rules, record, offer)
                if record.watched is not None:
                    record.watched.note("hold", since, self._now())
        except BudgetShort as short:
            if record.attempts or not await self._cut(call, deployment, wild, short):
                raise
        record.attempts += 1
        began, waited_s = self._now(), record.upstream_s
        if self._health.troubled:
            self._health.begin(deployment)
        try:
            await self._relay.run(call, deployment, deployment.target.replace("*", wild))
        except errors.GatewayError as error:
            return self._failed(call, deployment, error, began, waited_s)
        except BaseException:
            self._health.let_go(deployment)
            raise
        if record.trail is not None:
            record.trail.append(_tried(record, None, self._now() - began))
        return None

    def fits(self, call: Call, deployment: Deployment) -> bool:
        """Whether the worst case of the call there can be held at once. Says who it would be in the call's record."""
        record = call.record
        record.deployment, record.provider = deployment.id, deployment.provider
        try:
            offer = self._meter.offer(deployment, call.match or call.request.model, call.request, call.body)
            return self._meter.fits(call.snapshot.rules, record, offer)
        except errors.GatewayError:
            return False

    def settle(self, call: Call) -> None:
        """Ends an attempt that has a record of its own."""
        record = call.record
        if record.sent:
            self._meter.close(record, call.body)
            self._tell_attempted(record)
        else:
            self._meter.release(record)

    def split_off(self, call: Call, failed: Failed) -> None:
        """Settles the attempt that failed, if it is not settled yet, as the call goes on. Nothing is owed where nothing was sent."""
        record = call.record
        if not record.sent:
            self._meter.release(record)
            return
        attempt = record.split_off()
        attempt.status, attempt.finished_at = failed.error.status, self._now()
        attempt.error_code = failed.error.code or failed.error.type
        self._meter.close(attempt, call.body)
        record.earlier_nanousd += attempt.cost_nanousd or 0
        assert record.trail is not None
        record.trail[-1] = msgspec.structs.replace(record.trail[-1], id=attempt.id, cost_nanousd=attempt.cost_nanousd)
        self._tell_attempted(attempt)

    def _failed(
        self, call: Call, deployment: Deployment, error: errors.GatewayError, began: float, waited_s: float
    ) -> Failed:
        record, now = call.record, self._now()
        failure = failure_of(error, sent=record.sent, named="*" not in deployment.target)
        asked_s = wait_asked_s(error)
        if failure in IMPATIENT and now >= call.deadline and _impatient(call):
            self._health.let_go(deployment)  # that the client had less time says nothing about who was asked
        else:
            self._health.failed(call.model, deployment, failure, error.message, asked_s, began)
        record.upstream_s = waited_s + (now - began)
        return self._noted(record, Failed(deployment, failure, error, asked_s), now - began)

    def _noted(self, record: Record, failed: Failed, seconds: float) -> Failed:
        self._tell_failed(failed.deployment.id, failed.failure)
        if record.trail is None:
            record.trail = []
        record.trail.append(_tried(record, failed.failure, seconds))
        return failed

    async def _cut(self, call: Call, deployment: Deployment, wild: str, short: BudgetShort) -> bool:
        """Opens the call with fewer tokens for its answer, where its budgets want that; says whether that helped."""
        for _ in range(CUTS):
            if call.record.relief or relief(short.short) != "cut":
                return False
            smaller = self._meter.affordable(deployment, wild, call.request, call.body, short.short)
            if smaller is None:
                return False
            tokens, request, body = smaller
            offer = self._meter.offer(deployment, wild, request, body)
            try:
                await self._meter.open(call.snapshot.rules, call.record, offer)
            except BudgetShort as taken:  # by somebody else in the meantime
                short = taken
            else:
                call.request, call.body = request, body
                call.record.relief = b"x-penstock-max-tokens: %d\r\n" % tokens
                return True
        return False


def _impatient(call: Call) -> bool:
    """Whether the client asked for less time than the model gives."""
    wanted = call.overrides.timeout_s
    return wanted is not None and wanted < call.model.timeouts.total_s


def _tried(record: Record, failure: Failure | None, seconds: float) -> Try:
    return Try(record.model or "", record.deployment or "", failure, round(seconds * 1000, 3))
