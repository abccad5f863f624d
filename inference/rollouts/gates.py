"""What a gate says of the two arms: the values, and how strongly they speak against the challenger and for it."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from inference.rollouts import drift, gaps, means, proportions, quantiles
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Gate, Plan
from inference.rollouts.tally import Counts, Tally
from inference.rollouts.wealth import Wealth, few, log_mean, many


class Metric(msgspec.Struct, frozen=True):
    """`counts` is what of a tally it is made of. `share` is a quantile's; `relative`, how a regression is meant if a gate does not say."""

    kind: Literal["share", "mean", "quantile", "agreement", "drift", "gap", "pair"]
    counts: str
    relative: bool = False
    share: float = 0.0


METRICS: Final[Mapping[str, Metric]] = {
    "error_rate": Metric("share", "error"),
    "invalid_rate": Metric("share", "invalid"),
    "empty_rate": Metric("share", "empty"),
    "latency_p50_ms": Metric("quantile", "latency", relative=True, share=0.50),
    "latency_p90_ms": Metric("quantile", "latency", relative=True, share=0.90),
    "latency_p95_ms": Metric("quantile", "latency", relative=True, share=0.95),
    "latency_p99_ms": Metric("quantile", "latency", relative=True, share=0.99),
    "first_token_p95_ms": Metric("quantile", "first_token", relative=True, share=0.95),
    "cost_usd": Metric("mean", "cost", relative=True),
    "feedback": Metric("mean", "regret"),
    "accuracy": Metric("mean", "wrong"),
    "agreement": Metric("agreement", "differs"),
    "judged": Metric("mean", "judged"),
    "preferred": Metric("pair", "lost"),
    "input_drift": Metric("drift", "inputs"),
    "output_drift": Metric("drift", "outputs"),
    "demographic_parity": Metric("gap", "parity"),
    "equal_opportunity": Metric("gap", "opportunity"),
}
ALONE: Final = frozenset(
    ("agreement", "drift", "gap", "pair")
)  # kinds whose value is the challenger's own: its margin is a limit


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
    about: str | None = None  # the column that is furthest, the groups that are
    psi: float | None = None
    low: float | None = None  # of a gap: what holds it, however often it is looked at
    high: float | None = None


def judge(plan: Plan, tally: Tally) -> tuple[Evidence, ...]:
    """Every gate by itself. Any of them may roll back, so they share `alpha`; all of them have to agree to a promotion."""
    return tuple(_judge(plan, gate, tally) for gate in plan.gates)


def _judge(plan: Plan, gate: Gate, tally: Tally) -> Evidence:
    metric = METRICS[gate.metric]
    if metric.kind in ALONE - {"agreement"}:
        return _alone(plan, gate, metric, tally)
    strata = range(max(plan.strata) + 1)
    found = [_compare(gate, metric, tally, stratum) for stratum in strata]
    wealth = _together(found)
    ours, theirs = (_pooled(tally, metric.counts, arm) for arm in (CHAMPION, CHALLENGER))
    champion, challenger = _value(gate, metric, tally, ours), _value(gate, metric, tally, theirs)
    return replace(
        _evidence(plan, gate, wealth, (sum(ours.values()), sum(theirs.values()))),
        champion=champion,
        challenger=challenger,
        regression=_regression(gate, metric, champion, challenger),
    )


def _alone(plan: Plan, gate: Gate, metric: Metric, tally: Tally) -> Evidence:
    one = {"drift": _drift, "gap": _gap, "pair": _pair}[metric.kind]
    return one(plan, gate, metric, tally)


def _pair(plan: Plan, gate: Gate, metric: Metric, tally: Tally) -> Evidence:
    """All steps together, and whichever arm answered: both answers were to the same request. Half of them won is as good."""
    lost = _pooled(tally, metric.counts, CHAMPION)
    for bucket, count in _pooled(tally, metric.counts, CHALLENGER).items():
        lost[bucket] = lost.get(bucket, 0) + count
    n, limit = sum(lost.values()), min(0.5 + gate.max_regression + gate.slack, 1 - 1e-6)
    evidence = _evidence(plan, gate, means.alone(lost, limit), (n, n))
    share = means.mean(lost)
    return (
        evidence if share is None else replace(evidence, champion=0.5, challenger=1 - share, regression=share - limit)
    )


def _drift(plan: Plan, gate: Gate, metric: Metric, tally: Tally) -> Evidence:
    """By steps, as others: what is asked in the evening is not what is asked at noon."""
    limit, texts = gate.max_regression + gate.slack, _texts(gate, metric, tally)
    found = [drift.compare(_columns(gate, metric, tally, [one]), texts, limit) for one in range(max(plan.strata) + 1)]
    whole = _columns(gate, metric, tally, list(tally.counts))
    seen = drift.furthest(whole, texts)
    n = max(((sum(ours.values()), sum(theirs.values())) for ours, theirs in whole.values()), default=(0, 0))
    evidence = _evidence(plan, gate, _together(found), n)
    if seen is None:
        return evidence
    # While chance alone looks as far as the margin, nothing is seen yet.
    beyond = None if seen.noise > limit else seen.distance - seen.noise - limit
    return replace(evidence, challenger=seen.distance, regression=beyond, about=seen.column, psi=seen.psi)


def _gap(plan: Plan, gate: Gate, metric: Metric, tally: Tally) -> Evidence:
    """All steps together: how a group fares with a model does not depend on how many requests the model gets."""
    limit = gate.max_regression + gate.slack
    ours, theirs = (_groups(metric, tally, arm) for arm in (CHAMPION, CHALLENGER))
    n = sum(each for _, each in ours.values()), sum(each for _, each in theirs.values())
    evidence = _evidence(plan, gate, gaps.compare(theirs, limit), n)
    before, gap = gaps.largest(ours, plan.alpha), gaps.largest(theirs, plan.alpha)
    evidence = replace(evidence, champion=None if before is None else before.gap)
    if gap is None:
        return evidence
    # Of many groups some look far apart by chance alone: for more requests it is enough that the gap may be within the margin.
    beyond = gap.gap - gap.noise - limit
    return replace(
        evidence, challenger=gap.gap, regression=beyond, about=" and ".join(gap.groups), low=gap.low, high=gap.high
    )


def _together(found: Sequence[Wealth]) -> Wealth:
    """Of steps. A mean of e-values is one, whatever they have to do with each other; a product is one of what comes one after the other.

    Against the challenger half is bet on the first step, where most go back; for it half on all of them and half on the last alone,
    which is where a rollout takes its time.
    """
    every = [one.against for one in found]
    first = log_mean((every[0], log_mean(every[1:]))) if len(every) > 1 else every[0]
    return Wealth(first, log_mean((sum(one.for_ for one in found), found[-1].for_)))


def _evidence(plan: Plan, gate: Gate, wealth: Wealth, n: tuple[int, int]) -> Evidence:
    return Evidence(
        gate.metric,
        None,
        None,
        *n,
        wealth.against,
        wealth.for_,
        failed=wealth.against >= log(len(plan.gates) / plan.alpha),
        passed=wealth.for_ >= log(1 / plan.alpha),
        regression=None,
    )


def _columns(gate: Gate, metric: Metric, tally: Tally, strata: Sequence[int]) -> dict[str, tuple[Counts, Counts]]:
    """The champion's or the training data's histogram of each column that counts, and the challenger's."""
    names = [name for name in tally.edges.get(metric.counts, {}) if not gate.columns or name in gate.columns]
    found = {}
    for name in names:
        theirs = _pooled(tally, f"{metric.counts} {name}", CHALLENGER, strata)
        if gate.training is None:
            found[name] = _pooled(tally, f"{metric.counts} {name}", CHAMPION, strata), theirs
        elif name in gate.training:
            found[name] = dict(gate.training[name].counts), theirs
    return found


def _texts(gate: Gate, metric: Metric, tally: Tally) -> frozenset[str]:
    if gate.training is not None:
        return frozenset(name for name, one in gate.training.items() if one.text)
    return frozenset(tally.texts.get(metric.counts, ()))


def _groups(metric: Metric, tally: Tally, arm: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for stratum in tally.counts:
        for group, (good, n) in tally.groups(stratum, arm, metric.counts).items():
            before = found.get(group, (0, 0))
            found[group] = before[0] + good, before[1] + n
    return found


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
        case "drift" | "gap" | "pair":
            raise AssertionError("these are no comparisons by steps")


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
        case "drift" | "gap" | "pair":
            raise AssertionError("these have no value by arm")


def _mean(gate: Gate, metric: Metric, tally: Tally, loss: float) -> float:
    if metric.counts == "cost":
        return loss * (tally.cap_nanousd or 0.0) / 1e9
    return 1 - loss if metric.counts in {"wrong", "judged"} else gate.high - loss * (gate.high - gate.low)


def _regression(gate: Gate, metric: Metric, champion: float | None, challenger: float | None) -> float | None:
    if metric.kind == "agreement":
        return None if challenger is None else 1 - challenger - gate.max_regression
    if champion is None or challenger is None:
        return None
    if metric.counts in {"regret", "wrong", "judged"}:
        return champion - challenger - gate.max_regression - gate.slack
    permitted = champion * (1 + gate.max_regression) if gate.relative else champion + gate.max_regression
    return challenger - permitted - gate.slack


def _pooled(tally: Tally, what: str, arm: str, strata: Sequence[int] | None = None) -> Counts:
    pooled: Counts = {}
    for stratum in tally.counts if strata is None else strata:
        for bucket, count in tally.of(stratum, arm, what).items():
            pooled[bucket] = pooled.get(bucket, 0) + count
    return pooled


def _scaled(counts: Counts) -> Counts:
    return {bucket * means.SCALE: count for bucket, count in counts.items()}


def worst(evidence: Sequence[Evidence]) -> Evidence:
    """The gate that speaks loudest against the challenger."""
    return max(evidence, key=lambda one: one.against)
