"""Rollouts for those who begin and steer them: plans checked against what there is, and moves by hand."""

from collections.abc import Callable, Mapping
from typing import final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from admin.rollouts.levers import FamilyLever
from admin.rollouts.references import trained
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.ids import new_id
from inference.rollouts import store
from inference.rollouts.decision import promoted, rolled_back
from inference.rollouts.engine import moved
from inference.rollouts.gates import METRICS
from inference.rollouts.models import ModelLever
from inference.rollouts.ports import Lever, Registry
from inference.rollouts.rollout import Gate, Kind, Plan, Position
from inference.rollouts.store import Rollout


class Levers(msgspec.Struct, frozen=True):
    """`registry` is None where no classic models are served."""

    families: Mapping[Kind, FamilyLever]
    registry: Registry | None = None

    def all(self) -> Mapping[Kind, Lever]:
        found: dict[Kind, Lever] = dict(self.families)
        models = self.models()
        if models is not None:
            found["model"] = models
        return found

    def models(self) -> Lever | None:
        return None if self.registry is None else ModelLever(self.registry)

    def arms(self, tx: Connection, kind: Kind, name: str, champion: str, challenger: str) -> tuple[int, int]:
        """Raises NotFound, BadRequest."""
        if kind in self.families:
            return self.families[kind].arms(tx, name, champion, challenger)
        if kind == "model" and self.registry is not None:
            return _versions(self.registry, tx, name, champion, challenger)
        raise BadRequest(
            "target.kind: there are no classic models here; route, prompt and retriever have versions.",
            param="target.kind",
            code="unsupported_value",
        )

    def grounded(self, tx: Connection, plan: Plan) -> Plan:
        """With the training data that its gates hold columns against. Raises BadRequest."""
        if plan.kind != "model" or self.registry is None:
            return plan
        gates = []
        for number, gate in enumerate(plan.gates):
            side = METRICS[gate.metric].counts
            known = self.registry.inputs(tx, plan.name, plan.challenger) if gate.group or side == "inputs" else ()
            for column in (gate.group, *(gate.columns if side == "inputs" else ())):
                if column is not None and column.partition("[")[0] not in known:
                    field = "group" if column == gate.group else "columns"
                    raise BadRequest(
                        f"gates.{number}.{field}: the challenger takes no column {column!r}.",
                        param=f"gates.{number}.{field}",
                    )
            gates.append(self._trained(tx, plan, gate, number))
        return replace(plan, gates=tuple(gates))

    def _trained(self, tx: Connection, plan: Plan, gate: Gate, number: int) -> Gate:
        if gate.training is None:
            return gate
        assert self.registry is not None
        profile = self.registry.profile(tx, plan.name, plan.challenger)
        training = trained(profile, METRICS[gate.metric].counts) if profile is not None else {}
        if not training:
            raise BadRequest(
                f"gates.{number}.reference: nothing is known of the challenger's training data; register it with a reference.",
                param=f"gates.{number}.reference",
                code="profile_not_found",
            )
        return replace(gate, training=training)


@final
class Rollouts:
    """Each method works in the transaction that it is given. `unix` is the clock."""

    def __init__(self, levers: Levers, unix: Callable[[], float]) -> None:
        self._levers = levers
        self._unix = unix

    def arms(self, tx: Connection, kind: Kind, name: str, champion: str, challenger: str) -> tuple[int, int]:
        return self._levers.arms(tx, kind, name, champion, challenger)

    def begin(self, tx: Connection, plan: Plan) -> Rollout:
        """Raises Conflict where one is active for the target, BadRequest for gates that its versions cannot have."""
        plan = self._levers.grounded(tx, plan)
        now, lever = self._unix(), self._levers.all()[plan.kind]
        share = plan.share(0)
        rollout = Rollout(
            new_id("rol"),
            plan,
            Position("running", 0, share, now, now, (now,)),
            (),
            lever.before(tx, plan),
            now,
            now,
            None,
        )
        if not store.add(tx, rollout):
            raise Conflict(
                f"A rollout of {plan.kind} {plan.name!r} is active: one at a time.",
                param="target",
                code="rollout_active",
            )
        lever.move(tx, plan, rollout.restore, share, plan.copied(0))
        return rollout

    def get(self, tx: Connection, id_: str) -> Rollout:
        found = store.find(tx, id_)
        if found is None:
            raise NotFound(f"There is no rollout {id_!r}.", param="id", code="rollout_not_found")
        return found

    def pause(self, tx: Connection, id_: str, reason: str) -> Rollout:
        """Nothing moves and nothing is decided; requests stay with the arms that they have."""
        rollout = self._active(tx, id_)
        return self._moved(tx, rollout, replace(rollout.position, state="paused", reason=reason))

    def resume(self, tx: Connection, id_: str) -> Rollout:
        """Goes on at the same step, with its time and the rollout's beginning anew, and its shares set again."""
        rollout = self._active(tx, id_)
        if rollout.position.state == "running":
            return rollout
        now = self._unix()
        late = now - rollout.position.started_at >= rollout.plan.max_s
        position = replace(
            rollout.position,
            state="running",
            verdict="continue",
            reason=None,
            step_at=now,
            # Who resumes what took too long wants to give it as long again.
            started_at=now if late else rollout.position.started_at,
            asked=store.tally(tx, id_).asked if rollout.position.verdict == "inconclusive" else rollout.position.asked,
        )
        return self._moved(tx, rollout, position)

    def promote(self, tx: Connection, id_: str, reason: str) -> Rollout:
        rollout = self._active(tx, id_)
        return self._moved(tx, rollout, promoted(rollout.position, self._unix(), reason))

    def roll_back(self, tx: Connection, id_: str, reason: str) -> Rollout:
        rollout = self._active(tx, id_)
        return self._moved(tx, rollout, rolled_back(rollout.position, self._unix(), reason))

    def _active(self, tx: Connection, id_: str) -> Rollout:
        rollout = self.get(tx, id_)
        if not rollout.active:
            raise Conflict(f"The rollout is over: it was {rollout.position.state}.", code="rollout_over")
        return rollout

    def _moved(self, tx: Connection, rollout: Rollout, position: Position) -> Rollout:
        return moved(tx, self._levers.all()[rollout.plan.kind], rollout, position, self._unix())


def _versions(registry: Registry, tx: Connection, name: str, champion: str, challenger: str) -> tuple[int, int]:
    there = registry.versions(tx, name)
    if not there:
        raise NotFound(f"target.name: there is no model {name!r}.", param="target.name", code="model_not_found")
    found = []
    for arm, field in ((champion, "champion"), (challenger, "challenger")):
        number = int(arm) if arm.isdecimal() else registry.named(tx, name, arm)
        if number not in there or number is None:
            raise NotFound(f"{field}: {name!r} has no version {arm}.", param=field, code="version_not_found")
        found.append(number)
    if found[0] == found[1]:
        raise BadRequest("challenger: the same version as the champion.", param="challenger")
    return found[0], found[1]
