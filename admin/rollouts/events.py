"""What is told of rollouts: to the log's readers, the audit and the webhooks."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec
from sqlalchemy import Connection

from admin import audit
from gateway.database import record_revision
from inference.rollouts.store import Rollout

Tell: TypeAlias = Callable[[str], Awaitable[None]]  # by a rollout's id

ACTOR = "rollout engine"


def body(rollout: Rollout) -> bytes:
    """As webhooks get it."""
    plan, position = rollout.plan, rollout.position
    return msgspec.json.encode(
        {
            "event": f"rollout.{position.state}",
            "rollout": rollout.id,
            "target": {"kind": plan.kind, "name": plan.name},
            "strategy": plan.strategy,
            "champion": str(plan.champion),
            "challenger": str(plan.challenger),
            "state": position.state,
            "verdict": position.verdict,
            "step": position.step,
            "share": position.share,
            "reason": position.reason,
            "at": datetime.fromtimestamp(rollout.updated_at, UTC),
        }
    )


def moved(tx: Connection, before: Rollout, after: Rollout) -> None:
    """Everybody reads the new state with the next revision, and it stands in the audit."""
    record_revision(tx, f"rollout {after.id}: {after.position.state}, step {after.position.step}")
    old, new = (msgspec.to_builtins(one.position) for one in (before, after))
    audit.record(tx, "rollout.move", after.id, actor=ACTOR, before=old, after=new)
