"""What a gate says of the two arms: the values, and how strongly they speak against the challenger and for it."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final, Literal

import msgspec

from inference.rollouts import means, proportions, quantiles
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Gate, Plan
from inference.rollouts.tally import Counts, Tally
from inference.rollouts.wealth import Wealth, few, log_mean, many


class Metric(msgspec.Struct, frozen=True):
    """`counts` is what of a tally it is made of. `share` is a quantile's; `relative`, how a regression is meant if a gate does not say."""

    kind: Literal["share", "mean", "quantile", "agreement"]
    counts: str
    relative: bool = False
    share: float = 0.0


METRICS: Final[Mapping[str, Metric]] = {
    "error_rate": Metric("share", "error"),
    "invalid_rate": Metric("share", "invalid"),
    "latency_p50_ms": Metric("quantile", "latency", relative=True, share=0.50),
    "latency_p90_ms": Metric("quantile", "latency", relative=True, share=0.90),
    "latency_p95_ms": Metric("quantile", "latency", relative=True, share=0.95),
    "latency_p99_ms": Metric("quantile", "latency", relative=True, share=0.99),
    "first_token_p95_ms": Metric("quantile", "first_token", relative=True, share=0.95),
    "cost_usd": Metric("mean", "cost", relative=True),
    "feedback": Metric("mean", "regret"),
    "accuracy": Metric("mean", "wrong"),
    "agreement": Metric("agreement", "differs"),
}


class Evidence(msgspec.Struct, frozen=True):
    """`against` and `for_` are logarithms of e-values: `failed` and `passed` say whether they are enough. Values are estimates."""

    metric: str
    champion: float | None
    challenger: float | None
    n_champion: int
    n_challenger: int
    against: float
    for_: float
    failed: bool
    passed: bool
    regression: float | None  # by how much the challenger looks worse than it may be; negative is fine


def judge(plan: Plan, tally: Tally) -> tuple[Evidence, ...]:
    """Every gate by itself. Any of them may roll back, so they share `alpha`; all of them have to agree to a promotion."""
    return tuple(_judge(plan, gate, tally) for gate in plan.gates)


def _judge(plan: Plan, gate: Gate, tally: Tally) -> Evidence:
    metric = METRICS[gate.metric]
    strata = range(max(plan.strata) + 1)
    found = [_compare(gate, metric, tally, stratum) for stratum in strata]
    # A mean of e-values is one, whatever they have to do with each other; a product is one of what comes one after the other.
    against = log_mean([one.against for one in found])
    for_ = log_mean([sum(one.for_ for one in found), *(one.for_ for one in found)])
    ours, theirs = (_pooled(tally, metric.counts, arm) for arm in (CHAMPION, CHALLENGER))
    champion, challenger = _value(gate, metric, tally, ours), _value(gate, metric, tally, theirs)
    return Evidence(
        gate.metric,
        champion,
        challenger,
        sum(ours.values()),
        sum(theirs.values()),
        against,
        for_,
        failed=against >= log(len(plan.gates) / plan.alpha),
        passed=for_ >= log(1 / plan.alpha),
        regression=_regression(gate, metric, champion, challenger),
    )


def _compare(gate: Gate, metric: Metric, tally: Tally, stratum: int) -> Wealth:
    ours, theirs = (tally.of(stratum, arm, metric.counts) for arm in (CHAMPION, CHALLENGER))
    factor, slack = _line(gate, metric, tally)
    match metric.kind:
        case "share" if factor == 1:
            return proportions.compare(
                ours.get(1, 0), sum(ours.values()), theirs.get(1, 0), sum(theirs.values()), slack
            )
        case "share":
            return means.compare(_scaled(ours), _scaled(theirs), factor, slack)
        case "quantile":
            return quantiles.compare(ours, theirs, metric.share, factor, slack)
        case "mean":
            return means.compare(ours, theirs, factor, slack)
        case "agreement":
            n = sum(theirs.values())
            limit = min(max(gate.max_regression, 1e-6), 1 - 1e-6)
            return Wealth(many(theirs.get(1, 0), n, limit), few(theirs.get(1, 0), n, limit)) if n else Wealth()


def _line(gate: Gate, metric: Metric, tally: Tally) -> tuple[float, float]:
    """Up to where the challenger's value may be, as a factor of the champion's and a constant, in the unit of what is counted."""
    constant = gate.slack + (0.0 if gate.relative else gate.max_regression)
    if metric.counts == "cost":
        constant *= 1e9 / (tally.cap_nanousd or 1e9)
    elif metric.counts == "regret":
        constant /= gate.high - gate.low
    return 1 + gate.max_regression if gate.relative else 1.0, constant


def _value(gate: Gate, metric: Metric, tally: Tally, counts: Counts) -> float | None:
    """In the metric's own unit."""
    n = sum(counts.values())
    if not n:
        return None
    match metric.kind:
        case "share":
            return counts.get(1, 0) / n
        case "agreement":
            return counts.get(0, 0) / n
        case "quantile":
            return quantiles.quantile(counts, metric.share)
        case "mean":
            return _mean(gate, metric, tally, means.mean(counts) or 0.0)


def _mean(gate: Gate, metric: Metric, tally: Tally, loss: float) -> float:
    if metric.counts == "cost":
        return loss * (tally.cap_nanousd or 0.0) / 1e9
    return 1 - loss if metric.counts == "wrong" else gate.high - loss * (gate.high - gate.low)


def _regression(gate: Gate, metric: Metric, champion: float | None, challenger: float | None) -> float | None:
    if metric.kind == "agreement":
        return None if challenger is None else 1 - challenger - gate.max_regression
    if champion is None or challenger is None:
        return None
    if metric.counts in {"regret", "wrong"}:
        return champion - challenger - gate.max_regression - gate.slack
    permitted = champion * (1 + gate.max_regression) if gate.relative else champion + gate.max_regression
    return challenger - permitted - gate.slack


def _pooled(tally: Tally, what: str, arm: str) -> Counts:
    pooled: Counts = {}
    for stratum in tally.counts:
        for bucket, count in tally.of(stratum, arm, what).items():
            pooled[bucket] = pooled.get(bucket, 0) + count
    return pooled


def _scaled(counts: Counts) -> Counts:
    return {bucket * means.SCALE: count for bucket, count in counts.items()}


def worst(evidence: Sequence[Evidence]) -> Evidence:
    """The gate that speaks loudest against the challenger."""
    return max(evidence, key=lambda one: one.against)
