"""Rollouts of classic models: the lever is the alias `champion`, and until that moves a hash decides for each request."""

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, final

import msgspec
from sqlalchemy import Connection

from inference.errors import Conflict
from inference.ports import Arm, Outcome
from inference.rollouts.assignment import challenged, place
from inference.rollouts.gates import METRICS
from inference.rollouts.ports import Registry
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName, Plan
from inference.rollouts.store import Observed, Rollout
from inference.rollouts.tally import Seen
from inference.rollouts.values import drawn, mark, row_of, written

MAX_WAITING: Final = 50_000
MOST_LOOKED: Final = 50_000  # calls of a rollout whose values are kept: after so many no gate waits for more
MOST_GROUP: Final = 60  # characters of a group's name
_PREDICTIONS: Final = "predictions"


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
    """`looks`: there are gates on what goes in and comes out."""

    id: str
    plan: Plan
    share: float
    copied: float
    looks: bool


@final
class Live:
    """What a request sees of the rollouts of classic models, and what it tells them: `inference.ports.Split` and `Observer`.

    Choosing and observing are plain arithmetic on memory. `drain` takes what was observed, from another thread.
    """

    def __init__(self, unix: Any, hidden: Mapping[str, Collection[str]] | None = None) -> None:
        """`hidden`: columns whose values are not kept, by model; `*`: every one."""
        self._unix = unix
        self._hidden = hidden or {}
        self._running: Mapping[str, _Running] = {}
        self._waiting: deque[tuple[str, Observed]] = deque()
        self._lock = threading.Lock()
        self._looked: dict[str, int] = {}  # by rollout: calls whose values were kept
        self.dropped = 0

    def load(self, rollouts: Sequence[Rollout]) -> None:
        """The active ones of one revision, all at once."""
        self._looked = {one.id: self._looked.get(one.id, 0) for one in rollouts}
        self._running = {
            one.plan.name: _Running(
                one.id,
                one.plan,
                one.position.share,
                one.plan.copied(one.position.step),
                any(METRICS[gate.metric].kind in {"drift", "gap"} for gate in one.plan.gates),
            )
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
        arm: ArmName = CHAMPION if outcome.arm.name == CHAMPION else CHALLENGER  # a shadow is the challenger, too
        seen = Seen(
            ok=outcome.ok,
            valid=outcome.valid,
            latency_ms=outcome.latency_s * 1000,
            cost_nanousd=outcome.cost_nanos,
            differs=None if outcome.agreement is None else outcome.agreement < 1,
            **self._values(outcome),
        )
        self.note(id_, outcome.prediction, arm, seen)

    def note(self, rollout: str, id_: str, arm: ArmName, seen: Seen) -> None:
        """What a call of an arm came to just now."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append((rollout, Observed(id_, arm, self._unix(), seen)))

    def _values(self, outcome: Outcome) -> dict[str, Any]:
        """What gates on drift and bias want to know, where there are any."""
        running = self._running.get(outcome.model)
        if running is None or outcome.inputs is None or outcome.outputs is None or not running.looks:
            return {}
        looked = self._looked.get(running.id, 0)
        if looked >= MOST_LOOKED or len(self._waiting) >= MOST_LOOKED // 10:
            return {}
        self._looked[running.id] = looked + 1
        plan, hidden = running.plan, self._hidden.get(outcome.model, ())
        row = drawn(outcome.prediction, outcome.rows)
        found: dict[str, Any] = {}
        if plan.gate("input_drift") is not None:
            found["inputs"] = row_of(outcome.inputs, row, hidden)
        if plan.gate("output_drift") is not None:
            found["outputs"] = row_of(outcome.outputs, row, hidden)
        if plan.group is not None:
            column, positive = plan.group
            group = _text(outcome.inputs, column, row)
            if group is not None:
                concealed = "*" in hidden or column in hidden
                found["group"] = mark(group) if concealed else group[:MOST_GROUP]
                found["positive"] = _text(outcome.outputs, _PREDICTIONS, row) == positive
        return found

    def drain(self) -> Mapping[str, Sequence[Observed]]:
        """By rollout."""
        found: dict[str, list[Observed]] = {}
        with self._lock:
            for _ in range(len(self._waiting)):
                id_, observed = self._waiting.popleft()
                found.setdefault(id_, []).append(observed)
        return found


def _text(columns: Mapping[str, Any], column: str, row: int) -> str | None:
    """The value as people write it, `1` for 1.0 and true; of outputs that call it otherwise, the first."""
    array = columns.get(column)
    if array is None:
        array = next(iter(columns.values()), None) if column == _PREDICTIONS else None
    if array is None:
        return None
    cell = array[row]
    cell = cell.reshape(-1)[0] if getattr(cell, "ndim", 0) else cell
    raw = cell.item() if hasattr(cell, "item") else cell
    return written(raw)
