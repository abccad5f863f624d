"""Rollouts of routes and prompts: the lever is the weights of their versions, which every replica reads with the revision."""

from collections.abc import Callable, Mapping
from typing import Any, final

from sqlalchemy import Connection

from gateway import version_store
from gateway.errors import BadRequest, NotFound
from gateway.version_store import Copied, FamilyRecord, Kind
from inference.rollouts.rollout import CHALLENGER, ArmName, Plan

CLOSE = 1e-9


@final
class FamilyLever:
    """`known` says whether a model of that name answers."""

    def __init__(self, kind: Kind, known: Callable[[str], bool]) -> None:
        self._kind: Kind = kind
        self._known = known

    def arms(self, tx: Connection, name: str, champion: str, challenger: str) -> tuple[int, int]:
        """The numbers of two versions: of what is named by number, `name@2`, or, of a route, by a model, which becomes a version of it.

        A route that does not exist is made. Raises NotFound, BadRequest.
        """
        found = tuple(
            self._arm(tx, name, arm, field) for arm, field in ((champion, "champion"), (challenger, "challenger"))
        )
        if found[0] == found[1]:
            raise BadRequest("challenger: the same version as the champion.", param="challenger")
        return found[0], found[1]

    def before(self, tx: Connection, plan: Plan) -> Mapping[str, Any]:
        family = version_store.get(tx, self._kind, plan.name)
        return {"sticky": family.sticky, "weight": self._pair(family, plan) or 1.0}

    def move(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], share: float, copied: float) -> None:
        weight = restore["weight"]
        weights = {plan.champion: weight * (1 - share), plan.challenger: weight * share}
        version_store.set_weights(tx, self._kind, plan.name, weights)
        if version_store.get(tx, self._kind, plan.name).sticky != plan.sticky:
            version_store.set_sticky(tx, self._kind, plan.name, plan.sticky)
        version_store.set_shadow(tx, self._kind, plan.name, Copied(plan.challenger, copied) if copied else None)

    def finish(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], winner: ArmName) -> None:
        try:
            self.move(tx, plan, restore, 1.0 if winner == CHALLENGER else 0.0, 0.0)
            version_store.set_sticky(tx, self._kind, plan.name, restore["sticky"])
        except NotFound:  # deleted meanwhile: there is nothing to put back
            return

    def disturbed(self, tx: Connection, plan: Plan, share: float) -> str | None:
        try:
            family = version_store.get(tx, self._kind, plan.name)
        except NotFound:
            return f"the {self._kind} {plan.name!r} was deleted"
        pair = self._pair(family, plan)
        challenger = next((one.weight for one in family.versions if one.version == plan.challenger), 0.0)
        if not pair or abs(challenger / pair - share) > CLOSE:
            return f"the weights of the {self._kind} {plan.name!r} were changed by hand; resume to set them again"
        return None

    def _arm(self, tx: Connection, name: str, arm: str, field: str) -> int:
        number = arm.removeprefix(f"{name}@")
        try:
            family = version_store.get(tx, self._kind, name)
        except NotFound:
            if self._kind != "route" or number.isdecimal():
                raise
            return self._made(tx, name, arm, field)
        if number.isdecimal():
            if any(one.version == int(number) for one in family.versions):
                return int(number)
            raise NotFound(f"{field}: {self._kind} {name!r} has no version {number}.", param=field)
        if self._kind != "route":
            raise BadRequest(f"{field}: the number of a version, or {name}@2.", param=field)
        for one in family.versions:
            if one.spec.get("model") == arm and not one.spec.get("params"):
                return one.version
        return self._made(tx, name, arm, field, family)

    def _made(self, tx: Connection, name: str, model: str, field: str, family: FamilyRecord | None = None) -> int:
        if not self._known(model):
            raise NotFound(
                f"{field}: {name!r} has no version {model!r}, and there is no such model.",
                param=field,
                code="model_not_found",
            )
        spec = {"model": model, "params": {}}
        if family is None:
            version_store.create(tx, "route", name, "key", spec)
            return 1
        return version_store.add_version(tx, "route", name, spec, 0.0).versions[-1].version

    @staticmethod
    def _pair(family: FamilyRecord, plan: Plan) -> float:
        return sum(one.weight for one in family.versions if one.version in {plan.champion, plan.challenger})
