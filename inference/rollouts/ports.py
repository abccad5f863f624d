"""What the engine needs of what it rolls out. Adapters: routes and prompts (admin.rollouts), classic models (inference.rollouts.models)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from inference.rollouts.rollout import ArmName, Plan
from inference.rollouts.store import Observed, Rollout


class Lever(Protocol):
    """Moves requests between the two versions of a target, in the transaction in which the rollout's own state moves."""

    def before(self, tx: Connection, plan: Plan) -> Mapping[str, Any]:
        """What stands now and is to be put back, or built on, at the end. Changes nothing."""
        ...

    def move(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], share: float, copied: float) -> None:
        """Gives the challenger this part of the requests, and copies of this part, from the next revision on."""
        ...

    def finish(self, tx: Connection, plan: Plan, restore: Mapping[str, Any], winner: ArmName) -> None:
        """Everything to one of them, for good."""
        ...

    def disturbed(self, tx: Connection, plan: Plan, share: float) -> str | None:
        """What somebody else has done to the target meanwhile, so that outcomes no longer mean what they should."""
        ...


class Source(Protocol):
    """Where outcomes are read. Blocks; called from a thread."""

    def since(self, rollout: Rollout) -> Sequence[Observed]:
        """Outcomes since the rollout began. Telling one again does no harm, missing one for a while neither."""
        ...


class Answers(Protocol):
    """What was predicted, to be compared with what turns out to be true."""

    def of(self, tx: Connection, ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """By id, a value per row; what is not known is left out."""
        ...


class Registry(Protocol):
    """The versions of classic models, and the alias that says which one serves."""

    def versions(self, tx: Connection, model: str) -> Sequence[int]:
        """Those that may serve; none for a model that is not known."""
        ...

    def champion(self, tx: Connection, model: str) -> int | None:
        """The version that the alias `champion` names."""
        ...

    def named(self, tx: Connection, model: str, alias: str) -> int | None:
        """The version that any alias names."""
        ...

    def require(self, tx: Connection, model: str, version: int) -> None:
        """Raises Conflict while approvals are missing that the alias `champion` asks for."""
        ...

    def inputs(self, tx: Connection, model: str, version: int) -> Collection[str]:
        """The columns that a version takes."""
        ...

    def profile(self, tx: Connection, model: str, version: int) -> Mapping[str, Any] | None:
        """What the training data of a version looked like (inference.runtimes.profile), if that is known."""
        ...

    def crown(self, tx: Connection, model: str, version: int) -> None:
        """Moves the alias `champion`."""
        ...
