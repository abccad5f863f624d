"""Rollouts of retrievers: which of them a search belongs to, and what it came to."""

from collections.abc import Sequence
from typing import final

import msgspec

from inference.rollouts.models import Live
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName
from inference.rollouts.store import Rollout
from inference.rollouts.tally import Seen


class Arm(msgspec.Struct, frozen=True):
    """`instead`: the version that answers when this one cannot."""

    rollout: str
    name: ArmName
    instead: int | None = None


@final
class Searches:
    """One per process; plain arithmetic on memory. What it is told waits in `live` until the engine takes it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._running: dict[str, Rollout] = {}

    def load(self, rollouts: Sequence[Rollout]) -> None:
        """The active ones of one revision."""
        self._running = {one.plan.name: one for one in rollouts if one.plan.kind == "retriever"}

    def arm(self, retriever: str, version: int) -> Arm | None:
        rollout = self._running.get(retriever)
        if rollout is None:
            return None
        if version == rollout.plan.challenger:
            return Arm(rollout.id, CHALLENGER, rollout.plan.champion)
        return Arm(rollout.id, CHAMPION) if version == rollout.plan.champion else None

    def observe(self, arm: Arm, id_: str, latency_ms: float | None, *, empty: bool | None) -> None:
        """Without a latency it failed."""
        ok = latency_ms is not None
        self._live.note(arm.rollout, id_, arm.name, Seen(ok=ok, latency_ms=latency_ms, empty=empty))
