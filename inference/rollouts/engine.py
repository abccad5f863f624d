"""Looks after the rollouts of one database: counts what their arms came to, judges, moves. One process at a time does so for each.

Everything that a turn does is done in transactions that find it done already if they are repeated, so that whoever is killed is
simply replaced by whoever gets the lease next.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, final

import msgspec
import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from inference.feedback.word import JUDGE, PAIRS
from inference.rollouts import bandit, store
from inference.rollouts.decision import decide
from inference.rollouts.gates import METRICS, Evidence, judge
from inference.rollouts.ports import Answers, Lever, Source
from inference.rollouts.rollout import CHALLENGER, CHAMPION, Kind, Plan, Position, step_at
from inference.rollouts.store import Rollout, Said
from inference.rollouts.tally import Seen, Tally
from inference.rollouts.values import drawn, written

log = structlog.stdlib.get_logger(__name__)

COUNTED_AT_ONCE: Final = 5_000
AGAIN_S: Final = 30.0  # what was written by clocks and transactions that overlap is read again for so long
MOVED_BY: Final = 0.05  # of the requests: a bandit that moves less does not move

Transaction = Callable[[], AbstractContextManager[Connection]]
Moved = Callable[[Connection, Rollout, Rollout], None]


class Work(msgspec.Struct, frozen=True):
    """`appending` writes records, `changing` the control state. `moved` is told, in the transaction, of each change of state."""

    reading: Transaction
    appending: Transaction
    changing: Transaction
    moved: Moved


@final
class Engine:
    """One per process, used from one thread at a time."""

    def __init__(
        self,
        work: Work,
        levers: Mapping[Kind, Lever],
        sources: Mapping[Kind, Source],
        answers: Answers | None,
        owner: str,
        unix: Callable[[], float],
    ) -> None:
        self._work = work
        self._levers = levers
        self._sources = sources
        self._answers = answers
        self._owner = owner
        self._unix = unix
        self._heard: dict[str, float] = {}  # until when feedback was read, by rollout

    def active(self) -> Sequence[Rollout]:
        with self._work.reading() as tx:
            return store.active(tx)

    def turn(self) -> Sequence[Rollout]:
        """One look at each rollout that is this process's. Those that have moved, as they are now."""
        with self._work.appending() as tx:
            mine = store.claim(tx, self._owner, self._unix())
        self._heard = {one.id: self._heard.get(one.id, one.created_at) for one in mine}
        moved = []
        for rollout in mine:
            try:
                after = self._look(rollout)
            except Exception:  # a border between rollouts: one that cannot be judged must not stop the others
                log.exception("rollout.failed", rollout=rollout.id)
                continue
            if after is not None:
                moved.append(after)
        return moved

    def observe(self, observed: Mapping[str, Sequence[store.Observed]]) -> None:
        """What this process has seen itself; whoever looks after a rollout counts it."""
        with self._work.appending() as tx:
            for id_, outcomes in observed.items():
                store.observe(tx, id_, outcomes)

    def release(self) -> None:
        with self._work.appending() as tx:
            store.release(tx, self._owner)

    def _look(self, rollout: Rollout) -> Rollout | None:
        source = self._sources.get(rollout.plan.kind)
        observed = () if source is None else source.since(rollout)
        with self._work.appending() as tx:
            tally, evidence = self._count(tx, rollout, observed)
        if rollout.position.state != "running":
            return None
        with self._work.reading() as tx:
            disturbed = self._levers[rollout.plan.kind].disturbed(tx, rollout.plan, rollout.position.share)
        if disturbed is not None:
            position = replace(rollout.position, state="paused", reason=disturbed)
        else:
            position = decide(rollout.plan, rollout.position, evidence, tally, self._unix())
        if position == rollout.position and rollout.plan.strategy == "bandit":
            share = bandit.share(rollout.plan, tally, rollout.plan.steps[position.step])
            if abs(share - position.share) >= MOVED_BY:
                position = replace(position, share=share)
        return None if position == rollout.position else self._move(rollout, position)

    def _move(self, rollout: Rollout, position: Position) -> Rollout | None:
        """Nothing if somebody else has moved it, or the lease is another's by now."""
        with self._work.changing() as tx:
            if not store.owned(tx, rollout.id, self._owner):
                return None
            now = store.find(tx, rollout.id)
            if now is None or now.position != rollout.position:
                return None
            after = moved(tx, self._levers[rollout.plan.kind], now, position, self._unix())
            self._work.moved(tx, now, after)
        log.info(
            "rollout.moved", rollout=rollout.id, state=position.state, share=position.share, reason=position.reason
        )
        return after

    def _count(
        self, tx: Connection, rollout: Rollout, observed: Sequence[store.Observed]
    ) -> tuple[Tally, Sequence[Evidence]]:
        """Each outcome once, in the transaction that marks it."""
        store.observe(tx, rollout.id, observed)
        tally = store.tally(tx, rollout.id)
        _shape(rollout.plan, tally)
        fresh = store.uncounted(tx, rollout.id, COUNTED_AT_ONCE)
        for one in fresh:
            stratum = _stratum(rollout, one.at)
            if stratum is not None:
                tally.add(stratum, one.arm, one.seen)
        since, heard = self._heard[rollout.id], self._unix()
        said = store.said(tx, rollout.id, since - AGAIN_S, [one.id for one in fresh])
        changed = self._hear(tx, rollout, tally, said)
        self._heard[rollout.id] = heard
        if not fresh and not changed and rollout.evidence:
            return tally, rollout.evidence
        evidence = judge(rollout.plan, tally)
        store.counted(tx, rollout.id, tally, evidence)
        return tally, evidence

    def _hear(self, tx: Connection, rollout: Rollout, tally: Tally, said: Sequence[Said]) -> bool:
        """The last word on each outcome replaces what was counted of the one before."""
        known = self._answers.of(tx, [one.id for one in said if one.label is not None]) if self._answers else {}
        last = {(one.id, one.arm, _speaker(one.source)): one for one in said}
        heard: dict[tuple[str, str], Seen | None] = {}
        changed = False
        for one in last.values():
            stratum = _stratum(rollout, one.at)
            before = heard.get((one.id, one.arm), one.judged)
            verdict = _verdict(rollout.plan, one, known.get(one.id), before or Seen())
            if verdict == before or stratum is None:
                continue
            if before is not None:
                tally.add(stratum, one.arm, before, -1)
            tally.add(stratum, one.arm, verdict)
            heard[one.id, one.arm] = verdict
            store.judged(tx, rollout.id, one.id, one.arm, verdict)
            changed = True
        return changed


def moved(tx: Connection, lever: Lever, rollout: Rollout, position: Position, now: float) -> Rollout:
    """The rollout in its new position, and its target with it."""
    plan, restore = rollout.plan, rollout.restore
    match position.state:
        case "promoted":
            lever.finish(tx, plan, restore, CHALLENGER)
        case "rolled_back":
            lever.finish(tx, plan, restore, CHAMPION)
        case "running":
            lever.move(tx, plan, restore, position.share, plan.copied(position.step))
        case "paused":
            pass
    store.move(tx, rollout.id, position, now)
    found = store.find(tx, rollout.id)
    assert found is not None
    return found


def _shape(plan: Plan, tally: Tally) -> None:
    """Columns that are held against training data are cut where that is."""
    for gate in plan.gates:
        side = METRICS[gate.metric].counts
        if gate.training is not None and side not in tally.edges:
            texts = [name for name, one in gate.training.items() if one.text]
            tally.shape(side, {name: one.edges for name, one in gate.training.items()}, texts)


def _stratum(rollout: Rollout, at: float) -> int | None:
    step = step_at(rollout.position, at)
    return None if step < 0 else rollout.plan.strata[min(step, len(rollout.plan.steps) - 1)]


def _speaker(source: str) -> str:
    """Each has words of his own on an outcome."""
    return next((one for one in (PAIRS, JUDGE) if source.startswith(one)), "people")


def _verdict(plan: Plan, said: Said, predicted: Sequence[Any] | None, before: Seen) -> Seen:
    """A judge says nothing of what people say, and they nothing of what it says."""
    if said.source.startswith(PAIRS):
        return replace(before, lost=None if said.score is None else 1 - said.score)
    if said.source.startswith(JUDGE):
        return replace(before, judged=None if said.score is None else 1 - said.score)
    regret = wrong = None
    if said.score is not None:
        gate = next((gate for gate in plan.gates if gate.metric == "feedback"), None)
        low, high = (0.0, 1.0) if gate is None else (gate.low, gate.high)
        regret = min(1.0, max(0.0, (high - said.score) / (high - low)))
    if said.label is not None:
        wrong = _wrong(said.label, predicted)
    return Seen(wrong=wrong, regret=regret, judged=before.judged, lost=before.lost, **_hit(plan, said, predicted))


def _hit(plan: Plan, said: Said, predicted: Sequence[Any] | None) -> dict[str, Any]:
    """Of who deserved the positive class, whether they got it."""
    if plan.group is None or said.group is None or said.positive is None or said.label is None:
        return {}
    labels = said.label if isinstance(said.label, list) else [said.label]
    if predicted is not None and len(predicted) != len(labels):
        return {}
    label = labels[drawn(said.id, len(labels))] if labels else None
    return {"group": said.group, "hit": said.positive} if written(label) == plan.group[1] else {}


def _wrong(label: Any, predicted: Sequence[Any] | None) -> float | None:
    """The part of the rows whose prediction is another. Where no prediction is known, true and false say whether the answer was right."""
    if predicted is None:
        return None if not isinstance(label, bool) else float(not label)
    labels = label if isinstance(label, list) else [label]
    if len(labels) != len(predicted) or not labels:
        return None
    return sum(_differ(*pair) for pair in zip(labels, predicted, strict=True)) / len(labels)


def _differ(label: Any, predicted: Any) -> bool:
    if isinstance(label, str) != isinstance(predicted, str):
        return str(label) != str(predicted)
    return bool(label != predicted)
