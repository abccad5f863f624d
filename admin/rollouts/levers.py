"""Rollouts of routes, prompts and retrievers: the lever is the weights of their versions, which every replica reads with the revision."""

from collections.abc import Callable, Mapping
from typing import Any, final

from sqlalchemy import Connection

from gateway import version_store
from gateway.errors import BadRequest, NotFound
from gateway.version_store import Copied, FamilyRecord, Kind, Spec
from inference.rollouts.rollout import CHALLENGER, ArmName, Plan

CLOSE = 1e-9


@final
class FamilyLever:
    """`known` says whether there is what a version may be made of: of a route a model of that name, of a retriever a collection."""

    def __init__(self, kind: Kind, known: Callable[[Connection, str], bool]) -> None:
        self._kind: Kind = kind
        self._known = known

    def arms(self, tx: Connection, name: str, champion: str, challenger: str) -> tuple[int, int]:
        """The numbers of two versions: of what is named by number, `name@2`, or, of a route, by a model, of a
        retriever, by a collection, which becomes a version of it.

        A route or a retriever that does not exist is made. Raises NotFound, BadRequest.
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
            if self._kind == "prompt" or number.isdecimal():
                raise
            return self._made(tx, name, arm, field)
        if number.isdecimal():
            if any(one.version == int(number) for one in family.versions):
                return int(number)
            raise NotFound(f"{field}: {self._kind} {name!r} has no version {number}.", param=field)
        if self._kind == "prompt":
            raise BadRequest(f"{field}: the number of a version, or {name}@2.", param=field)
        for one in family.versions:
            if one.spec == self._spec(arm):
                return one.version
        return self._made(tx, name, arm, field, family)

    def _made(self, tx: Connection, name: str, model: str, field: str, family: FamilyRecord | None = None) -> int:
        what, code = ("model", "model_not_found") if self._kind == "route" else ("collection", "vector_store_not_found")
        if not self._known(tx, model):
            raise NotFound(
                f"{field}: {name!r} has no version {model!r}, and there is no such {what}.", param=field, code=code
            )
        if family is None:
            version_store.create(tx, self._kind, name, "key", self._spec(model))
            return 1
        return version_store.add_version(tx, self._kind, name, self._spec(model), 0.0).versions[-1].version

    def _spec(self, arm: str) -> Spec:
        return {"model": arm, "params": {}} if self._kind == "route" else {"collection": arm, "search": {}}

    @staticmethod
    def _pair(family: FamilyRecord, plan: Plan) -> float:
        return sum(one.weight for one in family.versions if one.version in {plan.champion, plan.challenger})
