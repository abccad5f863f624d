"""The gate before a model with a `queue`: a call that finds every deployment at its limit waits for its turn, or is told that it cannot.

A waiting call has no hold, no place and no socket; what it waits with is its own coroutine. Whoever ends a call at the model lets the next
one in, within the same turn of the event loop. Models without a queue are never here.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final, final

import msgspec

from gateway.admission.classes import CLASSES, rank_of
from gateway.admission.forecast import Outlook, Pace, Reason, hopeless, retry_after_s, wait_s
from gateway.admission.line import Full, Line, Waiter, next_of
from gateway.call import Call
from gateway.catalog import Deployment, Model, Queue
from gateway.drive import Signal
from gateway.errors import Shed
from gateway.journal_records import Routed
from gateway.keys import Key
from gateway.metrics import BUCKETS_S, Histogram
from gateway.planner import Planner

TICK_S: Final = 0.1  # minutes slide, breakers close and other processes give back without telling anybody here
DRAIN_SPARE: Final = 0.1  # of the time that a server has to end, for telling those who cannot be served any more
NO_ROUTE: Final = Routed()

Order = Sequence[Deployment]

_SAID: Final[Mapping[Reason, str]] = {
    "full": "its queue is full",
    "displaced": "its queue is full, and a call of a higher priority or of another key has the place",
    "deadline": "the call could not be answered in time",
    "timeout": "no place became free in time",
    "draining": "this server is about to end",
}


@final
class _Waiting(Waiter):
    """`outcome`: where the call may go, or why it may not; None as long as it waits. `again`: a second try, at one place."""

    __slots__ = ("again", "call", "deployments", "outcome", "signal", "timer", "tokens")

    def __init__(self, call: Call, rank: int, deployments: Order, tokens: int, *, again: bool) -> None:
        key = _key(call)
        super().__init__(key.id, rank, key.standing.weight)
        self.call = call
        self.deployments = deployments
        self.tokens = tokens
        self.again = again
        self.signal = Signal()
        self.outcome: Order | Shed | None = None
        self.timer: asyncio.TimerHandle | None = None


@final
class Place:
    """A call under way at a model with a gate."""

    __slots__ = ("began", "call", "gate")

    def __init__(self, gate: "_Gate", call: Call, began: float) -> None:
        self.gate = gate
        self.call = call
        self.began = began


@final
class _Gate:
    """One model's."""

    __slots__ = ("borrowing", "line", "pace", "places", "pumping", "scheduled", "ticking")

    def __init__(self, queue: Queue) -> None:
        self.line = Line[_Waiting](queue.length)
        self.pace = Pace()
        self.places: dict[Place, None] = {}
        self.borrowing: asyncio.Task[None] | None = None
        self.pumping = False
        self.scheduled = False
        self.ticking = False


@final
class Gates:
    """One per process, on one event loop. `now` is a monotonic clock.

    `counts` are calls that came to wait, by model, class and what became of them; `waited`, how long those that were served did.
    """

    def __init__(self, planner: Planner, now: Callable[[], float]) -> None:
        self._planner = planner
        self._now = now
        self._gates: dict[str, _Gate] = {}
        self._until = inf  # when this process ends
        self.counts: dict[tuple[str, str, str], int] = {}
        self.waited: dict[tuple[str, str], Histogram] = {}

    @property
    def waiting(self) -> int:
        """How many wait, at all gates."""
        return sum(gate.line.size for gate in self._gates.values())

    def depths(self) -> Mapping[tuple[str, str], int]:
        """How many wait, by model and class."""
        return {
            (model, name): gate.line.depth(rank)
            for model, gate in self._gates.items()
            for rank, name in enumerate(CLASSES)
        }

    async def order(self, call: Call) -> Order:
        """The deployments that may be tried now, best first, as soon as it is this call's turn. Raises Shed, BadRequest, AccessDenied."""
        rank = rank_of(_key(call).standing, call.exchange.headers, call.body if call.endpoint.door is None else b"")
        order = self._planner.order(call)
        if not order or call.overrides.deployment is not None:
            return order
        gate = self._gate(call.model)
        tokens = self._planner.tokens(call)
        if not gate.line.size:
            if self._planner.shares:
                await self._planner.borrow(order[0], tokens)
            if self._planner.fits(call, order[0], tokens):
                return order
        return await self._wait(gate, _Waiting(call, rank, self._planner.eligible(call), tokens, again=False))

    async def again(self, call: Call, deployment: Deployment) -> None:
        """The same for another try, at one deployment: one that has had its turn goes before those who wait. Raises Shed."""
        tokens = self._planner.tokens(call)
        if self._planner.shares:
            await self._planner.borrow(deployment, tokens)
        if call.overrides.deployment is None and not self._planner.fits(call, deployment, tokens):
            body = call.body if call.endpoint.door is None else b""
            rank = rank_of(_key(call).standing, call.exchange.headers, body)
            await self._wait(self._gate(call.model), _Waiting(call, rank, (deployment,), tokens, again=True))

    def begin(self, call: Call) -> Place:
        """A call has a place at a deployment."""
        gate = self._gate(call.model)
        place = Place(gate, call, self._now())
        gate.places[place] = None
        gate.line.begun(_key(call).id)
        return place

    def end(self, place: Place) -> None:
        """It has given the place up."""
        gate = place.gate
        del gate.places[place]
        gate.line.ended(_key(place.call).id)
        if place.call.record.sent:
            gate.pace.note(self._now() - place.began)
        self._schedule(gate)

    def drain(self, grace_s: float) -> None:
        """The process ends: who cannot be answered by then is told now, as another replica may have room."""
        self._until = self._now() + grace_s * (1 - DRAIN_SPARE)
        for gate in self._gates.values():
            for position, waiter in enumerate(tuple(gate.line.in_turn())):
                outlook = self._outlook(gate, waiter, position)
                if hopeless(outlook, left_s=self._left_s(waiter.call), patience_s=inf):
                    self._shed(gate, waiter, "draining", outlook)
                else:
                    self._set_timer(gate, waiter, inf)

    def keep(self, models: Mapping[str, Model]) -> None:
        """The configuration changed: gates that nobody uses any more are forgotten."""
        gone = [
            name
            for name, gate in self._gates.items()
            if not (gate.line.size or gate.places) and (name not in models or models[name].queue is None)
        ]
        for name in gone:
            del self._gates[name]

    # One that waits

    async def _wait(self, gate: _Gate, waiter: _Waiting) -> Order:
        call, queue, since = waiter.call, waiter.call.model.queue, self._now()
        assert queue is not None
        ahead = gate.line.ahead(waiter.key, waiter.rank, waiter.weight)
        outlook = self._outlook(gate, waiter, ahead)
        elsewhere = (
            gate.line.size and self._places_for(waiter, frozenset()) is None
        )  # the others wait for another place
        if not elsewhere and hopeless(outlook, left_s=self._left_s(call), patience_s=queue.wait_s):
            raise self._refused(waiter, "deadline" if self._until == inf else "draining", outlook)
        try:
            displaced = gate.line.join(waiter)
        except Full:
            raise self._refused(waiter, "full", outlook) from None
        try:
            if displaced is not None:
                self._shed(gate, displaced, "displaced", outlook)
            self._set_timer(gate, waiter, queue.wait_s)
            self._pump(gate)
            while waiter.outcome is None:
                await waiter.signal
        except BaseException:
            if waiter.outcome is None:
                self._count(waiter, "left")
            raise
        finally:
            gate.line.leave(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
            if call.record.watched is not None:
                call.record.watched.note("queue", since, self._now())
        waited_s = self._now() - since
        if isinstance(waiter.outcome, Shed):
            raise waiter.outcome
        self._served(waiter, waited_s)
        return waiter.outcome

    def _outlook(self, gate: _Gate, waiter: _Waiting, ahead: int) -> Outlook:
        now = self._now()
        slots_s = wait_s(ahead, [now - place.began for place in gate.places], gate.pace.mean_s)
        waits = [self._planner.frees_s(one) for one in waiter.deployments]
        begins_s = min((slots_s if wait is None else wait for wait in waits), default=0.0)
        return Outlook(begins_s, gate.pace.least_s)

    def _left_s(self, call: Call) -> float:
        return min(call.deadline, self._until) - self._now()

    def _set_timer(self, gate: _Gate, waiter: _Waiting, patience_s: float) -> None:
        if waiter.timer is not None:
            patience_s = min(patience_s, waiter.timer.when() - asyncio.get_running_loop().time())
            waiter.timer.cancel()
        left_s = self._left_s(waiter.call) - gate.pace.least_s
        reason: Reason = "timeout" if patience_s < left_s else "deadline" if self._until == inf else "draining"
        waiter.timer = asyncio.get_running_loop().call_later(
            max(0.0, min(patience_s, left_s)), self._give_up, gate, waiter, reason
        )

    def _give_up(self, gate: _Gate, waiter: _Waiting, reason: Reason) -> None:
        position = next((at for at, one in enumerate(gate.line.in_turn()) if one is waiter), 0)
        self._shed(gate, waiter, reason, self._outlook(gate, waiter, position))

    def _shed(self, gate: _Gate, waiter: _Waiting, reason: Reason, outlook: Outlook) -> None:
        gate.line.leave(waiter)
        if waiter.outcome is None:
            waiter.outcome = self._refused(waiter, reason, outlook)
            waiter.signal.fire()

    def _refused(self, waiter: _Waiting, reason: Reason, outlook: Outlook) -> Shed:
        self._count(waiter, reason)
        wait = retry_after_s(outlook)
        return Shed(
            f"The model '{waiter.call.request.model}' is at its limits, and {_SAID[reason]}; try again in {wait} s",
            headers=(("retry-after", str(wait)), ("x-penstock-shed", reason)),
        )

    def _served(self, waiter: _Waiting, waited_s: float) -> None:
        place = waiter.call.model.name, CLASSES[waiter.rank]
        self._count(waiter, "served")
        if place not in self.waited:
            self.waited[place] = Histogram(BUCKETS_S)
        self.waited[place].observe(waited_s)
        routed = waiter.call.record.routed or NO_ROUTE
        said = f"waited {waited_s * 1000:.0f}ms as {CLASSES[waiter.rank]}"
        reason = said if routed.reason is None else f"{routed.reason}; {said}"
        waiter.call.record.routed = msgspec.structs.replace(routed, reason=reason)

    def _count(self, waiter: _Waiting, outcome: str) -> None:
        label = waiter.call.model.name, CLASSES[waiter.rank], outcome
        self.counts[label] = self.counts.get(label, 0) + 1

    # Whose turn it is

    def _gate(self, model: Model) -> _Gate:
        queue = model.queue
        assert queue is not None
        gate = self._gates.get(model.name)
        if gate is None:
            gate = self._gates[model.name] = _Gate(queue)
        gate.line.length = queue.length
        return gate

    def _schedule(self, gate: _Gate) -> None:
        if gate.line.size and not gate.scheduled:
            gate.scheduled = True
            asyncio.get_running_loop().call_soon(self._pump_soon, gate)

    def _pump_soon(self, gate: _Gate) -> None:
        gate.scheduled = False
        self._pump(gate)

    def _pump(self, gate: _Gate) -> None:
        """Lets in whoever there is room for. Each takes its place before the next one is looked at."""
        if gate.pumping:  # somebody who was let in has come to wait again
            self._schedule(gate)
            return
        gate.pumping = True
        try:
            while (found := next_of(gate.line, self._places_for)) is not None:
                waiter, kept = found
                gate.line.take(waiter)
                waiter.outcome = self._order_of(waiter, kept)
                waiter.signal.fire()
        finally:
            gate.pumping = False
        if gate.line.size and not gate.ticking:
            gate.ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick, gate)

    def _tick(self, gate: _Gate) -> None:
        gate.ticking = False
        if self._planner.shares and gate.borrowing is None:
            gate.borrowing = asyncio.get_running_loop().create_task(self._borrow(gate))
        else:
            self._pump(gate)

    async def _borrow(self, gate: _Gate) -> None:
        """Asks for what other processes do not need any more, for who is next."""
        try:
            for waiter in tuple(gate.line.in_turn())[:1]:
                for one in waiter.deployments:
                    await self._planner.borrow(one, waiter.tokens)
        finally:
            gate.borrowing = None
            self._pump(gate)

    def _places_for(self, waiter: _Waiting, kept: frozenset[str]) -> frozenset[str] | None:
        """As `next_of` asks. Where nothing is well there is nothing to wait for: what the call does then is not this one's business."""
        places = waiter.deployments if waiter.again else self._planner.usable(waiter.deployments)
        if not places:
            return None
        if any(one.id not in kept and self._planner.fits(waiter.call, one, waiter.tokens) for one in places):
            return None
        return frozenset(one.id for one in places)

    def _order_of(self, waiter: _Waiting, kept: frozenset[str]) -> Order:
        if waiter.again:
            return waiter.deployments
        order = self._planner.order(waiter.call)
        return tuple(one for one in order if one.id not in kept) if kept else order


def _key(call: Call) -> Key:
    key = call.record.key
    assert key is not None
    return key
