"""What follows from the evidence: everything goes only to who is proven, and who cannot be is told what it would take."""

from collections.abc import Sequence

from msgspec.structs import replace

from inference.rollouts.decision import decide
from inference.rollouts.gates import Evidence, judge
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName, Gate, Plan, Position
from inference.rollouts.tally import Seen, Tally

ERRORS = Gate("error_rate", 0.02, relative=False)
CANARY = Plan("route", "x", "canary", 1, 2, (0.05, 0.25, 1.0), (ERRORS,), bake_s=1.0, min_requests=10)


def counted(*arms: tuple[int, ArmName, int, int]) -> Tally:
    """Of stratum, arm, bad and good answers."""
    tally = Tally()
    for stratum, arm, bad, good in arms:
        for ok in [False] * bad + [True] * good:
            tally.add(stratum, arm, Seen(ok=ok))
    return tally


def at(plan: Plan, step: int, **fields: object) -> Position:
    return replace(Position("running", step, plan.share(step), 0.0, 0.0, (0.0,) * (step + 1)), **fields)


def after(plan: Plan, position: Position, tally: Tally, now: float = 10.0) -> Position:
    evidence: Sequence[Evidence] = judge(plan, tally)
    return decide(plan, position, evidence, tally, now)


def test_the_last_step_begins_with_half() -> None:
    """So that there is something to compare with; a step that is as large is not made smaller; without gates nobody compares."""
    assert [CANARY.share(step) for step in range(3)] == [0.05, 0.25, 0.5]
    assert CANARY.strata == (0, 1, 2)
    tall = replace(CANARY, steps=(0.5, 1.0))
    assert [tall.share(step) for step in range(2)] == [0.5, 0.5]
    assert tall.strata == (0, 0)
    assert replace(CANARY, gates=()).share(2) == 1.0
    assert replace(CANARY, strategy="blue_green", steps=(0.0, 1.0)).share(1) == 1.0


def test_everything_goes_to_who_is_proven() -> None:
    """Half until then, all for a while, then the promotion."""
    few = counted((2, CHAMPION, 0, 50), (2, CHALLENGER, 0, 50))
    many = counted((2, CHAMPION, 0, 400), (2, CHALLENGER, 0, 400))
    half = at(CANARY, 2)
    assert after(CANARY, half, few) == half

    whole = after(CANARY, half, many)

    assert (whole.state, whole.share, whole.proven) == ("running", 1.0, True)
    assert after(CANARY, whole, many, now=10.5) == whole
    assert after(CANARY, whole, many, now=20.0).state == "promoted"
    broken = counted((2, CHAMPION, 0, 400), (2, CHALLENGER, 60, 400))
    assert after(CANARY, whole, broken, now=10.5).state == "rolled_back"


def test_blue_is_measured_until_green_could_be_proven() -> None:
    """As many requests as it takes, not only as many as were asked for at least."""
    plan = replace(CANARY, strategy="blue_green", steps=(0.0, 1.0))
    assert after(plan, at(plan, 0), counted((0, CHAMPION, 0, 60))).step == 0
    assert after(plan, at(plan, 0), counted((0, CHAMPION, 0, 400))).step == 1
    demanding = replace(plan, gates=(replace(ERRORS, max_regression=-0.01),))  # who is as good as blue never could
    assert after(demanding, at(demanding, 0), counted((0, CHAMPION, 0, 60))).step == 1


def test_who_is_not_proven_in_time_is_told_what_it_takes() -> None:
    """With the evidence; and given as many again, it goes on."""
    plan = replace(CANARY, max_requests=150)
    tally = counted((2, CHAMPION, 1, 99), (2, CHALLENGER, 1, 99))

    paused = after(plan, at(plan, 2), tally)

    assert (paused.state, paused.verdict) == ("paused", "inconclusive")
    assert paused.reason is not None
    assert paused.reason.startswith("inconclusive after 150 requests: error_rate 0.01 against 0.01 (provable with ")
    assert after(plan, at(plan, 2, asked=100), tally).state == "running"
    worse = counted((2, CHAMPION, 0, 100), (2, CHALLENGER, 4, 96))
    assert "(not provable as it looks)" in str(after(plan, at(plan, 2), worse).reason)
