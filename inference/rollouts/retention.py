"""What is forgotten in time, and whether there is anything to do: asked by every process, so this needs nothing but the tables."""

from sqlalchemy import Connection, delete, select

from inference.rollouts.tables import feedback, rollout_outcomes, rollouts


def any_active(tx: Connection) -> bool:
    return tx.execute(select(rollouts.c.id).where(rollouts.c.active.is_not(None)).limit(1)).first() is not None


def forget(tx: Connection, before: float) -> None:
    """Outcomes of rollouts that ended before then, in Unix seconds, and what was last said before then. What they came to stays."""
    ended = select(rollouts.c.id).where(rollouts.c.ended_at < before)
    tx.execute(delete(rollout_outcomes).where(rollout_outcomes.c.rollout.in_(ended)))
    tx.execute(delete(feedback).where(feedback.c.updated_at < before))
