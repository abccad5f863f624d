"""What canaries come to: what a regression costs in bad requests, when one that is as good is promoted, how many go back for nothing.

    python -m benchmarks.canaries [--runs 10] [--null 10000] [--write]

The judge and the decisions are the rollout engine's own (`inference.rollouts`), the requests are simulated, so that the same seed gives
the same table anywhere. It is looked at after every request.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from benchmarks.report import table, write_section
from inference.rollouts import means, proportions, quantiles
from inference.rollouts.decision import decide
from inference.rollouts.gates import Evidence, judge
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName, Gate, Kind, Plan, Position
from inference.rollouts.tally import Seen, Tally
from inference.rollouts.wealth import Wealth

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
MARKS: Final = ("<!-- canaries: written by make bench-canaries ARGS=--write -->", "<!-- canaries: end -->")
ALPHA: Final = 0.05
DOCS: Final = "../docs/rollouts.md#the-tests"
BETWEEN_S: Final = 0.05  # twenty requests a second
LABELS_LATE: Final = 100  # requests between an answer and the truth about it
MOST: Final = 40_000
INTRODUCTION: Final = """## Canaries

`make bench-canaries`: the rollout engine's own judge and decisions over simulated requests, looked at after each of them (one that is
as good, after fifty); the same on any machine. Steps 5 %, 25 %, 100 %; gates on errors (2 % more permitted), broken output (2 %), p95
(10 % and {slack} ms) and labels (2 %), which share an alpha of {alpha:g}; labels come {late} requests late. The champion fails 0.1 % of
requests, answers in 20 ms to 80 ms, and 3 % of its labels are wrong. {runs} runs each."""
TAKES: Final = """What one gate takes until a challenger that is as good is promoted, by its margin: requests of both arms, the same
steps."""
EDGES: Final = """Canaries at the very edge of what is permitted, so that either verdict is a wrong one, looked at after each of {requests}
requests until there is one:"""


class Arm(NamedTuple):
    """How an arm behaves: shares, and milliseconds on top."""

    errors: float = 0.001
    invalid: float = 0.0
    slower_ms: float = 0.0
    wrong: float = 0.03


AS_GOOD: Final = Arm()
REGRESSIONS: Final[dict[str, Arm]] = {
    "10 % more of its labels are wrong": Arm(wrong=0.13),
    "200 ms slower": Arm(slower_ms=200),
    "its output breaks the schema": Arm(invalid=1.0),
    "10 % of its output breaks the schema": Arm(invalid=0.1),
    "every call fails": Arm(errors=1.0),
}
KINDS: Final[dict[str, tuple[str, float]]] = {"classic model": ("invalid_rate", 1.0), "LLM route": ("error_rate", 10.0)}


class Ended(NamedTuple):
    """`bad`: answers of the challenger that were slow, wrong or broken; `asked`: all of its answers; `requests`: of both arms."""

    state: str
    gate: str
    bad: int
    asked: int
    requests: int


def plan(kind: str) -> Plan:
    """With gates on everything."""
    gates = [
        Gate("error_rate", 0.02, relative=False),
        Gate("latency_p95_ms", 0.1, relative=True, slack=KINDS[kind][1]),
        Gate("accuracy", 0.02, relative=False),
    ]
    if kind == "classic model":
        gates.insert(1, Gate("invalid_rate", 0.02, relative=False))
    return planned(kind, *gates)


def planned(kind: str, *gates: Gate) -> Plan:
    target: Kind = "model" if kind == "classic model" else "route"
    return Plan(target, "x", "canary", 1, 2, (0.05, 0.25, 1.0), gates, ALPHA)


def seen(arm: Arm, chance: random.Random, kind: str) -> tuple[Seen, Seen, bool]:
    """What is known at once, what a label says later, and whether the answer was a bad one."""
    failed, broken, wrong = (chance.random() < share for share in (arm.errors, arm.invalid, arm.wrong))
    if kind != "classic model":  # what a route answers is JSON or a failure: broken output is an error of the call
        failed, broken = failed or broken, False
    latency = 20 + chance.expovariate(1 / 20) + arm.slower_ms
    bad = failed or broken or arm.slower_ms > 0 or (wrong and arm.wrong > AS_GOOD.wrong)
    now = Seen(ok=not failed, valid=None if failed else not broken, latency_ms=None if failed else latency)
    return now, Seen() if failed else Seen(wrong=float(wrong)), bad


def rolled(kind: str, challenger: Arm, seed: int, every: int = 1, plan_: Plan | None = None) -> Ended:
    """One canary, from its first request to its verdict, looked at after so many of the challenger's answers."""
    planned, tally, chance = plan_ or plan(kind), Tally(), random.Random(seed)
    position = Position("running", 0, planned.share(0), 0.0, 0.0, (0.0,))
    waiting: deque[tuple[int, ArmName, Seen]] = deque()
    evidence: Sequence[Evidence] = ()
    bad = asked = number = 0
    while position.state == "running" and number < MOST:
        number += 1
        arm: ArmName = CHALLENGER if chance.random() < position.share else CHAMPION
        now, later, poor = seen(challenger if arm == CHALLENGER else AS_GOOD, chance, kind)
        stratum = planned.strata[position.step]
        tally.add(stratum, arm, now)
        waiting.append((stratum, arm, later))
        asked += arm == CHALLENGER
        bad += arm == CHALLENGER and poor
        if len(waiting) > LABELS_LATE:
            tally.add(*waiting.popleft())
        if (arm == CHALLENGER and asked % every == 0) or number % max(20, every) == 0:
            evidence = judge(planned, tally)
            position = decide(planned, position, evidence, tally, number * BETWEEN_S)
    gate = (position.reason or "").partition(":")[0] if position.state == "rolled_back" else ""
    return Ended(position.state, gate, bad, asked, number)


def regressions(runs: int) -> Iterator[tuple[str, ...]]:
    for kind in KINDS:
        for name, arm in {**REGRESSIONS, "as good": AS_GOOD}.items():
            ends = [rolled(kind, arm, seed, 50 if arm is AS_GOOD else 1) for seed in range(runs)]
            states = {one.state for one in ends}
            gates = sorted({one.gate for one in ends} - {""})
            spent = [one.bad for one in ends]
            whole = f"{median(one.asked for one in ends):.0f} of {median(one.requests for one in ends):.0f}"
            if arm is AS_GOOD:
                whole += f", at most {max(one.requests for one in ends)}"
            verdict = ", ".join(f"{state} {sum(one.state == state for one in ends)}" for state in sorted(states))
            cost = f"{median(spent):.0f}, at most {max(spent)}" if arm is not AS_GOOD else "–"
            yield kind, name, verdict.replace("_", " "), ", ".join(gates) or "–", cost, whole
            print("|", " | ".join((kind, name, verdict, ", ".join(gates), cost, whole)), "|", flush=True)


ALONE: Final[dict[str, tuple[str, bool, tuple[float, ...]]]] = {
    "errors, of 0.1 %": ("error_rate", False, (0.01, 0.02, 0.05)),
    "labels, 3 % of them wrong": ("accuracy", False, (0.02, 0.05, 0.1)),
    "p95 of 80 ms": ("latency_p95_ms", True, (0.1, 0.2, 0.5)),
}


def alone(runs: int) -> Iterator[tuple[str, ...]]:
    """By gate and margin, how many requests an equal challenger takes."""
    for name, (metric, relative, margins) in ALONE.items():
        for margin in margins:
            one = planned("classic model", Gate(metric, margin, relative=relative))
            ends = [rolled("classic model", AS_GOOD, seed, 50, one) for seed in range(runs)]
            spent = [end.requests for end in ends if end.state == "promoted"]
            told = f"{median(spent):,.0f}, at most {max(spent):,}" if spent else "–"
            yield name, f"{margin:.0%}{' of it' if relative else ''}", f"{len(spent)} of {runs}", told
            print("|", name, margin, len(spent), told, "|", flush=True)


class Null(NamedTuple):
    """At the very edge of what is permitted: how both arms' outcomes are drawn, and what the test says. `most` is never less."""

    name: str
    bucket: Callable[[float], int]
    champion: Callable[[random.Random], float]
    challenger: Callable[[random.Random], float]
    most: Callable[[dict[int, int], dict[int, int]], Wealth]
    compare: Callable[[dict[int, int], dict[int, int]], Wealth]


def verdicts(null: Null, runs: int, requests: int, share: float = 0.25) -> tuple[int, int]:
    """How many of so many canaries are rolled back, and how many are promoted."""
    back = on = 0
    for seed in range(runs):
        verdict = _verdict(null, random.Random(seed), requests, share)
        back += verdict < 0
        on += verdict > 0
    return back, on


def _verdict(null: Null, chance: random.Random, requests: int, share: float) -> int:
    """-1 where the canary is rolled back, 1 where it is promoted."""
    limit = math.log(1 / ALPHA)
    arms: tuple[dict[int, int], dict[int, int]] = {}, {}
    for _ in range(requests):
        one = int(chance.random() < share)
        bucket = null.bucket((null.champion, null.challenger)[one](chance))
        arms[one][bucket] = arms[one].get(bucket, 0) + 1
        if _loudest(null.most(*arms)) < limit:
            continue
        wealth = null.compare(*arms)
        if _loudest(wealth) >= limit:
            return -1 if wealth.against >= limit else 1
    return 0


def _loudest(wealth: Wealth) -> float:
    return max(wealth.against, wealth.for_)


def flips(share: float) -> Callable[[random.Random], float]:
    return lambda chance: float(chance.random() < share)


def _shares(margin: float) -> Callable[[dict[int, int], dict[int, int]], Wealth]:
    return lambda ours, theirs: proportions.compare(
        ours.get(1, 0), sum(ours.values()), theirs.get(1, 0), sum(theirs.values()), margin
    )


def slow(spread_ms: float) -> Callable[[random.Random], float]:
    return lambda chance: chance.expovariate(1 / spread_ms)


def _null_share(name: str, champion: float, margin: float) -> Null:
    compare = _shares(margin)
    return Null(name, int, flips(champion), flips(champion + margin), compare, compare)


NULLS: Final = (
    _null_share("1 % of errors in both, none more permitted", 0.01, 0.0),
    _null_share("2 % and 4 % of errors, 2 % more permitted", 0.02, 0.02),
    Null(
        "3 % and 5 % of labels wrong, 2 % more permitted",
        means.bucket,
        flips(0.03),
        flips(0.05),
        partial(means.ceiling, factor=1, slack=0.02),
        partial(means.compare, factor=1, slack=0.02),
    ),
    Null(
        "p95 of 60 ms and 66 ms, 10 % more permitted",
        quantiles.bucket,
        slow(20),
        slow(22),
        partial(quantiles.ceiling, share=0.95, factor=1.1, slack=0.0),
        partial(quantiles.compare, share=0.95, factor=1.1, slack=0.0),
    ),
)


def nulls(runs: int, requests: int) -> Iterator[tuple[str, ...]]:
    for null in NULLS:
        back, on = verdicts(null, runs, requests)
        print(f"| {null.name} | {back} and {on} of {runs:,} |", flush=True)
        yield null.name, f"{back} of {runs:,}", f"{on} of {runs:,}", f"{ALPHA:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--null", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=200, help="of each null canary")
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    options = parser.parse_args()
    head = ("target", "its challenger", "verdict", "by", "bad answers until then", "its answers, of all requests")
    slacks = " or ".join(f"{slack:g}" for _, slack in KINDS.values())
    parts = [INTRODUCTION.format(slack=slacks, alpha=ALPHA, late=LABELS_LATE, runs=options.runs)]
    parts.append(table(head, regressions(options.runs)))
    parts += [TAKES, table(("gate", "more permitted", "promoted", "requests"), alone(options.runs))]
    if options.null:
        said = EDGES.format(requests=options.requests)
        parts += [said, table(("null", "rolled back", "promoted", "alpha"), nulls(options.null, options.requests))]
    else:
        parts.append(
            f"Without null canaries, which take minutes: the figures of `make soak` are in [rollouts]({DOCS})."
        )
    if options.write:
        write_section(RESULTS, "\n\n".join(parts), MARKS)


if __name__ == "__main__":
    main()
