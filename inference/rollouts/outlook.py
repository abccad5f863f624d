"""What a verdict would take: whether a challenger could be proven at all, and with how many requests if it goes on as it looks."""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from inference.rollouts.gates import ALONE, METRICS, judge
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Gate, Plan
from inference.rollouts.tally import Tally

_TIMES: Final = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)


def provable(plan: Plan, tally: Tally) -> bool:
    """Whether enough is known of the champion: a challenger that did the same on as many requests would be promoted."""
    gates = tuple(gate for gate in plan.gates if _permits(gate))
    alike = {
        stratum: {CHAMPION: arms.get(CHAMPION, {}), CHALLENGER: arms.get(CHAMPION, {})}
        for stratum, arms in tally.counts.items()
    }
    return all(one.passed for one in judge(replace(plan, gates=gates), replace(tally, counts=alike)))


def needed(plan: Plan, tally: Tally, metrics: Collection[str]) -> Mapping[str, int | None]:
    """By metric, with how many requests of both arms it would be proven, if what comes is like what was.

    None: not with 64 times as many.
    """
    found: dict[str, int | None] = dict.fromkeys(metrics)
    for times in _TIMES:
        gates = tuple(gate for gate in plan.gates if gate.metric in found and found[gate.metric] is None)
        for one in judge(replace(plan, gates=gates), _grown(tally, times)):
            if one.passed:
                found[one.metric] = _round(tally.asked * times)
    return found


def _permits(gate: Gate) -> bool:
    """Whether one that is as good as the champion could pass, and the champion is what it is held against."""
    return METRICS[gate.metric].kind not in ALONE and gate.max_regression + gate.slack > 0


def _grown(tally: Tally, times: float) -> Tally:
    counts = {
        stratum: {
            arm: {what: {each: round(count * times) for each, count in found.items()} for what, found in whats.items()}
            for arm, whats in arms.items()
        }
        for stratum, arms in tally.counts.items()
    }
    return replace(tally, counts=counts)


def _round(number: float) -> int:
    """To two digits, as it is a guess."""
    return int(float(f"{number:.2g}"))
