"""`/admin/v1/rollouts`: a version takes over from another one, step by step, as long as the evidence lets it."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from sqlalchemy import Connection

from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.wire import After, Filter, Identifier, Limit, ListPage, StrictRoute, at
from admin.rollouts.events import Tell
from admin.rollouts.service import Rollouts
from gateway import key_store
from gateway.database import record_revision
from gateway.errors import BadRequest, NotFound
from gateway.settings import Section
from inference.rollouts import store
from inference.rollouts.gates import METRICS, Evidence, Metric
from inference.rollouts.rollout import STEPS, Gate, Judge, Kind, Plan, State, Sticky, Strategy, Verdict
from inference.rollouts.store import Rollout
from inference.rollouts.values import written

SLACK_MS = {
    "model": 1.0
}  # what is faster than anybody notices is no regression; a model in this process answers within that
USUAL_SLACK_MS = 10.0
JUDGED = ("judged", "preferred")
SEARCHED = (
    "error_rate",
    "empty_rate",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "feedback",
    "accuracy",
)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s/\x00-\x1f\x7f]+$")]
Arm = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(
        min_length=1,
        max_length=200,
        description="A version's number, or, of a route, the name of a model, of a retriever, the id of a collection.",
    ),
]
Column = Annotated[str, Field(min_length=1, max_length=500)]
Number = Annotated[float, AfterValidator(_finite)]
Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_finite)]


class TargetBody(Section):
    kind: Kind
    name: Name


class JudgeBody(Section):
    """A model of the gateway that scores or compares a `share` of the answers, on the account of the key `key_id`.
    `rubric`: what it is to look at."""

    model: Name
    key_id: Annotated[str, Field(min_length=1, max_length=100)]
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    rubric: Annotated[str | None, Field(max_length=4_000)] = None


class GateBody(Section):
    """The challenger may be worse than the champion by `max_regression`: by that part of its value where `unit` is `relative`, as is
    usual for latency and cost, else by so much. A negative one asks for an improvement. `slack` is permitted on top, in the metric's unit.
    """

    metric: Annotated[str, Field(min_length=1, max_length=64)]
    max_regression: Annotated[float, Field(gt=-1, lt=1_000), AfterValidator(_finite)]
    unit: Annotated[str | None, Field(pattern="^(absolute|relative)$")] = None
    slack: Annotated[float | None, Field(ge=0, le=1e9)] = None
    range: Annotated[
        tuple[Number, Number] | None, Field(description="Of the scores of feedback: the lowest and the highest.")
    ] = None
    columns: Annotated[
        tuple[Column, ...], Field(max_length=64, description="Of drift: those that count; all, if none are named.")
    ] = ()
    reference: Annotated[
        Literal["champion", "training"], Field(description="Of drift: what the challenger is held against.")
    ] = "champion"
    group: Annotated[
        Column | None, Field(description="Of bias: the column that says to which group a row belongs.")
    ] = None
    judge: Annotated[JudgeBody | None, Field(description="Of judged quality: who scores.")] = None
    positive: Annotated[str | int | float | bool, Field(description="Of bias: the prediction that is good to get.")] = 1


class RolloutBody(Section):
    """`alpha`: how likely a challenger that is no worse may be rolled back, however often it is looked at. A step takes at least `bake_s`
    and `min_requests` of the challenger. After `max_s`, or `max_requests` of both arms, without a decision it pauses.
    `sticky`: what stays with its arm."""

    target: TargetBody
    strategy: Strategy = "canary"
    champion: Arm
    challenger: Arm
    steps: Annotated[tuple[Share, ...] | None, Field(min_length=1, max_length=50)] = None
    gates: Annotated[tuple[GateBody, ...], Field(max_length=20)] = ()
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    bake_s: Annotated[float, Field(ge=0, le=31_536_000), AfterValidator(_finite)] = 5.0
    min_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    max_s: Annotated[float, Field(gt=0, le=31_536_000), AfterValidator(_finite)] = 86_400.0
    sticky: Sticky | None = None
    auto_promote: bool = True
    max_requests: Annotated[int | None, Field(ge=1, le=1_000_000_000)] = None


class ReasonBody(Section):
    reason: Annotated[str | None, Field(max_length=1000)] = None


class EvidenceView(BaseModel):
    """`against` and `in_favour` are e-values: how many times as much a gambler would have who bet against the challenger being no worse
    than permitted, and against it being worse. `failed` and `passed` say whether that is enough. Of drift, `about` is the column that is
    furthest, by `challenger`; of bias, the two groups that are, and `low` and `high` hold their gap, however often it is looked at."""

    metric: str
    max_regression: float
    champion: float | None
    challenger: float | None
    n_champion: int
    n_challenger: int
    against: float
    in_favour: float
    failed: bool
    passed: bool
    about: str | None
    psi: float | None
    low: float | None
    high: float | None


class TargetView(BaseModel):
    kind: Kind
    name: str


class GateView(BaseModel):
    metric: str
    max_regression: float
    unit: str
    slack: float


class RolloutView(BaseModel):
    """`share`: the challenger's part of the requests now; `step`: which of `steps`, from 0. `reason` says why it is as it is."""

    id: str
    target: TargetView
    strategy: Strategy
    champion: str
    challenger: str
    steps: list[float]
    gates: list[GateView]
    alpha: float
    bake_s: float
    min_requests: int
    max_s: float
    max_requests: int | None
    sticky: Sticky
    state: State
    verdict: Verdict
    reason: str | None
    step: int
    share: float
    evidence: list[EvidenceView]
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


def router(control: Control, rollouts: Rollouts, tell: Tell) -> APIRouter:
    routes = APIRouter(prefix="/rollouts", tags=["rollouts"], route_class=StrictRoute)

    @routes.post(
        "", summary="Begin a rollout", status_code=201, response_model=RolloutView, responses=documented(404, 409)
    )
    async def create(request: Request, asker: Asker, body: RolloutBody) -> Response:
        _check(body)

        def work(tx: Connection) -> tuple[str, BaseModel]:
            for number, gate in enumerate(body.gates):
                if gate.judge is not None:
                    _require_key(tx, gate.judge.key_id, f"gates.{number}.judge.key_id")
            arms = rollouts.arms(tx, body.target.kind, body.target.name, body.champion, body.challenger)
            rollout = rollouts.begin(tx, _plan(body, *arms))
            record_revision(tx, f"rollout {rollout.id} began")
            return rollout.id, view(rollout)

        answer = await control.create(request, asker, "rollout.create", work)
        if "idempotent-replayed" not in answer.headers:
            await tell(msgspec.json.decode(answer.body)["id"])
        return answer

    @routes.get("", summary="List rollouts, newest first", responses=documented())
    async def listed(limit: Limit = 100, after: After = None, state: Filter = None) -> ListPage[RolloutView]:
        found = await control.read(lambda tx: store.listed(tx, limit, after, state))
        views = [view(one) for one in found]
        return ListPage[RolloutView].cut(views, limit, lambda one: one.id)

    @routes.get("/{id}", summary="Show a rollout with its evidence", responses=documented(404))
    async def show(id: Identifier) -> RolloutView:  # noqa: A002 — the path's name
        return await control.read(lambda tx: view(rollouts.get(tx, id)))

    def by_hand(path: str, summary: str, work: Callable[[Connection, str, str], Rollout]) -> None:
        @routes.post(f"/{{id}}/{path}", summary=summary, responses=documented(404, 409), operation_id=f"{path}_rollout")
        async def move(id: Identifier, asker: Asker, body: ReasonBody | None = None) -> RolloutView:  # noqa: A002 — the path's name
            reason = (body.reason if body is not None else None) or f"{path} by {asker.actor}"

            def change(tx: Connection) -> RolloutView:
                rollout = work(tx, id, reason)
                record_revision(tx, f"rollout {id}: {path}")
                return view(rollout)

            shown = await control.change(
                asker, f"rollout.{path}", id, change, before=lambda tx: view(rollouts.get(tx, id))
            )
            await tell(id)
            return shown

    by_hand("pause", "Stop deciding; requests stay where they are", rollouts.pause)
    by_hand("resume", "Go on with a paused rollout", lambda tx, id_, _: rollouts.resume(tx, id_))
    by_hand("promote", "Give everything to the challenger", rollouts.promote)
    by_hand("rollback", "Give everything back to the champion", rollouts.roll_back)
    return routes


def view(rollout: Rollout) -> RolloutView:
    plan, position = rollout.plan, rollout.position
    return RolloutView(
        id=rollout.id,
        target=TargetView(kind=plan.kind, name=plan.name),
        strategy=plan.strategy,
        champion=str(plan.champion),
        challenger=str(plan.challenger),
        steps=list(plan.steps),
        gates=[
            GateView(
                metric=gate.metric,
                max_regression=gate.max_regression,
                unit="relative" if gate.relative else "absolute",
                slack=gate.slack,
            )
            for gate in plan.gates
        ],
        alpha=plan.alpha,
        bake_s=plan.bake_s,
        min_requests=plan.min_requests,
        max_s=plan.max_s,
        max_requests=plan.max_requests,
        sticky=plan.sticky,
        state=position.state,
        verdict=position.verdict,
        reason=position.reason,
        step=position.step,
        share=position.share,
        evidence=[_evidence(*pair) for pair in zip(rollout.evidence, plan.gates, strict=False)],
        created_at=at(rollout.created_at),
        updated_at=at(rollout.updated_at),
        ended_at=None if rollout.ended_at is None else at(rollout.ended_at),
    )


def _evidence(one: Evidence, gate: Gate) -> EvidenceView:
    return EvidenceView(
        metric=one.metric,
        max_regression=gate.max_regression,
        champion=one.champion,
        challenger=one.challenger,
        n_champion=one.n_champion,
        n_challenger=one.n_challenger,
        against=math.exp(min(one.against, 300)),
        in_favour=math.exp(min(one.for_, 300)),
        failed=one.failed,
        passed=one.passed,
        about=one.about,
        psi=one.psi,
        low=one.low,
        high=one.high,
    )


def _plan(body: RolloutBody, champion: int, challenger: int) -> Plan:
    kind = body.target.kind
    sticky: Sticky = body.sticky or ("user" if body.strategy == "ab" else "request")
    return Plan(
        kind,
        body.target.name,
        body.strategy,
        champion,
        challenger,
        _steps(body),
        tuple(_gate(gate, kind) for gate in body.gates),
        body.alpha,
        body.bake_s,
        body.min_requests,
        body.max_s,
        sticky,
        body.auto_promote,
        body.max_requests,
    )


def _steps(body: RolloutBody) -> tuple[float, ...]:
    """Blue is measured before green answers anybody."""
    steps = body.steps or STEPS[body.strategy]
    return (0.0, *steps) if body.strategy == "blue_green" and steps[0] >= 1 else steps


def _gate(body: GateBody, kind: Kind) -> Gate:
    metric = METRICS[body.metric]
    relative = metric.relative if body.unit is None else body.unit == "relative"
    slack = body.slack
    if slack is None:
        slack = SLACK_MS.get(kind, USUAL_SLACK_MS) if metric.kind == "quantile" else 0.0
    biased = metric.kind == "gap"
    return Gate(
        body.metric,
        body.max_regression,
        relative,
        slack,
        *(body.range or (0.0, 1.0)),
        columns=body.columns,
        training={} if body.reference == "training" else None,
        group=body.group if biased else None,
        positive=written(body.positive) if biased else None,
        judge=_judge(body.judge),
    )


def _require_key(tx: Connection, id_: str, param: str) -> None:
    """Raises NotFound: somebody has to pay for a judge."""
    try:
        key_store.get(tx, id_)
    except NotFound:
        raise NotFound(f"{param}: there is no key {id_!r}.", param=param, code="key_not_found") from None


def _judge(body: JudgeBody | None) -> Judge | None:
    return None if body is None else Judge(body.model, body.share, body.key_id, body.rubric)


def _check(body: RolloutBody) -> None:
    """Raises BadRequest for what cannot be meant."""
    for number, gate in enumerate(body.gates):
        _check_gate(gate, f"gates.{number}", body)
    if len({(gate.group, gate.positive) for gate in body.gates if gate.group is not None}) > 1:
        raise BadRequest("gates: all on bias name one group and one positive class.", param="gates")
    names = [gate.metric for gate in body.gates]
    if len(set(names)) < len(names):
        raise BadRequest("gates: one for each metric.", param="gates")
    if body.target.kind == "retriever" and body.strategy == "shadow":
        raise BadRequest("strategy: searches are not copied; a canary answers some.", param="strategy")
    steps = body.steps
    if steps is None:
        return
    if list(steps) != sorted(set(steps)):
        raise BadRequest("steps: each one larger than the one before.", param="steps")
    if steps[0] >= 1 and body.gates and body.strategy in {"canary", "ab"}:
        raise BadRequest(
            "steps: with gates, the first leaves the champion something to be compared with.", param="steps"
        )


def _check_gate(gate: GateBody, param: str, body: RolloutBody) -> None:
    metric = METRICS.get(gate.metric)
    if metric is None:
        raise BadRequest(
            f"{param}.metric: {gate.metric!r} is not measured; there are {', '.join(METRICS)}.",
            param=f"{param}.metric",
            code="unsupported_value",
        )
    if gate.metric == "agreement" and body.strategy != "shadow":
        raise BadRequest(
            f"{param}.metric: only copies of the same request can agree: for a shadow.", param=f"{param}.metric"
        )
    _check_kind(gate, metric, param, body.target.kind)
    if (body.target.kind == "retriever" and gate.metric not in SEARCHED) or (
        body.target.kind != "retriever" and gate.metric == "empty_rate"
    ):
        raise BadRequest(
            f"{param}.metric: of searches there are {', '.join(SEARCHED)}, and of nothing else `empty_rate`.",
            param=f"{param}.metric",
            code="unsupported_value",
        )
    if (gate.metric in JUDGED) is (gate.judge is None):
        raise BadRequest(
            f"{param}.judge: who judges, for the metrics {' and '.join(JUDGED)} and no other.", param=f"{param}.judge"
        )
    if gate.metric == "preferred" and body.target.kind != "route":
        raise BadRequest(f"{param}.metric: of routes, whose versions can be asked the same.", param=f"{param}.metric")
    if gate.metric == "preferred" and not 0 < gate.max_regression < 0.5:
        raise BadRequest(
            f"{param}.max_regression: between 0 and 0.5: how much less than half may be won.",
            param=f"{param}.max_regression",
        )
    if gate.judge is not None and (body.target.kind == "model" or body.strategy == "shadow"):
        raise BadRequest(f"{param}.judge: of answers of routes and prompts that somebody got.", param=f"{param}.judge")
    absolute = gate.unit == "absolute" or (gate.unit is None and not metric.relative)
    if (
        metric.kind != "quantile"
        and absolute
        and metric.counts != "cost"
        and gate.range is None
        and gate.max_regression >= 1
    ):
        raise BadRequest(
            f"{param}.max_regression: less than 1, which is all there is.", param=f"{param}.max_regression"
        )
    if gate.range is not None and (gate.metric != "feedback" or gate.range[0] >= gate.range[1]):
        raise BadRequest(f"{param}.range: of feedback, the lower end first.", param=f"{param}.range")


def _check_kind(gate: GateBody, metric: Metric, param: str, kind: Kind) -> None:
    """What belongs to gates on drift and on bias, and to no others."""
    model = kind == "model"
    if metric.kind == "gap" and not model:
        raise BadRequest(
            f"{param}.metric: of classic models, which say to which group a row belongs.", param=f"{param}.metric"
        )
    if (metric.kind == "gap") is (gate.group is None):
        what = "which column says to which group a row belongs?" if gate.group is None else "of gates on bias."
        raise BadRequest(f"{param}.group: {what}", param=f"{param}.group")
    if gate.columns and metric.kind != "drift":
        raise BadRequest(f"{param}.columns: of gates on drift.", param=f"{param}.columns")
    if gate.reference == "training" and not (metric.kind == "drift" and model):
        raise BadRequest(f"{param}.reference: of drift of classic models.", param=f"{param}.reference")
    if metric.kind in {"drift", "gap"} and not (0 < gate.max_regression < 1 and gate.unit != "relative"):
        raise BadRequest(
            f"{param}.max_regression: between 0 and 1, a difference of shares.", param=f"{param}.max_regression"
        )
