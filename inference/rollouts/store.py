"""SQL of rollouts and their outcomes. Every function takes the transaction that it works in."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, or_, select, update

from inference.database import inserting
from inference.rollouts.gates import Evidence
from inference.rollouts.rollout import ArmName, Kind, Plan, Position
from inference.rollouts.tables import feedback, rollout_outcomes, rollouts
from inference.rollouts.tally import Seen, Tally

LEASE_S = 5.0  # after which another process looks after the rollouts of one that is silent
_AT_ONCE = 500  # rows of one statement

ACTIVE = ("running", "paused")


class Rollout(msgspec.Struct, frozen=True):
    """`restore`: what stood before it began, in the words of whatever moves its shares."""

    id: str
    plan: Plan
    position: Position
    evidence: tuple[Evidence, ...]
    restore: Mapping[str, Any]
    created_at: float
    updated_at: float
    ended_at: float | None

    @property
    def active(self) -> bool:
        return self.position.state in ACTIVE


class Observed(msgspec.Struct, frozen=True):
    """What one call of one arm came to. `at`, in Unix seconds, is when it arrived."""

    id: str
    arm: ArmName
    at: float
    seen: Seen


class Said(msgspec.Struct, frozen=True):
    """Something that was said of a call, next to what is counted of it so far."""

    id: str
    arm: ArmName
    at: float
    judged: Seen | None
    label: Any
    score: float | None
    source: str = "user"
    group: str | None = None
    positive: bool | None = None


def add(tx: Connection, rollout: Rollout) -> bool:
    """False where one for the same target is active: there is one at a time."""
    plan = rollout.plan
    values = {
        "id": rollout.id,
        "kind": plan.kind,
        "name": plan.name,
        "active": f"{plan.kind}/{plan.name}",
        "plan": msgspec.to_builtins(plan),
        "tally": msgspec.json.encode(Tally()),
        "restore": dict(rollout.restore),
        "created_at": rollout.created_at,
        **_changing(rollout.position, rollout.created_at),
        "evidence": [],
    }
    adding = inserting(tx.dialect.name)(rollouts).values(values).on_conflict_do_nothing(index_elements=["active"])
    return bool(tx.execute(adding.returning(rollouts.c.id)).first())


def find(tx: Connection, id_: str) -> Rollout | None:
    row = tx.execute(select(rollouts).where(rollouts.c.id == id_)).one_or_none()
    return None if row is None else _rollout(row)


def listed(tx: Connection, limit: int, after: str | None = None, state: str | None = None) -> Sequence[Rollout]:
    """Newest first; one more than `limit`, if there is one."""
    query = select(rollouts).order_by(rollouts.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(rollouts.c.id < after)
    if state is not None:
        query = query.where(rollouts.c.state == state)
    return [_rollout(row) for row in tx.execute(query)]


def active(tx: Connection, kind: Kind | None = None) -> Sequence[Rollout]:
    query = select(rollouts).where(rollouts.c.active.is_not(None)).order_by(rollouts.c.id)
    return [_rollout(row) for row in tx.execute(query if kind is None else query.where(rollouts.c.kind == kind))]


def claim(tx: Connection, owner: str, now: float) -> Sequence[Rollout]:
    """The active ones that this process looks after from now on: its own, and those of the silent."""
    free = or_(rollouts.c.owner.is_(None), rollouts.c.owner == owner, rollouts.c.seen_at < now - LEASE_S)
    tx.execute(update(rollouts).where(rollouts.c.active.is_not(None), free).values(owner=owner, seen_at=now))
    query = select(rollouts).where(rollouts.c.active.is_not(None), rollouts.c.owner == owner).order_by(rollouts.c.id)
    return [_rollout(row) for row in tx.execute(query)]


def release(tx: Connection, owner: str) -> None:
    """What a process that ends looked after is free at once."""
    tx.execute(update(rollouts).where(rollouts.c.owner == owner).values(owner=None, seen_at=None))


def move(tx: Connection, id_: str, position: Position, now: float) -> None:
    tx.execute(update(rollouts).where(rollouts.c.id == id_).values(_changing(position, now)))


def restore(tx: Connection, id_: str, values: Mapping[str, Any]) -> None:
    tx.execute(update(rollouts).where(rollouts.c.id == id_).values(restore=dict(values)))


def owned(tx: Connection, id_: str, owner: str) -> bool:
    """Whether this process still has the lease; inside a transaction that writes."""
    mine = rollouts.c.id == id_, rollouts.c.owner == owner, rollouts.c.active.is_not(None)
    return bool(tx.execute(update(rollouts).where(*mine).values(owner=owner)).rowcount)


def tally(tx: Connection, id_: str) -> Tally:
    found = tx.execute(select(rollouts.c.tally).where(rollouts.c.id == id_)).scalar_one()
    return msgspec.json.decode(found, type=Tally)


def counted(tx: Connection, id_: str, sums: Tally, evidence: Sequence[Evidence]) -> None:
    values = {"tally": msgspec.json.encode(sums), "evidence": msgspec.to_builtins(list(evidence))}
    tx.execute(update(rollouts).where(rollouts.c.id == id_).values(values))


def observe(tx: Connection, id_: str, observed: Sequence[Observed]) -> None:
    """What is known already is left alone, so anybody may tell it again."""
    for start in range(0, len(observed), _AT_ONCE):
        rows = [
            {"rollout": id_, "id": one.id, "arm": one.arm, "at": one.at, "seen": _sparse(one.seen)}
            for one in observed[start : start + _AT_ONCE]
        ]
        tx.execute(inserting(tx.dialect.name)(rollout_outcomes).on_conflict_do_nothing(), rows)


def uncounted(tx: Connection, id_: str, limit: int) -> Sequence[Observed]:
    """Marks them as counted: what follows in this transaction counts them."""
    row = rollout_outcomes.c
    mine = row.rollout == id_, row.counted.is_(False)
    query = select(row.id, row.arm, row.at, row.seen).where(*mine).order_by(row.at, row.id).limit(limit)
    found = [Observed(each.id, each.arm, each.at, msgspec.convert(each.seen, Seen)) for each in tx.execute(query)]
    for start in range(0, len(found), _AT_ONCE):
        ids = [one.id for one in found[start : start + _AT_ONCE]]
        tx.execute(update(rollout_outcomes).where(*mine, row.id.in_(ids)).values(counted=True))
    return found


def said(tx: Connection, id_: str, since: float, ids: Collection[str] = ()) -> Sequence[Said]:
    """Feedback on outcomes that are counted: what is new since then, and all of what is known of `ids`."""
    outcome, word = rollout_outcomes.c, feedback.c
    query = (
        select(outcome.id, outcome.arm, outcome.at, outcome.seen, outcome.judged, word.label, word.score, word.source)
        .join_from(feedback, rollout_outcomes, word.id == outcome.id)
        .where(outcome.rollout == id_, outcome.counted.is_(True))
        .order_by(word.updated_at, word.source)
    )
    found = list(tx.execute(query.where(word.updated_at >= since)))
    wanted = list(ids)
    for start in range(0, len(wanted), _AT_ONCE):
        found += tx.execute(query.where(word.id.in_(wanted[start : start + _AT_ONCE])))
    return [
        Said(
            each.id,
            each.arm,
            each.at,
            _judged(each.judged),
            each.label,
            each.score,
            each.source,
            each.seen.get("group"),
            each.seen.get("positive"),
        )
        for each in found
    ]


def mine(tx: Connection, owner: str) -> Sequence[Rollout]:
    """Those that a process looks after, and that run."""
    query = select(rollouts).where(rollouts.c.owner == owner, rollouts.c.state == "running")
    return [_rollout(row) for row in tx.execute(query)]


def unheard(tx: Connection, id_: str, source: str, limit: int) -> Sequence[tuple[str, ArmName]]:
    """Ids and arms of calls that succeeded and of which this source has said nothing, newest first."""
    row, word = rollout_outcomes.c, feedback.c
    said = select(word.id).where(word.id == row.id, word.source == source).exists()
    query = select(row.id, row.arm, row.seen).where(row.rollout == id_, row.counted.is_(True), ~said)
    return [
        (each.id, each.arm) for each in tx.execute(query.order_by(row.at.desc()).limit(limit)) if each.seen.get("ok")
    ]


def judged(tx: Connection, id_: str, outcome: str, arm: ArmName, verdict: Seen) -> None:
    row = rollout_outcomes.c
    mine = row.rollout == id_, row.id == outcome, row.arm == arm
    tx.execute(update(rollout_outcomes).where(*mine).values(judged=_sparse(verdict)))


def _changing(position: Position, now: float) -> dict[str, Any]:
    over = position.state not in ACTIVE
    ends = {"active": None, "ended_at": now, "owner": None} if over else {}
    return {"state": position.state, "position": msgspec.to_builtins(position), "updated_at": now, **ends}


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        row.id,
        msgspec.convert(row.plan, Plan),
        msgspec.convert(row.position, Position),
        msgspec.convert(row.evidence, tuple[Evidence, ...]),
        row.restore,
        row.created_at,
        row.updated_at,
        row.ended_at,
    )


def _sparse(seen: Seen) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(seen).items() if value is not None}


def _judged(value: dict[str, Any] | None) -> Seen | None:
    return None if value is None else msgspec.convert(value, Seen)
