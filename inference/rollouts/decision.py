"""What follows from the evidence: go on, step up, promote, roll back, or say that nothing can be said. The same state, the same move."""

from collections.abc import Sequence
from math import exp

from msgspec.structs import replace

from inference.rollouts import outlook
from inference.rollouts.gates import Evidence, worst
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Plan, Position
from inference.rollouts.tally import Tally


def decide(plan: Plan, position: Position, evidence: Sequence[Evidence], tally: Tally, now: float) -> Position:
    """Where a rollout that runs stands from `now` on, in Unix seconds; the same position if nothing changes."""
    failed = [one for one in evidence if one.failed]
    if failed:
        return rolled_back(position, now, _told(plan, worst(failed)))
    onward = _onward(plan, position, evidence, tally, now) if _baked(plan, position, tally, now) else position
    if onward != position:
        return onward
    spent = _spent(plan, position, tally, now)
    if spent is not None:
        reason = f"inconclusive after {spent}: {_open(plan, evidence, tally)}"
        return replace(position, state="paused", verdict="inconclusive", reason=reason)
    return position


def _onward(plan: Plan, position: Position, evidence: Sequence[Evidence], tally: Tally, now: float) -> Position:
    """To the next step, or to everything, or to the end; the same position where something is lacking."""
    if position.step < len(plan.steps) - 1:
        ready = outlook.provable(plan, tally) if _baseline(plan, position) else all(map(_well, evidence))
        return stepped(plan, position, now) if ready else position
    if not all(one.passed or (position.proven and _well(one)) for one in evidence):
        return position
    if plan.proves(position.step) and position.share < 1:
        return replace(position, share=1.0, step_at=now, proven=True)
    if plan.auto_promote:
        return promoted(position, now, _praise(plan, evidence))
    return replace(position, state="paused", verdict="promote", reason=f"ready to promote: {_praise(plan, evidence)}")


def stepped(plan: Plan, position: Position, now: float) -> Position:
    """At the next step, from now on."""
    step = position.step + 1
    return replace(position, step=step, share=plan.share(step), step_at=now, since=(*position.since, now))


def promoted(position: Position, now: float, reason: str) -> Position:
    return replace(position, state="promoted", verdict="promote", share=1.0, step_at=now, reason=reason)


def rolled_back(position: Position, now: float, reason: str) -> Position:
    return replace(position, state="rolled_back", verdict="rollback", share=0.0, step_at=now, reason=reason)


def _baked(plan: Plan, position: Position, tally: Tally, now: float) -> bool:
    """Long enough, and on enough requests of whoever answers at this step."""
    if now - position.step_at < plan.bake_s:
        return False
    stratum = plan.strata[position.step]
    enough = plan.min_requests if plan.gates else 0
    return tally.number(CHAMPION if _baseline(plan, position) else CHALLENGER, stratum) >= enough


def _spent(plan: Plan, position: Position, tally: Tally, now: float) -> str | None:
    """What there was of, and is no more."""
    if now - position.started_at >= plan.max_s:
        return f"{plan.max_s:g} s"
    if plan.max_requests is not None and tally.asked - position.asked >= plan.max_requests:
        return f"{plan.max_requests:,} requests"
    return None


def _open(plan: Plan, evidence: Sequence[Evidence], tally: Tally) -> str:
    """What is not proven, and what it would take."""
    found = [one for one in evidence if not one.passed]
    takes = outlook.needed(plan, tally, [one.metric for one in found])
    told = []
    for one in found:
        n = takes[one.metric]
        more = "not provable as it looks" if n is None else f"provable with {n:,} requests as it looks"
        values = f" {_number(one.challenger)} against {_number(one.champion)} ({more})"
        told.append(one.metric + (values if one.challenger is not None else ""))
    return "; ".join(told) or "too few requests"


def _baseline(plan: Plan, position: Position) -> bool:
    """Whether the champion is measured before the challenger answers anything."""
    return position.share == 0 and plan.strategy != "shadow"


def _well(one: Evidence) -> bool:
    """Enough for more requests, though not for all: what is seen is within the margin. Of labels that have not come nothing is seen."""
    return one.passed or (one.regression is not None and one.regression <= 0)


def _told(plan: Plan, one: Evidence) -> str:
    gate = next(gate for gate in plan.gates if gate.metric == one.metric)
    if one.about is not None:
        return (
            f"{one.metric}: {_number(one.challenger)} ({one.about}) of {one.n_challenger} requests; "
            f"{gate.max_regression:g} would have been permitted (evidence {exp(min(one.against, 50)):.3g} : 1)"
        )
    margin = f"{gate.max_regression:.0%}" if gate.relative else f"{gate.max_regression:g}"
    against = "" if one.champion is None else f", the champion {one.champion:.4g} of {one.n_champion}"
    return (
        f"{one.metric}: the challenger has {_number(one.challenger)} of {one.n_challenger} requests{against}; "
        f"{margin} worse would have been permitted (evidence {exp(min(one.against, 50)):.3g} : 1)"
    )


def _praise(plan: Plan, evidence: Sequence[Evidence]) -> str:
    if not evidence:
        return f"no gate stood in the way for {len(plan.steps)} steps"
    return "; ".join(f"{one.metric} {_number(one.challenger)} against {_number(one.champion)}" for one in evidence)


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
