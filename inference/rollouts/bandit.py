"""Thompson sampling between two arms: each gets the share of requests with which it is the better one, as far as anybody knows.

Its decisions come from the gates, whose tests are valid however the shares were chosen; the bandit only makes waiting cheap.
"""

from math import sqrt
from statistics import NormalDist
from typing import Final

from inference.rollouts import means, quantiles
from inference.rollouts.gates import METRICS
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Plan
from inference.rollouts.tally import Counts, Tally

LEAST: Final = 0.05  # of the requests for either arm: what is never asked is never known


def share(plan: Plan, tally: Tally, most: float) -> float:
    """The challenger's, by the first gate's metric: the probability that its loss is lower, if that is not more than it may have."""
    if not plan.gates:
        return min(0.5, most)
    metric = METRICS[plan.gates[0].metric]
    ours, theirs = (_posterior(metric.counts, tally.of(0, arm, metric.counts)) for arm in (CHAMPION, CHALLENGER))
    # Beta posteriors, by their first two moments; with as many outcomes as move a share, the difference to sampling them is nothing.
    spread = sqrt(ours[1] + theirs[1])
    better = NormalDist().cdf((ours[0] - theirs[0]) / spread)
    return min(1 - LEAST, max(LEAST, round(better, 2)), max(LEAST, most))


def _posterior(what: str, counts: Counts) -> tuple[float, float]:
    """Mean and variance of a loss in [0, 1], from a uniform prior."""
    n = sum(counts.values())
    bad = sum(_loss(what, bucket) * count for bucket, count in counts.items())
    a, b = bad + 1, n - bad + 1
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


def _loss(what: str, bucket: int) -> float:
    if what in {"latency", "first_token"}:
        ms = quantiles.end(bucket)
        return ms / (ms + 1_000.0)
    return bucket / means.SCALE if what in {"cost", "regret", "wrong", "judged", "lost"} else float(bucket)
