"""Rollouts of classic models: the lever is the alias `champion`, and until that moves a hash decides for each request."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec
from sqlalchemy import Connection

from inference.errors import Conflict
from inference.ports import Arm, Outcome
from inference.rollouts.assignment import challenged, place
from inference.rollouts.ports import Registry
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName, Plan
from inference.rollouts.store import Observed, Rollout
from inference.rollouts.tally import Seen

MAX_WAITING: Final = 50_000


@final
class ModelLever:
    """Shares need no lever: they stand in the rollout, and `Live` reads them there with the revision."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def before(self, tx: Connection, plan: Plan) -> Mapping[str, Any]:
        self._registry.require(tx, plan.name, plan.challenger)  # it may come to be promoted while nobody looks
        return {"champion": self._registry.champion(tx, plan.name)}

    def move(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], share: float, copied: float) -> None: ...

    def finish(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], winner: ArmName) -> None:  # noqa: ARG002 — the port's names
        version = plan.challenger if winner == CHALLENGER else plan.champion
        if self._registry.champion(tx, plan.name) != version:
            self._registry.crown(tx, plan.name, version)

    def disturbed(self, tx: Connection, plan: Plan, share: float) -> str | None:  # noqa: ARG002 — the port's names
        there = self._registry.versions(tx, plan.name)
        gone = [version for version in (plan.champion, plan.challenger) if version not in there]
        if gone:
            return f"version {gone[0]} of {plan.name!r} can no longer be served"
        try:
            self._registry.require(tx, plan.name, plan.challenger)
        except Conflict as missing:
            return str(missing)
        return None


class _Running(msgspec.Struct, frozen=True):
    id: str
    plan: Plan
    share: float
    copied: float


@final
class Live:
    """What a request sees of the rollouts of classic models, and what it tells them: `inference.ports.Split` and `Observer`.

    Choosing and observing are plain arithmetic on memory. `drain` takes what was observed, from another thread.
    """

    def __init__(self, unix: Any) -> None:
        self._unix = unix
        self._running: Mapping[str, _Running] = {}
        self._waiting: deque[tuple[str, Observed]] = deque()
        self._lock = threading.Lock()
        self.dropped = 0

    def load(self, rollouts: Sequence[Rollout]) -> None:
        """The active ones of one revision, all at once."""
        self._running = {
            one.plan.name: _Running(one.id, one.plan, one.position.share, one.plan.copied(one.position.step))
            for one in rollouts
            if one.plan.kind == "model"
        }

    def choose(self, model: str, unit: str) -> Arm | None:
        running = self._running.get(model)
        if running is None:
            return None
        plan = running.plan
        if challenged(running.id, unit, running.share):
            return Arm(plan.challenger, CHALLENGER, running.id)
        copied = place(f"{running.id} shadow", unit) < running.copied
        return Arm(plan.champion, CHAMPION, running.id, (plan.challenger,) if copied else ())

    def observe(self, outcome: Outcome) -> None:
        id_ = outcome.arm.rollout
        if id_ is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        arm: ArmName = CHAMPION if outcome.arm.name == CHAMPION else CHALLENGER  # a shadow is the challenger, too
        seen = Seen(
            ok=outcome.ok,
            valid=outcome.valid,
            latency_ms=outcome.latency_s * 1000,
            cost_nanousd=outcome.cost_nanos,
            differs=None if outcome.agreement is None else outcome.agreement < 1,
        )
        self._waiting.append((id_, Observed(outcome.prediction, arm, self._unix(), seen)))

    def drain(self) -> Mapping[str, Sequence[Observed]]:
        """By rollout."""
        found: dict[str, list[Observed]] = {}
        with self._lock:
            for _ in range(len(self._waiting)):
                id_, observed = self._waiting.popleft()
                found.setdefault(id_, []).append(observed)
        return found
