"""What a rollout is: its plan, which never changes, and where it stands."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["model", "route", "prompt", "retriever"]
Strategy: TypeAlias = Literal["shadow", "canary", "blue_green", "ab", "bandit"]
State: TypeAlias = Literal["running", "paused", "promoted", "rolled_back"]
Verdict: TypeAlias = Literal["promote", "rollback", "continue", "inconclusive"]
Sticky: TypeAlias = Literal["key", "user", "session", "request"]
ArmName: TypeAlias = Literal["champion", "challenger"]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"

# What a strategy does where the plan names no steps: the challenger's share, one after another. Of a shadow it is the part of the
# requests that are copied, of a bandit the most that the challenger may get.
STEPS: Final[dict[Strategy, tuple[float, ...]]] = {
    "shadow": (1.0,),
    "canary": (0.05, 0.25, 1.0),
    "blue_green": (0.0, 1.0),
    "ab": (0.5,),
    "bandit": (1.0,),
}
HALF: Final = 0.5  # at which two arms are compared with the fewest requests


class Training(msgspec.Struct, frozen=True):
    """What a column of the training data looked like: rows below the first of the edges, between them, and beyond the last.

    `counts`: buckets, and how many rows are in each.
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, int], ...]
    text: bool = False


class Judge(msgspec.Struct, frozen=True):
    """A model that scores or compares a `share` of the answers, on the account of a key. `rubric`: what it is told to look at."""

    model: str
    share: float
    payer: str
    rubric: str | None = None


class Gate(msgspec.Struct, frozen=True):
    """The challenger may be worse by `max_regression`: of the champion's value where `relative`, else in the metric's own unit.

    `slack` is permitted on top, in the metric's unit. `low` and `high` are what a score of `feedback` may be. Of drift: `columns` are
    those that count, all if there are none, and `training` what they are held against instead of the champion. Of bias: `group` is the
    column that says to which group a row belongs, `positive` the answer that is good to get.
    """

    metric: str
    max_regression: float
    relative: bool
    slack: float = 0.0
    low: float = 0.0
    high: float = 1.0
    columns: tuple[str, ...] = ()
    training: dict[str, Training] | None = None
    group: str | None = None
    positive: str | None = None
    judge: Judge | None = None


class Plan(msgspec.Struct, frozen=True):
    """`alpha`: how likely a challenger that is no worse may be rolled back, however often anybody looks.

    A step takes `bake_s` and `min_requests` of the challenger at least; all of it `max_s` and `max_requests` of both arms at most.
    `champion` and `challenger` are numbers of versions.
    """

    kind: Kind
    name: str
    strategy: Strategy
    champion: int
    challenger: int
    steps: tuple[float, ...]
    gates: tuple[Gate, ...]
    alpha: float = 0.05
    bake_s: float = 5.0
    min_requests: int = 20
    max_s: float = 86_400.0
    sticky: Sticky = "request"
    auto_promote: bool = True
    max_requests: int | None = None

    def gate(self, metric: str) -> Gate | None:
        return next((gate for gate in self.gates if gate.metric == metric), None)

    @property
    def judges(self) -> Sequence[tuple[str, Judge]]:
        """By the metric that asks them."""
        return [(gate.metric, gate.judge) for gate in self.gates if gate.judge is not None]

    @property
    def group(self) -> tuple[str, str] | None:
        """The column and the positive class of its gates on bias."""
        found = next((gate for gate in self.gates if gate.group is not None), None)
        return None if found is None or found.group is None else (found.group, found.positive or "1")

    @property
    def strata(self) -> tuple[int, ...]:
        """By step, where its outcomes are compared: those of one share together, those of a step without both arms with the one before."""
        if self.strategy in {"shadow", "bandit"}:
            return (0,) * len(self.steps)
        found = [0]
        shares = [self.share(step) for step in range(len(self.steps))]
        for before, share in pairwise(shares):
            found.append(found[-1] + (share not in {before, 1} and before > 0))
        return tuple(found)

    def share(self, step: int) -> float:
        """The challenger's part of the answers when a step begins."""
        match self.strategy:
            case "shadow":
                return 0.0
            case "bandit":
                return min(0.5, self.steps[step])
            case _ if self.proves(step):
                return max(HALF, self.steps[step - 1])
            case _:
                return self.steps[step]

    def proves(self, step: int) -> bool:
        """Whether this step would leave nothing to compare with, so that it begins with half, until every gate is proven."""
        return bool(self.gates) and step > 0 and self.steps[step] == 1 and 0 < self.steps[step - 1] < 1

    def copied(self, step: int) -> float:
        """The part of the requests of which the challenger gets a copy."""
        return self.steps[step] if self.strategy == "shadow" else 0.0


class Position(msgspec.Struct, frozen=True):
    """Where a rollout stands. `step_at` and `started_at` are Unix seconds; `since` says from when on each step's outcomes count.

    `share`: the challenger's part of the requests. `proven`: every gate was, so that the last step may leave the champion nothing.
    `asked`: how many requests there were when it was last given as many again.
    """

    state: State
    step: int
    share: float
    started_at: float
    step_at: float
    since: tuple[float, ...]
    verdict: Verdict = "continue"
    reason: str | None = None
    proven: bool = False
    asked: int = 0


def step_at(position: Position, at: float) -> int:
    """The step that a request of this moment was drawn in; -1 before the first."""
    return sum(1 for since in position.since if since <= at) - 1
